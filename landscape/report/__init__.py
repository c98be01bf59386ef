"""Results onto matplotlib axes, into PNG and PDF files, and into one HTML file. Knows results, and no network."""

from landscape.report.exports.export import export_slice
from landscape.report.exports.spreadsheet import samples_csv, slice_csv
from landscape.report.figure_files import save
from landscape.report.figures.effects import draw_correlations, draw_effects, draw_separation
from landscape.report.figures.heads import draw_heads, figure_heads
from landscape.report.figures.information import draw_information, figure_information
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
from landscape.report.figures.titled import (
    figure_breakdown,
    figure_certificate,
    figure_certificate_map,
    figure_correlations,
    figure_density,
    figure_effects,
    figure_eigenvalues,
    figure_history,
    figure_interpolation,
    figure_measures,
    figure_merge_tree,
    figure_minibatch_spectra,
    figure_ranked_scores,
    figure_samples,
    figure_separation,
    figure_shares,
    figure_slice,
)
from landscape.report.page.html import is_report, write_report
from landscape.report.surfaces.coarse import coarse

__all__ = [
    "are_images",
    "coarse",
    "draw_breakdown",
    "draw_certificate",
    "draw_correlations",
    "draw_density",
    "draw_effects",
    "draw_eigenvalues",
    "draw_heads",
    "draw_history",
    "draw_information",
    "draw_interpolation",
    "draw_measures",
    "draw_merge_tree",
    "draw_ranked_images",
    "draw_ranked_scores",
    "draw_separation",
    "draw_shares",
    "draw_slice",
    "export_slice",
    "figure_breakdown",
    "figure_certificate",
    "figure_certificate_map",
    "figure_correlations",
    "figure_density",
    "figure_effects",
    "figure_eigenvalues",
    "figure_heads",
    "figure_history",
    "figure_information",
    "figure_interpolation",
    "figure_measures",
    "figure_merge_tree",
    "figure_minibatch_spectra",
    "figure_ranked_scores",
    "figure_samples",
    "figure_separation",
    "figure_shares",
    "figure_slice",
    "is_report",
    "samples_csv",
    "save",
    "slice_csv",
    "write_report",
]
