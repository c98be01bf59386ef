"""Drawing of a slice along one direction and of the path between two minima."""

from dataclasses import replace
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.measured_text import width_of
from landscape.report.quantities import shown, step_label
from landscape.report.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILLION,
    asks_for_log,
    house,
    new_axes,
    panels,
    plain,
    short,
)
from landscape.report.surfaces.curves import NORMAL_95, band_handles, draw_curves
from landscape.report.surfaces.tracks import ticks_of_tracks
from landscape.results import Slice, SliceCheck

SHORTEST_ARROW = 16.0  # points: the two heads of an arrow take ten
LEGEND = 4  # lines of a legend above a panel; more make the figure higher, and not the panel lower
FLATTEST = 0.25  # share of the axis that each of two curves takes if both share a panel


def draw_line(piece: Slice, ax: Axes | None, quantity: str) -> Axes:
    """Draw a quantity of a line with bands or residuals; for "loss" also the accuracy, on a second axis."""
    ax = new_axes() if ax is None else ax
    x = np.asarray(piece.coordinates[0], float)
    together = [q for q in (quantity, f"test_{quantity}") if q in piece.values or q == quantity]
    draw_curves(ax, piece, together, BLUE)
    second = quantity == "loss" and "accuracy" in piece.values
    if second:
        other = ax.twinx()
        other.grid(visible=False)
        other.spines["right"].set_visible(True)
        # Without bands, which would hide those of the loss; draw_slice(quantity="accuracy") draws them.
        draw_curves(other, piece, [q for q in ("accuracy", "test_accuracy") if q in piece.values], VERMILLION, bands=False)
        for axes, colour in ((ax, BLUE), (other, VERMILLION)):
            axes.yaxis.label.set_color(colour)
            axes.tick_params(axis="y", labelcolor=colour)
        handles = [h for axes in (ax, other) for h in axes.get_legend_handles_labels()[0]]
    else:
        handles = ax.get_legend_handles_labels()[0]
    if not piece.path and x.min() <= 0 <= x.max():
        ax.axvline(0, color=GREY, lw=0.9, ls=":", zorder=1)
        handles += _centre(ax, piece, quantity)
    handles += band_handles(ax, piece, together)
    handles += ticks_of_tracks(ax, piece)
    ax.set_xlim(x.min(), x.max())
    ax.set_xlabel(step_label(piece, 0))
    legend_above(ax, handles)
    return ax


