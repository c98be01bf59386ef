"""Figures with title and caption, or without both for a paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from landscape.report.figures.caption import (
    Provenance,
    barrier_facts,
    bars_line,
    check_line,
    detection_line,
    random_axes_line,
    runs_line,
    slice_facts,
    subject_line,
)
from landscape.report.figures.certificate_map import draw_certificate_map
from landscape.report.figures.certificate_panels import draw_certificate_panels, left_out
from landscape.report.figures.effects import draw_correlations, draw_effects, draw_separation
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
from landscape.report.figures.ranked_samples import are_images, draw_ranked_images, draw_ranked_scores, draw_shares
from landscape.report.figures.spectrum import draw_minibatch_spectra, resolution
from landscape.report.over_training.history import Run
from landscape.report.quantities import quantity_name
from landscape.report.style import number_of, short, unit_text
from landscape.report.surfaces.coarse import preview, show_whole_span
from landscape.report.surfaces.tracks import track_line
from landscape.report.words_around import finish
from landscape.results import (
    Block,
    Breakdown,
    Certificate,
    CertificateTable,
    Comparison,
    Eigenpairs,
    MinibatchSpectra,
    SampleScores,
    Sharpness,
    Slice,
    SpectralDensity,
)


def figure_density(
    density: SpectralDensity,
    *,
    eigenpairs: Eigenpairs | None = None,
    title: str = "Spectral density of the Hessian",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_density` with title and caption."""
    probes, steps = number_of(density.probes, "random vector"), number_of(density.nodes.shape[1], "step")
    work = f"{probes} × {steps}, {number_of(density.dim, 'weight')}"
    facts = "; ".join([f"stochastic Lanczos quadrature: {work}", *resolution(density)])
    return finish(draw_density(density, eigenpairs=eigenpairs), title, [facts, subject_line(provenance)], caption)


