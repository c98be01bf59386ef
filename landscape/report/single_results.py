"""Drawings of results that a program has one of: the measures of one network, of groups, one certificate."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.report.figures.caption import subject_line
from landscape.report.figures.certificate import draw_certificate
from landscape.report.figures.measures import draw_measures
from landscape.report.figures.titled import figure_measures
from landscape.report.style import house
from landscape.report.words_around import finish
from landscape.results import Certificate, Comparison, Sharpness


def draw_sharpness(
    result: Sharpness, axes: Sequence[Axes] | None = None, *, measures: Sequence[str] | None = None
) -> list[Axes]:
    """`draw_measures` of one network: a panel for the loss and for each measure, with their intervals."""
    return draw_measures({_name(result): [result]}, axes, measures=measures)


def figure_sharpness(result: Sharpness, *, measures: Sequence[str] | None = None, caption: bool = True) -> Figure:
    """`draw_sharpness` with title and provenance."""
    name = _name(result)
    return figure_measures({name: [result]}, measures=measures, title=f"Sharpness of {name}", caption=caption)


def draw_comparison(
    comparison: Comparison, axes: Sequence[Axes] | None = None, *, measures: Sequence[str] | None = None
) -> list[Axes]:
    """`draw_measures` of the groups of a comparison, with the intervals of their medians and the q-values."""
    return draw_measures(comparison.groups, axes, measures=measures, comparison=comparison)


def figure_comparison(comparison: Comparison, *, measures: Sequence[str] | None = None, caption: bool = True) -> Figure:
    """`draw_comparison` with title and provenance."""
    return figure_measures(comparison.groups, measures=measures, comparison=comparison, caption=caption)


@house
def draw_one_certificate(certificate: Certificate, ax: Axes | None = None) -> Axes:
    """`draw_certificate` of one change of the weights: a dot for each measure, after / before."""
    ax = draw_certificate([(1.0, certificate)], ax)
    ax.set_xlabel("measure after / before (ratio)")
    return ax


def figure_one_certificate(certificate: Certificate, *, caption: bool = True) -> Figure:
    """`draw_one_certificate` with the largest change of the network's outputs."""
    check = certificate.function_line()
    told = f"checked: {check}" if certificate.same_function else f"FAILED: {check}"
    lines = [certificate.verdict_line(), subject_line(certificate.provenance), told]
    return finish(draw_one_certificate(certificate), "Measures after / before", lines, caption)


def _name(result: Sharpness) -> str:
    """The file of a network, or "network" for one in memory."""
    return result.checkpoint or "network"
