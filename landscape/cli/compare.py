"""`landscape compare`: groups of checkpoints side by side, and the straight lines between their minima."""

import glob
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.results import Sharpness, Slice

NAME = "compare"


def run(
    terminal: Terminal,
    common: Common,
    naming: Naming,
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="[CKPT...]", help="Checkpoints, each a group of its own.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME=GLOB", help="A group of runs; give it several times.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas; default the usual ones.")
    ] = None,
    interpolate: Annotated[
        bool, typer.Option("--line/--no-line", help="Also the straight line between the first runs of neighbouring groups.")
    ] = True,
    grid: Annotated[int, typer.Option("--grid", min=2, help="Points of that line.")] = 31,
) -> None:
    """Compare minima: measures with intervals, rank correlation with the generalization gap, barriers between them.

    Example: landscape compare --group small='runs/sb-*.safetensors' --group large='runs/lb-*.safetensors' --out compared
    """
    from landscape.cli.files import OutputDirectory
    from landscape.cli.sharpness import listed, measured
    from landscape.comparison import compare
    from landscape.measures import chosen
    from landscape.report import figure_interpolation, figure_measures, save

    names = listed(measures)
    chosen(names)
    files = _grouped(checkpoints or [], group or [])
    results: dict[str, list[Sharpness]] = {
        name: [measured(terminal, path, common, naming, names) for path in paths] for name, paths in files.items()
    }
    inputs = {
        "command": NAME, "measures": names, "grid": grid, "interpolate": interpolate,
        "groups": {name: [[s.sha256, s.provenance] for s in runs] for name, runs in results.items()},
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path("comparison"), inputs)
    lines = _lines(terminal, files, common, naming, grid) if interpolate else {}
    barriers = {name: {q: s.barrier(q) for q in s.values} for name, s in lines.items()}
    comparison = replace(compare(results, _gaps(files, common, naming, terminal), seed=common.seed), barriers=barriers)
    head = ("measure", *(f"{name} (n = {len(runs)})" for name, runs in results.items()), "Kendall's τ with the gap")
    terminal.table(head, comparison.rows())
    for name, heights in barriers.items():
        terminal.line(f"{name}: barrier " + ", ".join(f"{h:.4g} in {q.replace('_', ' ')}" for q, h in heights.items()))
    for remark in comparison.remarks:
        terminal.note(remark)
    folder.written += save(figure_measures(results), folder.path / "measures")
    for i, (name, piece) in enumerate(lines.items(), 1):
        ends = tuple(name.split(" to ", 1))
        figure = figure_interpolation(piece, ends=(ends[0], ends[1]))
        folder.written += save(figure, folder.path / f"line-{i}")
    document = {"schema": 1, **comparison.to_json(), "lines": {name: s.to_json() for name, s in lines.items()}}
    folder.json("comparison.json", document)
    terminal.document(document)
    terminal.written(folder.written)


def _grouped(checkpoints: list[Path], groups: list[str]) -> dict[str, list[Path]]:
    """Group name -> files.

    Raises:
        UsageError: fewer than two files, an empty or doubled group, or one that is not NAME=GLOB.
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
        name = path.stem if path.stem not in out else str(path)
        out.setdefault(name, []).append(path)
    if sum(map(len, out.values())) < 2:
        raise UsageError("expected at least two checkpoints to compare, found fewer", fix="name two files, or two groups")
    return out


def _gaps(files: dict[str, list[Path]], common: Common, naming: Naming, terminal: Terminal) -> dict[str, list[float]] | None:
    """Training less test accuracy of every run; None where a run has no test split or no accuracy."""
    from landscape.cli.network import objective_of, open_task, test_objective

    out: dict[str, list[float]] = {}
    for name, paths in files.items():
        for path in paths:
            task = open_task(path, naming, terminal)
            test = test_objective(task, common)
            fitted = objective_of(task, common).evaluate().accuracy
            unseen = None if test is None else test.evaluate().accuracy
            if fitted is None or unseen is None:
                return None
            out.setdefault(name, []).append(fitted.value - unseen.value)
    return out


def _lines(terminal: Terminal, files: dict[str, list[Path]], common: Common, naming: Naming, grid: int) -> "dict[str, Slice]":
    """The straight line between the first runs of neighbouring groups, on the first one's data."""
    from landscape.cli.network import objective_of, open_task, test_objective
    from landscape.errors import MismatchError
    from landscape.surfaces import interpolation

    out = {}
    firsts = [(name, paths[0]) for name, paths in files.items()]
    if len(firsts) == 1:
        paths = next(iter(files.values()))
        firsts = [(p.stem, p) for p in paths[:2]]
    for (a, path_a), (b, path_b) in itertools.pairwise(firsts):
        task = open_task(path_a, naming, terminal)
        start = objective_of(task, common, naming.split)
        end = objective_of(open_task(path_b, naming, terminal), common, naming.split)
        try:
            piece = interpolation(start, end, grid=grid, test=test_objective(task, common))
            out[f"{a} to {b}"] = replace(piece, title=f"Loss on the line from {a} to {b}, on the data of {a}")
        except MismatchError as error:
            terminal.warn(f"no line from {a} to {b}: {error}")
    return out
