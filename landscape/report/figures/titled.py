"""Whole figures: a drawing with its title, its checks and a footer that says what it was made from."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.report.figures.certificate_panels import draw_certificate_panels, left_out
from landscape.report.figures.effects import draw_correlations, draw_effects
from landscape.report.figures.history import Run
from landscape.report.figures.on_axes import (
    draw_breakdown,
    draw_certificate,
    draw_density,
    draw_eigenvalues,
    draw_history,
    draw_interpolation,
    draw_measures,
    draw_merge_tree,
    draw_slice,
)
from landscape.report.figures.spectrum import resolution
from landscape.report.quantities import is_eigenvalue, quantity_name
from landscape.report.style import GREY, house, printable, settle, wrapped
from landscape.report.surfaces.coarse import preview, show_whole_span
from landscape.report.surfaces.tracks import track_line
from landscape.results import UNCONVERGED, Block, Certificate, Comparison, Eigenpairs, Sharpness, Slice, SpectralDensity

Provenance = Mapping[str, Any]


def figure_density(
    density: SpectralDensity,
    *,
    eigenpairs: Eigenpairs | None = None,
    title: str = "Spectral density of the Hessian",
    provenance: Provenance | None = None,
) -> Figure:
    """`draw_density` with title and footer."""
    work = f"{density.probes} probes × {density.nodes.shape[1]} steps, {density.matvecs} products, {density.dim:,} weights"
    facts = [f"stochastic Lanczos quadrature: {work}", *resolution(density)]
    return finish(draw_density(density, eigenpairs=eigenpairs), title, facts, provenance)


def figure_eigenvalues(
    pairs: Eigenpairs, *, title: str = "Extreme eigenvalues of the Hessian", provenance: Provenance | None = None
) -> Figure:
    """`draw_eigenvalues` with title and footer."""
    lost = int((~pairs.converged).sum())
    facts = [f"{pairs.matvecs} products with the Hessian", f"{lost} of {len(pairs)} NOT converged" if lost else "all converged"]
    return finish(draw_eigenvalues(pairs), title, facts, provenance)


def figure_breakdown(
    layers: Sequence[Block],
    filters: Sequence[Block] = (),
    *,
    title: str = "Curvature by layer",
    provenance: Provenance | None = None,
) -> Figure:
    """`draw_breakdown` with title and footer."""
    lost = sum(not b.lambda_max.converged for b in (*layers, *filters))
    state = f"{lost} of the eigenvalues NOT converged" if lost else "all eigenvalues converged"
    facts = [f"{len(layers)} layers, {len(filters)} filters (weights without biases)", state]
    return finish(draw_breakdown(layers, filters)[0], title, facts, provenance)


def figure_slice(piece: Slice, *, quantity: str = "loss", view: str = "contour", title: str | None = None) -> Figure:
    """`draw_slice` with the slice's title, its check's lines, its tracks, its minima and its provenance.

    Of a slice with many points still missing, the finest complete sub-grid is drawn; the title says so.
    """
    part, progress = preview(piece, quantity)
    named = title or (piece.title if quantity == "loss" else _named(piece.title, quantity_name(quantity)))
    ax = draw_slice(part, quantity=quantity, view=view)
    if part is not piece:
        show_whole_span(ax, piece)
    return finish(ax, f"{named} ({progress})" if progress else named, _facts(piece, quantity), piece.provenance)


def _named(title: str, name: str) -> str:
    """The title of a slice for another of its quantities."""
    return name + title.removeprefix("Loss") if title.startswith(("Loss on ", "Loss along ")) else f"{title}: {name}"


def figure_merge_tree(piece: Slice, *, title: str | None = None) -> Figure:
    """`draw_merge_tree` with the slice's title, the number of minima and its provenance."""
    ax = draw_merge_tree(piece)
    assert piece.merge_tree is not None  # the drawing refuses a slice without one
    facts = [piece.merge_tree.line(), "a bar runs from a minimum to the pass that leads to a lower one"]
    return finish(ax, title or _named(piece.title, "Minima and their persistence"), facts, piece.provenance)