def figure_eigenvalues(
    pairs: Eigenpairs,
    *,
    title: str = "Extreme eigenvalues of the Hessian",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_eigenvalues` with title and caption."""
    lost = int((~pairs.converged).sum())
    check = f"{lost} of {len(pairs)} NOT converged; checked: residuals" if lost else "checked: residuals, all converged"
    return finish(draw_eigenvalues(pairs), title, [subject_line(provenance), check], caption)


def figure_minibatch_spectra(
    found: MinibatchSpectra,
    *,
    title: str = "Curvature of mini-batches",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_minibatch_spectra` with title, the share of saddles, and caption."""
    lost = int((~found.converged).any(1).sum())
    state = f"{lost} of {len(found)} mini-batches NOT converged" if lost else "all eigenvalues converged"
    state += f", residuals of lambda_min ≤ {short(float(found.residuals[:, 1].max()), 2)}"
    return finish(draw_minibatch_spectra(found), title, [f"{found.share_words()}; {state}", subject_line(provenance)], caption)


def figure_breakdown(
    layers: Sequence[Block],
    filters: Sequence[Block] = (),
    *,
    title: str = "Curvature by layer",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_breakdown` with title and caption."""
    lost = sum(not b.lambda_max.converged for b in (*layers, *filters))
    state = f"{lost} of the eigenvalues NOT converged" if lost else "all eigenvalues converged"
    counts = ", ".join([number_of(len(layers), "layer"), *([number_of(len(filters), "filter")] if filters else [])])
    facts = f"{counts}; {state}"
    return finish(draw_breakdown(layers, filters)[0], title, [facts, subject_line(provenance)], caption)


def figure_blocks(blocks: Breakdown, caption: bool = True) -> Figure:
    """`figure_breakdown` of what `ls.breakdown` returns."""
    return figure_breakdown(blocks.layers, blocks.filters, caption=caption)


def figure_ranked_scores(
    found: SampleScores, *, title: str | None = None, provenance: Provenance | None = None, caption: bool = True
) -> Figure:
    """`draw_ranked_scores` with title, how well the score finds wrong labels, and caption."""
    named = title or f"Samples ranked by {found.by}"
    return finish(draw_ranked_scores(found), named, [detection_line(found), subject_line(provenance)], caption)


def figure_shares(
    found: SampleScores,
    *,
    score: str | None = None,
    title: str | None = None,
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_shares` with title and caption."""
    named = title or f"Share of {found.share_name(score)} that samples carry"
    return finish(draw_shares(found, score=score), named, [subject_line(provenance)], caption)


def figure_samples(
    found: SampleScores, *, title: str | None = None, provenance: Provenance | None = None, caption: bool = True
) -> Figure:
    """`draw_ranked_images` with title and caption; `figure_ranked_scores` if the samples are no images."""
    if not are_images(found.inputs):
        return figure_ranked_scores(found, title=title, provenance=provenance, caption=caption)
    facts = f"in order of rank; the last line of each is the score ({unit_text(found.units[found.by])})"
    facts += "" if found.wrong is None else "; framed: known to be wrong"
    named = title or f"Samples ranked highest by {found.by}"
    return finish(draw_ranked_images(found)[0], named, [facts, detection_line(found), subject_line(provenance)], caption)


def figure_slice(
    piece: Slice, *, quantity: str = "loss", view: str = "contour", title: str | None = None, caption: bool = True
) -> Figure:
    """`draw_slice` with the slice's title, network and data, and its check in one line.

    If many points are missing, the finest complete sub-grid is drawn and the title says so.
    """
    part, progress = preview(piece, quantity)
    named = title or (piece.title if quantity == "loss" else _named(piece.title, quantity_name(quantity)))
    ax = draw_slice(part, quantity=quantity, view=view)
    if part is not piece:
        show_whole_span(ax, piece)
    return finish(ax, f"{named} ({progress})" if progress else named, slice_caption(piece, quantity), caption)


def slice_caption(piece: Slice, quantity: str = "loss") -> list[str]:
    """The lines below a figure of a slice: remarks, network and data, checks."""
    lines = ["; ".join(slice_facts(piece, quantity)), subject_line(_made_with(piece, quantity))]
    return lines + ([CHECKED_ON_TRAINING] if quantity.startswith("test_") else [random_axes_line(piece), check_line(piece)])


# Below a figure of test values: centre, curvature and the smallest eigenvalue of the check are those of the training loss.
CHECKED_ON_TRAINING = "test values: computed at the same points as the training loss, whose surface is the one that was checked"


def _made_with(piece: Slice, quantity: str) -> Provenance:
    """The slice's provenance, of a test quantity with the test samples."""
    if not quantity.startswith("test_"):
        return piece.provenance
    return {**piece.provenance, "split": "test", "samples": piece.provenance.get("test_samples")}


def _named(title: str, name: str) -> str:
    """Title of a slice for another quantity than the loss."""
    name = name[0].upper() + name[1:] if name.isascii() else name
    return name + title.removeprefix("Loss") if title.startswith(("Loss on ", "Loss along ")) else f"{title}: {name}"


def figure_merge_tree(piece: Slice, *, title: str | None = None, caption: bool = True) -> Figure:
    """`draw_merge_tree` with the slice's title, the number of minima, network and data."""
    ax = draw_merge_tree(piece)
    assert piece.merge_tree is not None  # else draw_merge_tree raises
    facts = f"{piece.merge_tree.line()}; bars run from a minimum to the saddle to a lower one"
    lines = [facts, subject_line(piece.provenance), check_line(piece)]
    return finish(ax, title or _named(piece.title, "Minima and their persistence"), lines, caption)


def figure_interpolation(
    piece: Slice, *, ends: tuple[str, str] | None = None, title: str | None = None, caption: bool = True
) -> Figure:
    """`draw_interpolation` with the slice's title, network and data, and its check in one line.

    The two minima have the names in `ends`, else those in the slice's provenance, else "start" and "end".
    """
    piece = piece if ends is None else replace(piece, provenance={**piece.provenance, "ends": list(ends)})
    facts = barrier_facts(piece) + (["±: 95 % over samples"] if piece.barriers else [])
    facts += [track_line(track, piece) for track in piece.tracks]
    lines = ["; ".join(facts), subject_line(piece.provenance), check_line(piece)]
    return finish(draw_interpolation(piece)[0], title or piece.title, lines, caption)


def figure_certificate(
    certificates: Sequence[tuple[float, Certificate]],
    *,
    title: str = "Effect of rescaling on each measure",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_certificate` or `draw_certificate_panels`, with the largest change of the network's outputs.

    Up to twelve measures under one symmetry share one pair of axes; otherwise each measure has a panel.
    """
    worst = worst_function([certificate for _, certificate in certificates])
    many = len({row.name for _, c in certificates for row in c.rows}) > 12
    drawable = any(0 < row.ratio < math.inf for _, c in certificates for row in c.rows)
    facts: list[str] = []
    if drawable and (many or len({c.symmetry for _, c in certificates}) > 1):
        ax = draw_certificate_panels(certificates)[0]
        facts = left_out(certificates)
    else:
        ax = draw_certificate(certificates)
    made_of = subject_line(provenance if provenance is not None else worst.provenance)
    check = worst.function_line()
    lines = ["; ".join(facts), made_of, f"checked: {check}" if worst.same_function else f"FAILED: {check}"]
    return finish(ax, title, lines, caption)


def figure_certificate_map(
    table: CertificateTable,
    *,
    title: str = "Which measures survive each symmetry",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_certificate_map` with the headline and the largest change of the network's outputs."""
    worst = worst_function(list(table.columns.values()))
    check = worst.function_line()
    made_of = subject_line(provenance if provenance is not None else worst.provenance)
    most = " (the largest change)" if len(table.columns) > 1 else ""
    lines = [table.headline(), made_of, f"checked{most}: {check}" if worst.same_function else f"FAILED: {check}"]
    return finish(draw_certificate_map(table), title, lines, caption)


def figure_measures(
    groups: Mapping[str, Sequence[Sharpness]],
    *,
    measures: Sequence[str] | None = None,
    columns: int = 3,
    title: str = "Sharpness by group",
    comparison: Comparison | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_measures` with title and the provenance that all checkpoints share."""
    axes = draw_measures(groups, measures=measures, columns=columns, comparison=comparison)
    tested = "q: permutation test on ranks, adjusted for all tests" if comparison and len(comparison.groups) == 2 else ""
    return finish(axes[0], title, [tested, runs_line(groups)], caption)


def figure_effects(comparison: Comparison, *, title: str = "Differences between the groups", caption: bool = True) -> Figure:
    """`draw_effects` with the number of runs and the tests."""
    sizes = ", ".join(f"{name}: {number_of(len(runs), 'run')}" for name, runs in comparison.groups.items())
    axes = draw_effects(comparison)
    tests = f"{bars_line(*axes)}q: permutation tests on ranks, Benjamini-Hochberg over all measures and pairs"
    return finish(axes[0], title, [sizes, tests, runs_line(comparison.groups)], caption)


def figure_correlations(
    comparison: Comparison, *, title: str = "Rank correlation with the generalization gap", caption: bool = True
) -> Figure:
    """`draw_correlations` with the number of runs."""
    runs = sum(map(len, comparison.groups.values()))
    varying = ", ".join(dict.fromkeys(k for g in comparison.granulated.values() for k in g.by_hyperparameter))
    ax = draw_correlations(comparison)
    facts = [f"{bars_line(ax)}{number_of(runs, 'run')}, assumed independent"] + ([f"Ψ over {varying}"] if varying else [])
    return finish(ax, title, ["; ".join(facts), runs_line(comparison.groups)], caption)


def figure_separation(
    comparison: Comparison, *, title: str = "Runs that memorized against all others", caption: bool = True
) -> Figure:
    """`draw_separation` with the number of runs and the tests."""
    sizes = next(iter(comparison.memorization.values())).n if comparison.memorization else (0, 0)
    ax = draw_separation(comparison)
    facts = f"{bars_line(ax)}{number_of(sizes[0], 'run')} that memorized, {number_of(sizes[1], 'other')}"
    tests = "q: permutation tests on ranks, Benjamini-Hochberg over all measures"
    return finish(ax, title, [facts, tests, runs_line(comparison.groups)], caption)


def figure_history(
    history: Mapping[str, Run], *, title: str = "Training", provenance: Provenance | None = None, caption: bool = True
) -> Figure:
    """`draw_history` with title and caption."""
    return finish(draw_history(history)[0], title, [subject_line(provenance)], caption)


def worst_function(certificates: Sequence[Certificate]) -> Certificate:
    """The certificate with the largest change of outputs; those that failed to keep the function come first."""
    return max(certificates, key=lambda c: (not c.same_function, c.max_delta_logit / (c.logit_scale or 1.0)))
