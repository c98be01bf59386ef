"""The runs of `landscape compare`. Each checkpoint is opened once; one that cannot be measured is reported and skipped."""

import glob
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, MismatchError, UsageError
from landscape.machine.files import bare_name

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.results import Evaluation, Sharpness, Slice
    from landscape.surfaces.paths import BatchNorm


@dataclass(frozen=True)
class Match:
    """Training losses that count as equal to `loss`: between `loss / factor` and `loss * factor`."""

    loss: float
    factor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.loss) and self.loss > 0):
            raise UsageError(f"expected --match-loss as a positive number, found {self.loss:g}", fix="pass --match-loss 0.01")
        if not (math.isfinite(self.factor) and self.factor > 1):
            raise UsageError(f"expected --match-factor above 1, found {self.factor:g}", fix="pass --match-factor 1.25")

    def refusal(self, loss: float) -> str | None:
        """The reason why a run with this training loss is left out; None if it is kept."""
        low, high = self.loss / self.factor, self.loss * self.factor
        return None if low <= loss <= high else f"training loss {loss:.4g}, not within {low:.4g} to {high:.4g}"


@dataclass(frozen=True)
class Lines:
    """Settings of the straight lines between minima."""

    grid: int
    batchnorm: "BatchNorm"

    def __post_init__(self) -> None:
        if self.batchnorm not in ("recalibrate", "interpolate", "eval"):
            raise UsageError(f"expected --batchnorm recalibrate, interpolate or eval, found {self.batchnorm!r}")


@dataclass
class Runs:
    """Results by group, in the order of the checkpoints."""

    sharpness: "dict[str, list[Sharpness]]" = field(default_factory=dict)
    train: "dict[str, list[Evaluation]]" = field(default_factory=dict)
    test: "dict[str, list[Evaluation | None]]" = field(default_factory=dict)
    hyperparameters: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    memorized: dict[str, list[bool | None]] = field(default_factory=dict)
    lines: "dict[str, Slice]" = field(default_factory=dict)
    excluded: list[tuple[str, str, str]] = field(default_factory=list)
    failures: list[LandscapeError] = field(default_factory=list)

    def that_memorized(self, marked: set[str] | None) -> dict[str, list[bool]] | None:
        """Whether each run memorized: by the marked groups, or else by its recipe; None if neither says so of every run."""
        if marked is not None:
            return {g: [g in marked] * len(runs) for g, runs in self.sharpness.items()}
        told = {g: [m for m in found if m is not None] for g, found in self.memorized.items()}
        return told if all(len(told[g]) == len(found) for g, found in self.memorized.items()) else None


def grouped(checkpoints: list[Path], groups: list[str]) -> dict[str, list[Path]]:
    """The files of each group, by its name.

    Raises:
        UsageError: fewer than two files, an empty group, two groups of one name, or a group that is not NAME=GLOB.
    """
    out: dict[str, list[Path]] = {}
    for text in groups:
        name, equals, pattern = text.partition("=")
        if not equals or not name or name in out:
            raise UsageError(
                f"expected --group NAME=GLOB with a new name, found {text!r}", fix="for example --group small='runs/sb-*.pt'"
            )
        out[name] = [Path(p) for p in sorted(glob.glob(pattern))]
        if not out[name]:
            raise UsageError(f"expected files that match {pattern!r}, found none", fix="quote the pattern and check the path")
    for path in checkpoints:
        name = bare_name(path) if bare_name(path) not in out else str(path)
        out.setdefault(name, []).append(path)
    if sum(map(len, out.values())) < 2:
        raise UsageError("expected at least two checkpoints to compare, found fewer", fix="name two files, or two groups")
    return out


def gather(
    terminal: Terminal,
    files: dict[str, list[Path]],
    common: Common,
    naming: Naming,
    names: str | list[str] | None,
    *,
    match: Match | None,
    lines: Lines | None,
) -> Runs:
    """Measure every run, and the line between the first runs of neighbouring groups (or of a single group's first two).

    Raises:
        LandscapeError: no run could be measured; this is the first failure.
    """
    from landscape.cli.commands.sharpness import measured_at
    from landscape.cli.setup import objective_of, open_task, test_objective
    from landscape.comparison import hyperparameters, memorizes
    from landscape.machine import distributed

    runs = Runs()
    before: tuple[str, Objective, Objective | None] | None = None
    neighbour: Sharpness | None = None  # its eigenvectors start the next solve; values do not depend on the order
    for group, path in ((g, p) for g, paths in files.items() for p in paths):
        try:
            task = open_task(path, naming, terminal)
            train = objective_of(task, common, "train")
            fitted = train.evaluate()
            refusal = None if match is None else match.refusal(fitted.loss.value)
            if refusal is not None:
                runs.excluded.append((group, str(path), refusal))
                terminal.warn(f"{path.name} of {group} is left out: {refusal}")
                continue
            test = test_objective(task, common)
            objective = train if naming.split == "train" else objective_of(task, common, naming.split)
            sharpness = measured_at(terminal, path, task, objective, common, naming, names, neighbour)
            neighbour = sharpness
            unseen = None if test is None else test.evaluate()
        except LandscapeError as error:
            distributed.group().fail_together(error)
            # Measure the other checkpoints all the same.
            runs.failures.append(error)
            terminal.warn(f"{path}: {error}")
            continue
        first = not runs.sharpness.get(group)
        runs.sharpness.setdefault(group, []).append(replace(sharpness, directions=None))
        runs.train.setdefault(group, []).append(fitted)
        runs.test.setdefault(group, []).append(unseen)
        runs.hyperparameters.setdefault(group, []).append(hyperparameters(task.recipe))
        runs.memorized.setdefault(group, []).append(memorizes(task.recipe))
        if lines is not None and (first or (len(files) == 1 and len(runs.sharpness[group]) == 2)):
            name = group if len(files) > 1 else bare_name(path)
            if before is not None:
                _line(terminal, runs, before, (name, train), lines)
            before = name, train, test
    if not runs.sharpness and runs.failures:
        raise runs.failures[0]
    if not runs.sharpness:
        raise UsageError(
            f"expected runs near a training loss of {match.loss if match else 0:g}, found none: {runs.excluded[0][2]}",
            fix="choose the loss at which training stopped, or a larger --match-factor",
        )
    return runs


def _line(
    terminal: Terminal,
    runs: Runs,
    start: "tuple[str, Objective, Objective | None]",
    end: "tuple[str, Objective]",
    how: Lines,
) -> None:
    """The straight line between two runs, on the data of the first."""
    from landscape.surfaces import interpolation

    (a, train, test), (b, other) = start, end
    try:
        piece = interpolation(train, other, grid=how.grid, test=test, batchnorm=how.batchnorm)
    except MismatchError as error:
        terminal.warn(f"no line from {a} to {b}: {error}")
        return
    between = piece.title.replace("between two minima", f"from {a} to {b}, on the data of {a}", 1)
    runs.lines[f"{a} to {b}"] = replace(piece, title=between, provenance={**piece.provenance, "ends": [a, b]})