@house
def draw_interpolation(
    piece: Slice,
    axes: "list[Axes] | None" = None,
    *,
    ends: tuple[str, str] | None = None,
    at: tuple[float, float] = (0.0, 1.0),
) -> list[Axes]:
    """Draw the path between two minima: loss in one panel, accuracy in another, training and test data in each.

    Training and test data have panels of their own if one of their losses would be flat beside the other. The barrier is
    sup L(a) over the path minus the mean of L at its ends (Frankle et al. 2020, arXiv:1912.05671, for the error). That of the
    training loss, from the slice's `barriers`, is an arrow, with its height in the legend; one within its error, or too small
    for an arrow, is in the legend only.

    Args:
        piece: a line; its coordinate is `at[0]` at one minimum and `at[1]` at the other.
        axes: one per panel (loss; accuracy if the slice has it); None makes a figure.
        ends: names of the two minima; None takes those that the slice has.
        at: their coordinates.

    Returns:
        The axes of the panels: loss, test loss if it has its own, accuracy, test accuracy.

    Raises:
        UsageError: the slice is not a line.
    """
    if piece.dim != 1:
        raise UsageError(f"expected a line (one axis), found a slice of {piece.dim} axes", fix="draw it with draw_slice")
    pairs = [[q for q in pair if q in piece.values] for pair in (("loss", "test_loss"), ("accuracy", "test_accuracy"))]
    piece = piece if ends is None else replace(piece, provenance={**piece.provenance, "ends": list(ends)})
    groups, own = [g for g in pairs if g], axes is None
    if own and not _share_a_panel(piece):
        groups = [[q] for g in groups for q in g]
    axes = panels(len(groups), 2, width=3.5 if len(groups) > 1 else 5.5, height=3.2) if axes is None else list(axes)
    if len(axes) < len(groups):
        raise UsageError(f"expected {len(groups)} axes, found {len(axes)}", fix="give one for loss and one for accuracy")
    x = np.asarray(piece.coordinates[0], float)
    lines = 0
    for ax, group in zip(axes, groups, strict=False):
        draw_curves(ax, piece, group, *(VERMILLION if q.startswith("test_") else BLUE for q in group))
        ax.set_xlim(x.min(), x.max())
        _name_ends(ax, piece.ends, at)
        ax.set_xlabel("position a")
        barrier = _barrier(ax, piece, at) if group[0] == "loss" else []
        handles = [*ax.get_legend_handles_labels()[0], *band_handles(ax, piece, group)]
        lines = max(lines, legend_above(ax, handles + barrier))
    if own and lines > LEGEND:
        figure = axes[0].get_figure(root=True)
        assert figure is not None  # new_figure made it
        figure.set_figheight(figure.get_figheight() + 0.16 * (lines - LEGEND) * -(-len(groups) // 2))
    return axes


def _share_a_panel(piece: Slice) -> bool:
    """Whether training and test loss are both seen on one axis: each takes a share of it, alone or with its band."""
    both = [np.ma.masked_invalid(shown(piece, q)[0]) for q in ("loss", "test_loss") if q in piece.values]
    if len(both) < 2 or not all(v.count() for v in both) or asks_for_log([v.compressed() for v in both]):
        return True
    extents = []
    for quantity, values in zip(("loss", "test_loss"), both, strict=True):
        error = piece.paired.get(quantity)
        half = 0.0 if error is None else NORMAL_95 * np.nan_to_num(np.ma.filled(np.ma.asarray(error, float), 0.0))
        extents.append((float((values - half).min()), float((values + half).max())))
    whole = max(high for _, high in extents) - min(low for low, _ in extents)
    return all(high - low >= FLATTEST * whole for low, high in extents)


def _name_ends(ax: Axes, ends: tuple[str, str], at: tuple[float, float]) -> None:
    """A dashed line at each end, with its name under the numbers of the axis, where it covers no curve."""
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(MaxNLocator(5))
    named = [(place, plain(name, 22)) for place, name in zip(at, ends, strict=True) if low <= place <= high]
    for place, _ in named:
        ax.axvline(place, color=GREY, lw=0.9, ls="--", zorder=1)
    names = [name for _, name in named]
    # Names at the ends of the axis stand inwards, others in the middle of their line; two that would meet stand in two lines.
    shares = [(place - low) / (high - low) for place, _ in named]
    sides: list[Literal["left", "center", "right"]]
    sides = ["left" if share < 0.05 else "right" if share > 0.95 else "center" for share in shares]
    if len(names) == 2:
        inches = ax.get_position().width * ax.get_figure().get_figwidth()  # type: ignore[union-attr]  # axes have a figure
        taken = sum(width_of(n, 7.5) * (0.5 if side == "center" else 1) for n, side in zip(names, sides, strict=True))
        if taken + 0.15 > 0.9 * inches * abs(shares[1] - shares[0]):
            names[1] = f"\n{names[1]}"
    ax.xaxis.remove_overlapping_locs = False  # the names are labels of minor ticks at the same places
    ax.set_xticks([place for place, _ in named], names, minor=True)
    ax.tick_params(axis="x", which="minor", length=0, pad=15, labelsize=7.5, labelcolor=GREY)
    for label, side in zip(ax.get_xticklabels(minor=True), sides, strict=True):
        label.set_horizontalalignment(side)


def _centre(ax: Axes, piece: Slice, quantity: str) -> list[Artist]:
    """A ring at 0, at the checkpoint's loss if the slice's check has it; none if the loss is not finite."""
    x, (values, _) = np.asarray(piece.coordinates[0], float), shown(piece, quantity)
    i = int(np.argmin(np.abs(x)))
    known = isinstance(piece.check, SliceCheck) and quantity == "loss"
    y = piece.check.centre_value if known else float(np.ma.filled(values, np.nan)[i])  # type: ignore[union-attr]  # just asked
    if not np.isfinite(y):
        return []
    return [*ax.plot([0], [y], "o", mfc="white", mec=BLACK, mew=1.2, ms=6, zorder=5, label="checkpoint")]


def _barrier(ax: Axes, piece: Slice, at: tuple[float, float]) -> list[Artist]:
    """The barrier of the loss as a legend entry, with an arrow from the mean of the ends to the maximum of the path.

    There is no arrow without a barrier, nor for one within its error or shorter than the heads of an arrow.
    """
    found = piece.barriers.get("loss")
    if found is None:
        return []
    height, where, mean = found.height, found.at, found.ends
    half = "" if found.stderr is None else f" ± {short(NORMAL_95 * found.stderr, 2)}"
    told = f"{short(height)}{half}"
    if not np.isfinite([height, mean]).all():
        return _remark(found.words("loss"))
    if height <= 0:
        return _remark("no barrier: the loss never exceeds the mean of its ends")
    if where in at:
        return _remark(f"no barrier: the maximum is at an end, {told} above the mean of both")
    if found.within_error:
        return _remark(f"no barrier beyond its error: {told}")
    ax.plot(at, [mean, mean], color=GREY, lw=0.8, ls=":", gid="mean of ends")
    ax.get_ylim()  # updates the transform
    foot, head = ax.transData.transform([(where, mean), (where, mean + height)])[:, 1]
    if (head - foot) * 72 / ax.figure.dpi < SHORTEST_ARROW:
        return _remark(f"barrier {told}, at {where:.3g}")
    arrow = {"arrowstyle": "<->", "color": BLACK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (where, mean + height), (where, mean), arrowprops=arrow)
    return [Line2D([], [], ls="", marker=r"$\updownarrow$", ms=9, mew=0.2, color=BLACK, label=f"barrier {told}")]


def _remark(text: str) -> list[Artist]:
    """A legend entry of words alone."""
    return [Line2D([], [], ls="", label=text)]
