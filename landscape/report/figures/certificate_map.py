"""Drawing of which measures survive which symmetries: a map of measures against families."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from landscape.report.style import BLACK, BLUE, GREY, LIGHT, VERMILLION, house, new_axes, plain
from landscape.results import CertificateRow, CertificateTable
from landscape.results.certificate_table import ratio_text

ROW, COLUMN, NAMES, LEGEND = 0.235, 0.72, 2.4, 4.6  # inches of a cell, of the measures' names, and of the legend
DEEPEST = 6.0  # decades of change at which the colour is full
PALE = 0.25  # share of the colour for a change by little


@house
def draw_certificate_map(table: CertificateTable, ax: Axes | None = None) -> Axes:
    """Draw every measure's ratio after / before under every family of symmetries.

    Blue: invariant, as claimed. Vermillion: moved, the deeper the farther (log scale, full at six decades). Grey: not claimed,
    and unmoved here or within the errors of the method. Black: claimed, but changed. A dash: not defined or not comparable.
    Survivors come first, then the measures in the order of how many families move them.

    Args:
        table: certificates of one network.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.
    """
    names, families = table.ranked, list(table.columns)
    ax = new_axes(NAMES + max(COLUMN * len(families), LEGEND), 1.2 + ROW * len(names)) if ax is None else ax
    rows = [list(table.rows(name).values()) for name in names]
    ax.imshow(np.array([[_colour(row) for row in line] for line in rows]), aspect="auto", interpolation="nearest")
    for i, line in enumerate(rows):
        for j, row in enumerate(line):
            dark = sum(_colour(row)) < 1.3
            weight = "bold" if row.verdict == "CLAIM BROKEN" else "normal"
            ax.text(
                j, i, ratio_text(row), ha="center", va="center", fontsize=7.5, color="white" if dark else BLACK, weight=weight
            )
    ax.set_xticks(range(len(families)), families)
    ax.set_yticks(range(len(names)), [plain(name, 40) for name in names])
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name in table.survivors else "normal")
    ax.set_xticks(np.arange(1, len(families)) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    ax.grid(visible=False)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("measure after / before (ratio), by family of symmetries")
    _legend(ax, [row for line in rows for row in line])
    return ax


def _colour(row: CertificateRow) -> tuple[float, float, float]:
    """Colour of a cell."""
    if row.verdict == "invariant":
        return _tinted(BLUE, 0.35)
    if row.verdict == "CLAIM BROKEN":
        return to_rgb(BLACK)
    if row.verdict == "moved":
        decades = DEEPEST if not 0 < row.factor < math.inf else math.log10(row.factor)
        return _tinted(VERMILLION, PALE + (1 - PALE) * min(decades / DEEPEST, 1.0))
    return to_rgb(LIGHT) if row.verdict in ("within doubt", "unmoved here") else to_rgb("white")


def _tinted(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white."""
    red, green, blue = (1 - share + share * part for part in to_rgb(colour))
    return red, green, blue


def _legend(ax: Axes, rows: list[CertificateRow]) -> None:
    """Legend of the colours that occur, above the axes."""
    verdicts = {row.verdict for row in rows}
    kinds = [
        ({"invariant"}, _tinted(BLUE, 0.35), "survives, as claimed"),
        ({"moved"}, _tinted(VERMILLION, PALE), "moved, by little: can be faked"),
        ({"within doubt", "unmoved here"}, to_rgb(LIGHT), "no claim, no sure change here"),
        ({"moved"}, _tinted(VERMILLION, 1.0), "moved ×10⁶ or more; log scale between"),
        ({"CLAIM BROKEN"}, to_rgb(BLACK), "CLAIM BROKEN"),
    ]
    handles = [Patch(facecolor=colour, edgecolor=GREY, lw=0.4, label=words) for own, colour, words in kinds if own & verdicts]
    if handles:
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3)