def _facts(piece: Slice, quantity: str) -> list[str]:
    """What the footer of a slice says of it besides its provenance."""
    facts = list(piece.check.lines()) if piece.check is not None else []
    if piece.dim == 1 and quantity in piece.stderr and quantity not in piece.paired and not is_eigenvalue(quantity):
        facts.append("bands: 95 % over samples")
    lost = int((piece.status[quantity] == UNCONVERGED).sum())
    if lost:
        facts.append(f"{lost} of {piece.values[quantity].size} points NOT converged: see the residuals")
    facts += [track_line(track, piece) for track in piece.tracks]
    if piece.merge_tree is not None and piece.merge_tree.quantity == quantity:
        facts.append(piece.merge_tree.line())
    return facts


def figure_interpolation(piece: Slice, *, ends: tuple[str, str] = ("start", "end"), title: str | None = None) -> Figure:
    """`draw_interpolation` with the slice's title, its barriers and its provenance."""
    facts = [f"{quantity_name(quantity)}: {b.words(quantity)}" for quantity, b in piece.barriers.items()]
    facts += ["± is 95 % over samples"] if facts else []
    facts += list(piece.check.lines()) if piece.check is not None else []
    facts += [track_line(track, piece) for track in piece.tracks]
    return finish(draw_interpolation(piece, ends=ends)[0], title or piece.title, facts, piece.provenance)


def figure_certificate(
    certificates: Sequence[tuple[float, Certificate]],
    *,
    title: str = "What a rescaling did to each measure",
    provenance: Provenance | None = None,
) -> Figure:
    """`draw_certificate`, or a panel a measure where there are many or both symmetries; with the largest change of the outputs.

    Up to twelve measures under one symmetry share one pair of axes.
    """
    worst = worst_function([certificate for _, certificate in certificates])
    facts = [worst.function_line()]
    many = len({row.name for _, c in certificates for row in c.rows}) > 12
    drawable = any(0 < row.ratio < math.inf for _, c in certificates for row in c.rows)
    if drawable and (many or len({c.symmetry for _, c in certificates}) > 1):
        ax = draw_certificate_panels(certificates)[0]
        facts += left_out(certificates)
    else:
        ax = draw_certificate(certificates)
    return finish(ax, title, facts, provenance if provenance is not None else worst.provenance)


def figure_measures(
    groups: Mapping[str, Sequence[Sharpness]],
    *,
    measures: Sequence[str] | None = None,
    columns: int = 3,
    title: str = "Sharpness by group",
    comparison: Comparison | None = None,
) -> Figure:
    """`draw_measures` with a title and the provenance that all checkpoints share."""
    axes = draw_measures(groups, measures=measures, columns=columns, comparison=comparison)
    shared = shared_provenance(groups)
    members = [s for group in groups.values() for s in group]
    facts = [
        f"checkpoints: {len(members)}",
        "thin bars: 95 % of the method's error",
        "wide bars: from having only these samples: 95 %, or one standard deviation for a maximum",
        "line: median of a group of 3 or more",
    ]
    facts += ["arrow up: lower bound", "hollow: not converged"]
    if comparison is not None and any(v.is_interval for by_group in comparison.table.values() for v in by_group.values()):
        facts.append("box: 95 % bootstrap interval of the median")
    return finish(axes[0], title, facts, shared)


def figure_effects(comparison: Comparison, *, title: str = "Differences between the groups") -> Figure:
    """`draw_effects` with the number of runs and how they were tested."""
    sizes = ", ".join(f"{name}: {len(runs)} runs" for name, runs in comparison.groups.items())
    facts = [sizes, "bars: 95 % intervals", "q: permutation tests on ranks, Benjamini-Hochberg over all measures and pairs"]
    return finish(draw_effects(comparison)[0], title, facts, shared_provenance(comparison.groups))


