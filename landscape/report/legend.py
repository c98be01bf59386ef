"""Legends above the axes, in as many columns as their measured text leaves room for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox

from landscape.report.measured_text import fitted, width_of
from landscape.report.style import HOUSE, drawing

TYPE = float(HOUSE["legend.fontsize"])  # points
# In units of the type: length of a symbol, its distance from the text, that between columns, the border around all.
SYMBOL, BESIDE, BETWEEN, BORDER = float(HOUSE["legend.handlelength"]), 0.8, 1.3, 0.4
EM = TYPE / 72  # inches
GAP = 0.08  # inches between the legend and what is right of it
PASSES = 3  # of layout and legend, which depend on each other


def legend_columns(names: Sequence[str], inches: float) -> int:
    """The largest number of legend columns that fit into a width; 1 if none does.

    Example:
        >>> legend_columns(["iiii", "iiii", "iiii"], 2.0), legend_columns(["WWWW", "WWWW", "WWWW"], 2.0)
        (3, 2)
    """
    widths = [width_of(name, TYPE) for name in names]

    def total(columns: int) -> float:
        text = sum(float(max(part)) for part in np.array_split(widths, columns))  # as matplotlib fills the columns
        return text + EM * (columns * (SYMBOL + BESIDE) + (columns - 1) * BETWEEN + 2 * BORDER)

    return next((n for n in range(len(names), 1, -1) if total(n) <= inches), 1)


def legend_above(ax: Axes, handles: Sequence[Any]) -> int:
    """Place the legend between title and axes, where it cannot cover the data, in as many columns as fit.

    It reaches to the next panel or to the end of the figure, and does not make the axes narrower. A longer entry is written in
    several lines. Call it when everything else is drawn: numbers and names beside the axes decide where these stand. Returns
    the lines of type that the legend is high.
    """
    labels = [str(h.get_label()) for h in handles]
    room, lines = _room(ax), 0
    for _ in range(PASSES):
        text = room - EM * (SYMBOL + BESIDE + 2 * BORDER)
        names = ["\n".join(fitted(line, text, TYPE, longest=1000) for line in label.split("\n")) for label in labels]
        columns = legend_columns(names, room)
        legend = ax.legend(
            handles, names, loc="lower left", bbox_to_anchor=(-0.02, 1.0), bbox_transform=ax.transAxes, ncols=columns,
            columnspacing=BETWEEN, borderaxespad=0.3, handletextpad=BESIDE, borderpad=BORDER,
        )  # fmt: skip
        legend.__class__ = _Above  # one that `ax.legend` has made can be removed from the axes
        assert isinstance(legend, _Above)  # just made one
        legend.entries = handles
        high = [1 + name.count("\n") for name in names]
        lines = max((int(sum(part)) for part in np.array_split(high, columns)), default=0)
        if ax.get_aspect() == "auto":
            break
        now = _room(ax)  # axes of a fixed aspect are smaller below a higher legend, and begin further to the right
        if now >= room - 0.02:
            break
        room = now
    return lines


def refit(figure: Figure) -> None:
    """Wrap the legends above axes of a fixed aspect again: title and caption make such axes smaller, which moves them."""
    for ax in figure.axes:
        if isinstance(ax.legend_, _Above) and ax.get_aspect() != "auto":
            legend_above(ax, ax.legend_.entries)


class _Above(Legend):
    """A legend that is as wide as the axes to the layout, which would else narrow the axes by what reaches beyond them."""

    entries: Sequence[Any] = ()  # what it was made of

    def get_tightbbox(self, renderer: Any = None) -> Bbox:
        """Where the legend stands, cut at the sides of the axes."""
        box, own = super().get_tightbbox(renderer), self.axes.get_window_extent()
        assert box is not None  # a legend is never empty of space
        return Bbox([[max(box.x0, own.x0), box.y0], [min(box.x1, own.x1), box.y1]])


def _room(ax: Axes) -> float:
    """Inches from the left end of the axes to the next panel or the end of the figure, as the layout will place them."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)  # axes that are drawn on belong to one
    engine = figure.get_layout_engine()
    if engine is not None:
        with drawing():
            engine.execute(figure)
    ax.apply_aspect()
    own = ax.get_window_extent()
    others = [other.get_window_extent().x0 for other in figure.axes if not hasattr(other, "_colorbar")]
    beside = [x for x in others if x > own.x1]
    end = min(beside, default=figure.bbox.x1)
    return float(end - own.x0) / figure.dpi - GAP
