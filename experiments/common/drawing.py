"""The look of the studies' figures: one palette, quiet axes, a title, a caption with the verdict."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.document import FIGURES
from landscape.report import save
from landscape.report.measured_text import fitted
from landscape.report.words_around import MARGIN

# Okabe and Ito's colours, which people with any colour vision tell apart, and markers for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#6b6b6b"


def canvas(rows: int, columns: int, *, width: float = 9.0, height: float = 3.0, **subplots: Any) -> tuple[Figure, Any]:
    """A figure of `rows` x `columns` axes, `height` inches a row, and its axes as an array of two dimensions."""
    figure = Figure(figsize=(width, height * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for ax in axes.flat:
        quiet(ax)
    return figure, axes


def quiet(ax: Axes) -> None:
    """Light grid, small type, no frame at the top and right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e8e8e8", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=7.5)
    ax.xaxis.label.set_size(8.5)
    ax.yaxis.label.set_size(8.5)
    ax.title.set_size(9)


def band(ax: Axes, x: Sequence[float], intervals: Sequence[dict[str, Any]], index: int, label: str, **style: Any) -> None:
    """Means over seeds with their 95 % intervals as bars; `index` chooses colour and marker."""
    y = [i["value"] for i in intervals]
    # A bootstrap interval may lie to one side of its mean by rounding; an error bar cannot have a negative length.
    below = [max(v - (i["low"] if i["low"] is not None else v), 0.0) for v, i in zip(y, intervals, strict=True)]
    above = [max((i["high"] if i["high"] is not None else v) - v, 0.0) for v, i in zip(y, intervals, strict=True)]
    look = {"color": COLOURS[index % 8], "marker": MARKERS[index % 8], "ms": 4.5, "lw": 1.2, "capsize": 2.5, "elinewidth": 1.0}
    ax.errorbar(x, y, yerr=[below, above], label=label, **(look | style))


def finish(figure: Figure, name: str, *, title: str, caption: str) -> None:
    """Title above, caption below in lines as wide as the figure, saved as figures/NAME.png."""
    figure.suptitle(title, x=MARGIN, ha="left", fontsize=10.5, fontweight="bold")
    words = fitted(caption, figure.get_figwidth() * (1 - 2 * MARGIN), 7.5, longest=10_000)
    figure.supxlabel(words, x=MARGIN, ha="left", fontsize=7.5, color=GREY)
    save(figure, FIGURES / name, formats=("png",))
    print(f"drew figures/{name}.png")