def figure_correlations(comparison: Comparison, *, title: str = "Does the measure go with generalization?") -> Figure:
    """`draw_correlations` with the number of runs."""
    runs = sum(map(len, comparison.groups.values()))
    varying = ", ".join(dict.fromkeys(k for g in comparison.granulated.values() for k in g.by_hyperparameter))
    facts = [
        f"{runs} runs, taken for independent draws: groups that differ in both make a tau, too",
        "bars: 95 % bootstrap intervals",
    ]
    facts += [f"Ψ over {varying}"] if varying else []
    return finish(draw_correlations(comparison), title, facts, shared_provenance(comparison.groups))


def shared_provenance(groups: Mapping[str, Sequence[Sharpness]]) -> dict[str, Any]:
    """What all checkpoints have in common, and their number of samples."""
    members = [s for group in groups.values() for s in group]
    counts = sorted({s.samples for s in members})
    shared = {k: v for k, v in members[0].provenance.items() if all(s.provenance.get(k) == v for s in members)}
    return shared | {"samples": f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"}


def figure_history(history: Mapping[str, Run], *, title: str = "Training", provenance: Provenance | None = None) -> Figure:
    """`draw_history` with title and footer."""
    return finish(draw_history(history)[0], title, [], provenance)


def worst_function(certificates: Sequence[Certificate]) -> Certificate:
    """The certificate whose outputs differ most, one that is not the same function before all others."""
    return max(certificates, key=lambda c: (not c.same_function, c.max_delta_logit / (c.logit_scale or 1.0)))


@house
def finish(ax: Axes, title: str, facts: Sequence[str] = (), provenance: Provenance | None = None) -> Figure:
    """Give the figure of `ax` a title above, and facts and provenance in small grey type below."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    width = figure.get_figwidth()
    heading = wrapped(title, int(width * 11))
    figure.suptitle(heading, x=0.012, ha="left", fontsize=10.5)
    lines = ["; ".join(facts), provenance_line(provenance or {})]
    footer = "\n".join(wrapped(line, int(width * 21), 1000) for line in lines if line)
    if footer:
        figure.supxlabel(footer, x=0.012, ha="left", fontsize=6.5, color=GREY, linespacing=1.35)
    # The drawing keeps the size it was made for: the paper grows by what is written above and below it.
    extra = 0.17 * (heading.count("\n") + 1) + (0.13 * (footer.count("\n") + 1) if footer else 0.0)
    figure.set_figheight(figure.get_figheight() + extra)
    return settle(figure)


def provenance_line(provenance: Provenance) -> str:
    """Checkpoint, samples, seed, dtype, device and versions in one line, as far as they are known.

    Example:
        >>> provenance_line({"seed": 0, "samples": 1347, "dtype": "float64"})
        '1,347 samples · seed 0 · float64'
    """
    parts = []
    if provenance.get("checkpoint"):
        parts.append(PurePath(str(provenance["checkpoint"])).name)
    if provenance.get("task") and provenance.get("split"):
        parts.append(f"{provenance['task']}, {provenance['split']} split")
    curve = provenance.get("curve")
    if isinstance(curve, Mapping):
        told = (f"{key} {curve[key]:.4g}" for key in ("bends", "steps", "seed", "length") if key in curve)
        parts.append(f"trained curve: {', '.join(told)}")
    if provenance.get("samples") is not None:
        samples = provenance["samples"]
        parts.append(f"{samples:,} samples" if isinstance(samples, int) else f"{samples} samples")
    if provenance.get("seed") is not None:
        parts.append(f"seed {provenance['seed']}")
    if provenance.get("batchnorm"):
        parts.append(f"BatchNorm: {provenance['batchnorm']}")
    parts += [str(provenance[key]) for key in ("dtype", "device") if provenance.get(key)]
    parts += [f"{key} {provenance[key]}" for key in ("landscape", "torch") if provenance.get(key)]
    return " · ".join(printable(p, 60) for p in parts)
