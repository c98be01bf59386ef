"""Drawing of curvature by layer: traces with intervals, largest eigenvalues of layers and filters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from landscape.errors import UsageError
from landscape.report.style import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    VERMILLION,
    asks_for_log,
    ending,
    house,
    log_axis,
    note,
    panels,
    plain,
    short,
)
from landscape.results import Block, Breakdown

WRITTEN = 4  # layers whose values are written beside their marks


@house
def draw_breakdown(layers: Sequence[Block], filters: Sequence[Block] = (), axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw traces of the layers in one panel, largest eigenvalues of layers and of their filters in another.

    Stems from 0 on a linear axis; with few layers the values are written beside their marks.

    Args:
        layers: the layers' blocks, in order.
        filters: blocks of filters, drawn as small dots in the column of their layer, which is then shaded.
        axes: two axes; None makes a figure.

    Returns:
        The two axes.

    Raises:
        UsageError: no layer.
    """
    if not layers:
        raise UsageError("expected at least one layer, found none")
    drawn = list(axes) if axes is not None else panels(2, 1, width=max(5.5, 1.2 + 0.26 * len(layers)), height=_height(layers))
    places = np.arange(len(layers))
    _traces(drawn[0], places, layers)
    _eigenvalues(drawn[1], places, layers, filters)
    for ax in drawn:
        ax.set_xlim(-0.6, len(layers) - 0.4)
        ax.grid(axis="x", visible=False)
        ax.set_xticks(places, [""] * len(layers))
    names = [plain(ending(b.name, 24)) for b in layers]
    drawn[1].set_xticks(places, names, rotation=60 if len(layers) > 5 else 0, ha="right" if len(layers) > 5 else "center")
    return drawn


def _height(layers: Sequence[Block]) -> float:
    """Inches of a panel: a few stems with their values need less than a curve over many layers."""
    return 1.7 if len(layers) <= WRITTEN else 2.5


def _stems(ax: Axes, places: np.ndarray, values: np.ndarray, errors: np.ndarray | None = None) -> None:
    """Stems from 0 to the values on a linear axis, and, of few, the values in words."""
    if ax.get_yscale() != "log":
        ax.vlines(places, 0, values, color=BLUE, lw=1.4, alpha=0.5, gid="stems")
        ax.margins(y=0.15)
    if len(values) <= WRITTEN:
        for i, (place, value) in enumerate(zip(places, values, strict=True)):
            half = "" if errors is None or not errors[i] else f" ± {short(errors[i], 2)}"
            at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8, "gid": "value"}
            ax.annotate(short(value) + half, (place, value), (8, 0), **at)


def draw_blocks(blocks: Breakdown, ax: Axes | None = None) -> Axes:
    """`draw_breakdown` of what `ls.breakdown` returns, in a new figure; the upper of its two axes.

    Raises:
        UsageError: axes are given: two panels are needed.
    """
    if ax is not None:
        raise UsageError(
            "expected no axes for two panels, found one", fix="leave ax out, or call landscape.report.draw_breakdown"
        )
    return draw_breakdown(blocks.layers, blocks.filters)[0]


def _traces(ax: Axes, places: np.ndarray, layers: Sequence[Block]) -> None:
    """Draw traces with 95 % intervals."""
    values = np.array([b.trace.value for b in layers])
    bounds = [b.trace.interval() or (b.trace.value, b.trace.value) for b in layers]
    low, high = np.array(bounds).T
    if asks_for_log([values.tolist()]) and (low > 0).all():
        log_axis(ax, "y", float(low.min()) / 1.5, float(high.max()) * 1.5)
    else:
        ax.axhline(0, color=GREY, lw=0.8)
    _stems(ax, places, values, (high - low) / 2)
    ax.errorbar(
        places, values, yerr=[values - low, high - values], fmt="o", color=BLUE, ecolor=BLACK, elinewidth=0.9, capsize=2
    )
    whose = "the layer's" if len(layers) == 1 else "each layer's"
    ax.set_title(f"Trace of {whose} block, 95 % interval of the computation")
    ax.set_ylabel("loss / weight²")


def _eigenvalues(ax: Axes, places: np.ndarray, layers: Sequence[Block], filters: Sequence[Block]) -> None:
    """Draw largest eigenvalues; filters are spread over the column of their layer in order of their index."""
    column = {b.layer: i for i, b in enumerate(layers)}
    counts = {name: sum(f.layer == name for f in filters) for name in column}
    spread = 0.5 if len(layers) > 1 else 0.9
    x = [column[f.layer] + spread * ((f.filter or 0) / max(counts[f.layer] - 1, 1) - 0.5) for f in filters]
    y = [f.lambda_max.value for f in filters]
    tops = [b.lambda_max.value for b in layers]
    positive = [v for v in (*tops, *y) if v > 0]
    if asks_for_log([positive]) and positive:
        # Values that are not positive, or below 1e-6 of the largest, are not drawn on the log axis but counted.
        floor = max(min(positive), max(positive) * 1e-6)
        lost = sum(v < floor for v in (*tops, *y))
        log_axis(ax, "y", floor / 1.5, max(positive) * 1.5)
        if lost:
            note(ax, f"{lost} at or below {floor:.1g}: not drawn", corner="lower right")
    else:
        ax.axhline(0, color=GREY, lw=0.8)  # which the limits of the axis then include
    if filters:  # a column for each layer, over which its filters are spread
        for place in places:
            ax.axvspan(place - 0.64 * spread, place + 0.64 * spread, color=LIGHT, alpha=0.5, lw=0, zorder=0)
        ax.plot(x, y, ".", color=VERMILLION, ms=3, alpha=0.7, label="one filter or neuron")
    _stems(ax, places, np.array(tops))
    ax.plot(places, tops, "s", color=BLUE, ms=5, label="whole layer")
    ax.set_title(f"Largest eigenvalue of {'the' if len(layers) == 1 else 'each'} block")
    ax.set_ylabel("loss / weight²")
    if filters:
        ax.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.2))
