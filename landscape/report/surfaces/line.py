"""Drawing of a slice along one direction and of the path between two minima."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from landscape.errors import UsageError
from landscape.report.quantities import shown, step_label
from landscape.report.style import BLACK, BLUE, GREY, VERMILLION, house, legend_above, new_axes, panels, plain, short
from landscape.report.surfaces.curves import NORMAL_95, band_handles, draw_curves
from landscape.report.surfaces.tracks import ticks_of_tracks
from landscape.results import Slice, SliceCheck

SHORTEST_ARROW = 16.0  # points: the two heads of an arrow take ten
LABEL_SHARE = 0.25  # share of a panel's height for the two-line label of the barrier, under a legend of four lines


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
    handles += band_handles(piece, together)
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
    ends: tuple[str, str] = ("start", "end"),
    at: tuple[float, float] = (0.0, 1.0),
) -> list[Axes]:
    """Draw the path between two minima: loss in one panel, accuracy in another, training and test data in each.

    The barrier is sup L(a) over the path minus the mean of L at its ends (Frankle et al. 2020, arXiv:1912.05671, for the
    error). The barrier of the training loss, from the slice's `barriers`, is written in the loss panel.

    Args:
        piece: a line; its coordinate is `at[0]` at one minimum and `at[1]` at the other.
        axes: one per panel (loss; accuracy if the slice has it); None makes a figure.
        ends: names of the two minima.
        at: their coordinates.

    Returns:
        The axes of the panels.

    Raises:
        UsageError: the slice is not a line.
    """
    if piece.dim != 1:
        raise UsageError(f"expected a line (one axis), found a slice of {piece.dim} axes", fix="draw it with draw_slice")
    groups = [[q for q in pair if q in piece.values] for pair in (("loss", "test_loss"), ("accuracy", "test_accuracy"))]
    groups = [g for g in groups if g]
    axes = panels(len(groups), len(groups), width=3.5 if len(groups) > 1 else 5.5, height=3.2) if axes is None else list(axes)
    if len(axes) < len(groups):
        raise UsageError(f"expected {len(groups)} axes, found {len(axes)}", fix="give one for loss and one for accuracy")
    x = np.asarray(piece.coordinates[0], float)
    for ax, group in zip(axes, groups, strict=False):
        draw_curves(ax, piece, group, BLUE, VERMILLION)
        if group[0] == "loss":
            _room_for_barrier(ax, piece, at)
        for place, name in zip(at, ends, strict=True):
            if x.min() <= place <= x.max():
                ax.axvline(place, color=GREY, lw=0.9, ls="--", zorder=1)
                before = place - x.min() > x.max() - place
                high = _is_high(ax, piece, group[0], place)  # the name is written on the other side
                ax.annotate(
                    plain(name, 22),
                    (place, 0 if high else 1),
                    (-3 if before else 3, 3 if high else -2),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    rotation=90,
                    ha="right" if before else "left",
                    va="bottom" if high else "top",
                    fontsize=7.5,
                    color=GREY,
                    bbox={"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85},
                )
        ax.set_xlim(x.min(), x.max())
        ax.xaxis.set_major_locator(MaxNLocator(5))
        names = [f"{short(place)}: {plain(name, 22)}" for place, name in zip(at, ends, strict=True)]
        long = len(names[0]) + len(names[1]) > 30
        ax.set_xlabel(f"position a\n({names[0]},\n{names[1]})" if long else f"position a  ({names[0]}, {names[1]})")
        legend_above(ax, [*ax.get_legend_handles_labels()[0], *band_handles(piece, group)])
        if group[0] == "loss":
            _annotate_barrier(ax, piece, at)
    return axes


def _centre(ax: Axes, piece: Slice, quantity: str) -> list[Artist]:
    """A ring at 0, at the checkpoint's loss if the slice's check has it; none if the loss is not finite."""
    x, (values, _) = np.asarray(piece.coordinates[0], float), shown(piece, quantity)
    i = int(np.argmin(np.abs(x)))
    known = isinstance(piece.check, SliceCheck) and quantity == "loss"
    y = piece.check.centre_value if known else float(np.ma.filled(values, np.nan)[i])  # type: ignore[union-attr]  # just asked
    if not np.isfinite(y):
        return []
    return [*ax.plot([0], [y], "o", mfc="white", mec=BLACK, mew=1.2, ms=6, zorder=5, label="checkpoint")]


def _has_barrier(piece: Slice, at: tuple[float, float]) -> bool:
    """Whether the barrier of the loss is finite, positive and attained inside the path."""
    found = piece.barriers.get("loss")
    return found is not None and bool(np.isfinite([found.height, found.ends]).all()) and found.height > 0 and found.at not in at


def _top(piece: Slice, place: float) -> float:
    """The larger of training and test loss at the grid point nearest to `place`."""
    i = int(np.argmin(np.abs(np.asarray(piece.coordinates[0], float) - place)))
    curves = [float(piece.values[q][i]) for q in ("loss", "test_loss") if q in piece.values]
    return max(c for c in curves if np.isfinite(c))


def _room_for_barrier(ax: Axes, piece: Slice, at: tuple[float, float]) -> None:
    """Raise the upper limit of the axis so that the label of the barrier fits inside; the legend is above the axes."""
    if not _has_barrier(piece, at):
        return
    low, high = ax.get_ylim()
    scale = ax.yaxis.get_transform()
    foot, top, end = scale.transform([low, _top(piece, piece.barriers["loss"].at), high])
    needed = foot + (top - foot) / (1 - LABEL_SHARE)
    if needed > end:
        ax.set_ylim(low, float(scale.inverted().transform([needed])[0]))


def _annotate_barrier(ax: Axes, piece: Slice, at: tuple[float, float]) -> None:
    """Draw an arrow from the mean of the ends to the maximum of the path, with the height of the barrier."""
    found = piece.barriers.get("loss")
    if found is None:
        return
    if not np.isfinite([found.height, found.ends]).all():
        _remark(ax, found.words("loss"))
        return
    height, where, mean = found.height, found.at, found.ends
    if height <= 0:
        _remark(ax, "no barrier: the loss never exceeds the mean of its ends")
        return
    half = "" if found.stderr is None else f" ± {short(NORMAL_95 * found.stderr, 2)}"
    if where in at:
        _remark(ax, f"no barrier: the maximum is at an end, {short(height)}{half}\nabove the mean of both")
        return
    ax.plot(at, [mean, mean], color=GREY, lw=0.8, ls=":", gid="mean of ends")
    ax.get_ylim()  # updates the transform
    foot, head = ax.transData.transform([(where, mean), (where, mean + height)])[:, 1]
    long = (head - foot) * 72 / ax.figure.dpi >= SHORTEST_ARROW
    style = "<->" if long else "|-|,widthA=0.25,widthB=0.25"  # heads of a shorter arrow would cover it
    arrow = {"arrowstyle": style, "color": BLACK, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (where, mean + height), (where, mean), arrowprops=arrow)
    ax.annotate(
        f"barrier {short(height)}{half.replace(' ±', chr(10) + '±')}",  # narrow, beside the names of the ends
        (where, _top(piece, where)),
        (0, 6),
        textcoords="offset points",
        ha=_inward(ax, where),
        fontsize=8,
        bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.85},
        zorder=6,
    )


def _is_high(ax: Axes, piece: Slice, quantity: str, place: float) -> bool:
    """Whether the curve is in the upper half of the axes at the grid point nearest to `place`."""
    i = int(np.argmin(np.abs(np.asarray(piece.coordinates[0], float) - place)))
    ax.get_ylim()  # updates the transform
    height = ax.transAxes.inverted().transform(
        ax.transData.transform((place, np.ma.filled(shown(piece, quantity)[0], np.nan)[i]))
    )
    return bool(height[1] > 0.5)


def _remark(ax: Axes, text: str) -> None:
    """Write a remark below the axis label."""
    ax.set_xlabel(f"{ax.get_xlabel()}\n{text}")


def _inward(ax: Axes, x: float) -> str:
    """Alignment that keeps a label at x inside the axes."""
    low, high = ax.get_xlim()
    place = (x - low) / (high - low)
    return "left" if place < 0.3 else "right" if place > 0.7 else "center"
