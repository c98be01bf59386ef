"""Results onto matplotlib axes, into PNG and PDF files, and into one HTML file. Knows results, and no network."""

from landscape.report.axes import (
    draw_breakdown,
    draw_certificate,
    draw_density,
    draw_eigenvalues,
    draw_history,
    draw_interpolation,
    draw_measures,
    draw_slice,
)
from landscape.report.effects import draw_correlations, draw_effects
from landscape.report.figures import (
    figure_breakdown,
    figure_certificate,
    figure_correlations,
    figure_density,
    figure_effects,
    figure_eigenvalues,
    figure_history,
    figure_interpolation,
    figure_measures,
    figure_slice,
)
from landscape.report.html import is_report, write_report
from landscape.report.output import save

__all__ = [
    "draw_breakdown",
    "draw_certificate",
    "draw_correlations",
    "draw_density",
    "draw_effects",
    "draw_eigenvalues",
    "draw_history",
    "draw_interpolation",
    "draw_measures",
    "draw_slice",
    "figure_breakdown",
    "figure_certificate",
    "figure_correlations",
    "figure_density",
    "figure_effects",
    "figure_eigenvalues",
    "figure_history",
    "figure_interpolation",
    "figure_measures",
    "figure_slice",
    "is_report",
    "save",
    "write_report",
]
