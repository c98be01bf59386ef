"""`landscape compare`: compare groups of checkpoints, and measure the loss on the straight lines between their minima."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from landscape.cli.options import CLEAN, Common, Varying, listed_names
from landscape.cli.output_directory import OutputDirectory
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.results import Comparison, Slice
    from landscape.surfaces.paths import BatchNorm

NAME = "compare"
# Most groups in one table of the terminal.
_SIDE_BY_SIDE = 3


def run(
    terminal: Terminal,
    common: Common,
    naming: Varying,
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="[CKPT...]", help="Checkpoints; each one is a group.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME=GLOB", help="A group of runs; repeat for every group.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas. Default: the usual measures.")
    ] = None,
    interpolate: Annotated[
        bool,
        typer.Option(
            "--line/--no-line", help="Also measure the loss on the line between the first runs of neighbouring groups."
        ),
    ] = True,
    grid: Annotated[int, typer.Option("--grid", min=2, help="Number of points on that line.")] = 31,
    batchnorm: Annotated[
        str,
        typer.Option(
            "--batchnorm",
            help="BatchNorm statistics along that line: recalibrate, interpolate, or eval (those of its first end).",
        ),
    ] = "recalibrate",
    match_loss: Annotated[
        float | None, typer.Option("--match-loss", help="Keep only runs whose training loss is close to this value.")
    ] = None,
    match_factor: Annotated[
        float, typer.Option("--match-factor", help="Close means within this factor of --match-loss, above or below.")
    ] = 1.25,
    memorized: Annotated[
        list[str] | None,
        typer.Option(
            "--memorized",
            metavar="GROUP",
            help="A group of runs that memorized, for the AUC; repeat. Default: what the recipes say of their labels.",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="NAMES",
            help="What the partial correlation with the gap holds fixed: hyperparameters, train_loss, train_accuracy, "
            "separated by commas. Default: lr,batch_size,train_loss.",
        ),
    ] = None,
    clean: CLEAN = False,
) -> None:
    """Compare groups of minima: intervals, permutation tests with false-discovery control, effect sizes, AUC, rank correlation.

    Example: landscape compare --group small='runs/sb-*.safetensors' --group large='runs/lb-*.safetensors' --out compared
    """
    from landscape.cli.commands.sharpness import listed
    from landscape.cli.compared_runs import Lines, Match, gather, grouped
    from landscape.cli.setup import task_file
    from landscape.comparison import CONTROLS, compare
    from landscape.measures import chosen

    names = listed(measures)
    chosen(names)  # reports an unknown name before any work
    match = None if match_loss is None else Match(match_loss, match_factor)
    how = Lines(grid, cast("BatchNorm", batchnorm))
    files = grouped(checkpoints or [], group or [])
    marked = _marked(memorized or [], files)
    controls = CONTROLS if control is None else _controls(control, [path for paths in files.values() for path in paths])
    inputs: dict[str, Any] = {
        "command": NAME, "measures": names, "grid": grid, "interpolate": interpolate, "batchnorm": batchnorm,
        "match": None if match is None else asdict(match), "seed": common.seed, "samples": common.samples,
        "memorized": memorized, "controls": controls,
        "files": {name: [str(path) for path in paths] for name, paths in files.items()},
    } | task_file(naming)  # fmt: skip
    OutputDirectory.allow(common.out or Path("comparison"), inputs)
    runs = gather(
        terminal,
        files,
        common,
        naming,
        names,
        match=match,
        lines=how if interpolate else None,
    )
    memorizing = runs.that_memorized(marked)
    if memorizing is None and any(m is not None for found in runs.memorized.values() for m in found):
        terminal.note("not every checkpoint records whether its labels are wrong, so there is no AUC; use --memorized")
    tested = {g: [e for e in runs.test[g] if e is not None] for g in runs.test}
    comparison = compare(
        runs.sharpness,
        train=runs.train,
        test=tested if tested and all(len(tested[g]) == len(runs.test[g]) for g in tested) else None,
        hyperparameters=runs.hyperparameters,
        memorized=memorizing,
        controls=controls,
        excluded=runs.excluded,
        seed=common.seed,
    )
    heights = {name: {q: b.height for q, b in piece.barriers.items()} for name, piece in runs.lines.items()}
    comparison = replace(comparison, barriers=heights)
    _tell(terminal, comparison, runs.lines)
    inputs["groups"] = {name: [[s.sha256, s.provenance] for s in members] for name, members in runs.sharpness.items()}
    document = {
        "schema": 1,
        **comparison.to_json(),
        "match": inputs["match"],
        "lines": {name: piece.to_json() for name, piece in runs.lines.items()},
    }
    terminal.document(document)
    _write(terminal, common.out or Path("comparison"), inputs, document, comparison, runs.lines, caption=not clean)
    if runs.failures:
        raise runs.failures[0]
    empty = [name for name in files if name not in runs.sharpness]
    if empty:
        raise UsageError(
            f"expected runs in every group, found that --match-loss left none in {', '.join(empty)}",
            fix="see the training losses above; match at another loss, or with a larger --match-factor",
        )


def _controls(text: str, files: list[Path]) -> tuple[str, ...]:
    """The names in --control; an unknown one is reported before any work, by what the checkpoints record.

    Raises:
        UsageError: a name that no checkpoint records.
    """
    from landscape import checkpoints
    from landscape.comparison import hyperparameters, refuse_unknown
    from landscape.errors import LandscapeError

    names = tuple(listed_names("--control", text))
    known = []
    for path in files:
        try:
            known.append(hyperparameters(checkpoints.read(path).recipe))
        except LandscapeError:
            continue  # told where the checkpoint is measured; the others may be in order
    if known:
        refuse_unknown(names, known)
    return names


def _marked(memorized: list[str], files: dict[str, list[Path]]) -> set[str] | None:
    """The groups that are said to have memorized; None if nothing is said.

    Raises:
        UsageError: a group that is none, or all groups.
    """
    unknown = [name for name in memorized if name not in files]
    if unknown or set(memorized) == set(files):
        found = f"no group {unknown[0]!r}" if unknown else "all of them"
        raise UsageError(f"expected --memorized as some of the groups {', '.join(files)}, found {found}")
    return set(memorized) or None


def _tell(terminal: Terminal, comparison: "Comparison", lines: "dict[str, Slice]") -> None:
    """Print the warnings, the tables and the remarks."""
    for warning in comparison.warnings:
        terminal.warn(warning)
    names = list(comparison.groups)
    for start in range(0, len(names), _SIDE_BY_SIDE):
        shown = slice(start, start + _SIDE_BY_SIDE)
        head = ("median [95 % interval]", *(f"{name} (n = {len(comparison.groups[name])})" for name in names[shown]))
        terminal.table(head, [(row[0], *row[1:-1][shown]) for row in comparison.rows()])
        terminal.line()
    if any(len(members) > 1 for members in comparison.groups.values()) and comparison.differences:
        head = ("difference", "groups", "Cliff's δ [95 %]", "ratio of medians [95 %]", "p", "q (* ≤ 0.05)")
        terminal.table(head, comparison.difference_rows())
        terminal.line("δ = P(first > second) − P(first < second), and AUC = (1 + δ) / 2; p: exact permutation test on ranks;")
        terminal.line(
            "q: p adjusted for all tests (Benjamini-Hochberg, over all and over measures or other quantities: the larger)."
        )
        terminal.line()
    if comparison.memorization:
        some = next(iter(comparison.memorization.values()))
        head = (f"{some.n[0]} that memorized / {some.n[1]} others", "AUC [95 %]", "p", "q (* ≤ 0.05)")
        terminal.table(head, comparison.memorization_rows())
        terminal.line()
    if comparison.rank_correlation:
        head = ("with the generalization gap", "Kendall's τ [95 %]", "p", "q", "granulated Ψ [95 %]")
        terminal.table(head, comparison.correlation_rows())
        terminal.line()
    if rows := comparison.partial_rows():
        fixed = next((f"at fixed {', '.join(r.controls)}" for r in comparison.partial.values()), "with the generalization gap")
        terminal.table((fixed, "partial ρ [95 %]", "q", "worst sign error [95 %]", "in the environment"), rows)
        terminal.line()
    for name, piece in lines.items():
        for quantity, barrier in piece.barriers.items():
            accuracy = quantity.endswith("accuracy")
            what = quantity.replace("_", " ") + (" (percentage points)" if accuracy else "")
            height = barrier.text(100.0 if accuracy else 1.0)
            if barrier.reason:
                terminal.line(f"{name}: barrier in {what}: {height}")
            elif barrier.at in (0.0, 1.0) and math.isfinite(barrier.height):
                extreme = f"{'lowest' if accuracy else 'highest'} at an end, a = {barrier.at:.3g}"
                terminal.line(f"{name}: no barrier in {what}: {extreme}; {height} from the mean of both ends")
            else:
                found, beyond = ("no barrier", " beyond its error") if barrier.within_error else ("barrier", "")
                terminal.line(f"{name}: {found} in {what}{beyond}: {height}, at a = {barrier.at:.3g}")
        if "batchnorm" in piece.provenance:
            terminal.line(f"{name}: BatchNorm {piece.provenance['batchnorm']}")
    for remark in comparison.remarks[len(comparison.warnings) :]:
        terminal.note(remark)


def _write(
    terminal: Terminal,
    out: Path,
    inputs: dict[str, Any],
    document: dict[str, Any],
    comparison: "Comparison",
    lines: "dict[str, Slice]",
    caption: bool,
) -> None:
    """Write the JSON document, two CSV tables and the figures."""
    from landscape.machine.files import write
    from landscape.report import (
        figure_correlations,
        figure_effects,
        figure_interpolation,
        figure_measures,
        figure_separation,
        save,
    )
    from landscape.report.exports.spreadsheet import runs_csv, statistics_csv

    folder = OutputDirectory(out, inputs)
    folder.json("comparison.json", document)
    write(folder.file("runs.csv"), runs_csv(comparison).encode())
    write(folder.file("statistics.csv"), statistics_csv(comparison).encode())
    columns = 3 if len(comparison.table) + len(comparison.conditions) <= 12 else 5
    figure = figure_measures(
        comparison.groups, comparison=comparison, columns=columns, title="Measures by group", caption=caption
    )
    folder.written += save(figure, folder.path / "measures")
    if any(d.delta_low is not None for d in comparison.differences):
        folder.written += save(figure_effects(comparison, caption=caption), folder.path / "effects")
    if any(d.smallest_p < 1 for d in comparison.memorization.values()):
        folder.written += save(figure_separation(comparison, caption=caption), folder.path / "memorization")
    if comparison.rank_correlation:
        folder.written += save(figure_correlations(comparison, caption=caption), folder.path / "correlation")
    for i, piece in enumerate(lines.values(), 1):
        folder.written += save(figure_interpolation(piece, caption=caption), folder.path / f"line-{i}")
    terminal.written(folder.written)
