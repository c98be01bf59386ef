"""Output of a surface: the printed check, the numbers in every format, the figures."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.cli.output_directory import OutputDirectory
from landscape.cli.surfaces.surface_options import SurfaceOptions
from landscape.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from landscape.results import Slice
    from landscape.tasks import Task


def finish(
    found: "Slice", folder: OutputDirectory, checkpoint: Path, task: "Task", options: SurfaceOptions, terminal: Terminal
) -> None:
    """Print the results and the check, and write the surface in every format."""
    from landscape.report import export_slice
    from landscape.results import FAILED, NOT_FINITE, UNCONVERGED

    if found.merge_tree is not None:
        found = replace(found, merge_tree=replace(found.merge_tree, threshold=options.persistence))
        terminal.line(f"topology: {found.merge_tree.line()}")  # type: ignore[union-attr]  # just replaced
    for track in found.tracks:
        share = "" if track.explained is None else f", {100 * track.explained:.1f} % of their variance explained"
        distance = f"distance from the axes at most {track.distances.max():.4g}"
        terminal.line(f"{track.label}: {len(track.names)} points{share}, {distance}")
    if "evaluation" in found.provenance:
        terminal.line(f"evaluation: {found.provenance['evaluation']}")
    for quantity, deviation in found.deviations.items():
        terminal.line(f"{quantity.replace('_', ' ')}: {deviation.line}")
    if found.refinement is not None:
        for quantity in found.refinement.points:
            terminal.line(f"{quantity.replace('_', ' ')}: {found.refinement.line(quantity)}")
    for text in found.check.lines() if found.check else ():
        terminal.line(f"check: {text}")
    if found.check is not None and not found.check.passed:
        terminal.unconverged.append("the check of the surface")
        terminal.warn("the surface fails its check: do not trust the figure")
    gap = "hatched in the figure, null in the JSON, where the status gives the reason"
    told = {NOT_FINITE: f"not finite: {gap}", FAILED: f"failed: {gap}", UNCONVERGED: "not converged: see their residuals"}
    for status, what in told.items():
        if found.count(status):
            terminal.unconverged.append(f"{found.count(status)} values of the surface ({what.partition(':')[0]})")
            terminal.warn(f"{found.count(status)} values {what}")
    document = {
        "schema": 1,
        "checkpoint": str(checkpoint),
        "sha256": task.sha256,
        "task": task.name,
        "not_finite": found.count(NOT_FINITE),
        "failed": found.count(FAILED),
        **found.to_json(),
    }
    folder.json("surface.json", document)
    folder.written += export_slice(found, folder.path, "surface")
    folder.written += draw(found, folder, caption=not options.clean)
    terminal.document(document)
    terminal.written(folder.written)


def draw_unfinished(piece: "Slice", folder: OutputDirectory, caption: bool = True) -> None:
    """Draw an unfinished slice, in the file where the finished figure will be."""
    from landscape.report import figure_slice

    if piece.values:
        _save({_first(piece): figure_slice(piece, caption=caption)}, folder)


def draw(piece: "Slice", folder: OutputDirectory, caption: bool = True) -> list[Path]:
    """Write the figures of a slice, with title and caption or without both."""
    from landscape.report import figure_interpolation, figure_merge_tree, figure_slice

    figures = {_first(piece): (figure_interpolation if piece.path else figure_slice)(piece, caption=caption)}
    if piece.dim == 2:
        figures["3d"] = figure_slice(piece, view="3d", caption=caption)
        if "test_loss" in piece.values:
            figures["test-loss"] = figure_slice(piece, quantity="test_loss", caption=caption)
    for quantity in ("lambda_max", "lambda_min", "lambda_ratio"):
        if quantity in piece.values:
            figures[quantity.replace("_", "-")] = figure_slice(piece, quantity=quantity, caption=caption)
    if piece.merge_tree is not None and len(piece.merge_tree.minima) > 1:
        figures["minima"] = figure_merge_tree(piece, caption=caption)
    return _save(figures, folder)


def _first(piece: "Slice") -> str:
    """File name of the figure that every slice has."""
    return "line" if piece.dim == 1 else "contour"


def _save(figures: "Mapping[str, Figure]", folder: OutputDirectory) -> list[Path]:
    """Write figures in every format and return their files."""
    from landscape.report import save

    return [path for name, figure in figures.items() for path in save(figure, folder.path / f"surface-{name}")]
