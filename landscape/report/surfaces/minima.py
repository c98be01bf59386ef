"""Drawing of the minima of a surface: marks on its contours and a bar chart of their persistence."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from scipy.special import ndtri

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.quantities import label_of, scale_of
from landscape.report.style import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    asks_for_log,
    house,
    log_axis,
    new_axes,
    number_of,
    short,
)
from landscape.results import Slice, SliceCheck
from landscape.results.surfaces.merge_tree import MergeTree, Minimum

BARS = 20  # the most persistent minima; more bars are not legible in one figure
NUMBERED = 20
NEAR = 0.1  # share of the panel within which a mark is beside a ring
SELECTED = 0.05  # error rate for all points of a plane together when its lowest is called better than the checkpoint
HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.4, foreground="white")]


def mark_minima(ax: Axes, piece: Slice) -> list[Line2D]:
    """Mark persistent minima by numbered rings and their saddles by crosses; returns the legend's entries."""
    tree = piece.merge_tree
    assert tree is not None  # the caller has checked
    kept = tree.kept
    if not kept:
        return []
    style: dict[str, Any] = {"color": BLACK, "mew": 1.5, "ls": "", "zorder": 12, "path_effects": HALO, "clip_on": False}
    ax.plot(*_columns([m.at for m in kept]), marker="o", mfc="none", ms=10, gid="minima", **style)
    middle, panel = sum(ax.get_xlim()) / 2, np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    marks = marked_places(piece, None)
    for i, m in enumerate(kept[:NUMBERED], 1):
        left = m.at[0] <= middle
        aside = (marks - m.at) / panel
        near = aside[(np.abs(aside) < (NEAR, NEAR / 2)).all(axis=1)]
        if len(near):  # a mark beside the ring: the number goes to the other side
            left = bool(near[np.abs(near).sum(axis=1).argmin(), 0] < 0)
        text = ax.annotate(
            str(i), (m.at[0], m.at[1]), (8 if left else -8, 0), textcoords="offset points", va="center",
            fontsize=8, fontweight="bold", zorder=13, ha="left" if left else "right", gid=f"minimum {i}",
        )  # fmt: skip
        text.set_path_effects(HALO)
    handles = [Line2D([], [], ls="", marker="o", mfc="none", mec=BLACK, mew=1.5, ms=8, label=_rings(tree, piece))]
    passes = [_at(piece, m.saddle) for m in kept if m.saddle is not None]
    if passes:
        ax.plot(*_columns(passes), marker="x", ms=5.5, gid="passes", **style)
        handles.append(Line2D([], [], ls="", marker="x", color=BLACK, ms=5, mew=1.5, label="saddle to a lower minimum"))
    return handles


def marked_places(piece: Slice, quantity: str | None) -> np.ndarray:
    """Places (k, 2) of the checkpoint and of other single networks; of a quantity also those of its minima."""
    places = [np.zeros((1, 2)), *(np.asarray(t.coordinates, float).reshape(-1, 2) for t in piece.tracks if not t.path)]
    if piece.merge_tree is not None and piece.merge_tree.quantity == quantity and piece.merge_tree.kept:
        places.append(np.array([m.at for m in piece.merge_tree.kept], float).reshape(-1, 2))
    return np.concatenate(places)


@house
def draw_merge_tree(piece: Slice, ax: Axes | None = None) -> Axes:
    """Draw the persistence of a plane's minima: a bar from each minimum to the saddle to a lower one.

    The bars are in the order of the tree, the lowest minimum on top, numbered as on the contours. Grey bars are minima below
    the threshold of persistence or of unknown error. The length is the persistence, written beside the bar with its 95 %
    interval; a black error bar shows the interval at the saddle. The bar of the lowest minimum is open-ended. The scale is
    logarithmic if all values are positive and the largest is over 100 times the smallest; lengths are then ratios.

    Args:
        piece: a plane with a merge tree.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: the slice has no merge tree, or the tree has no minimum.

    Example:
        >>> a = np.linspace(-1, 1, 3)
        >>> import math
        >>> tree = MergeTree("loss", (Minimum((0, 0), (-1.0, -1.0), 0.5, None, math.inf, None),), 0.1)
        >>> piece = Slice(("u", "v"), (a, a), {"loss": np.ones((3, 3))}, {}, None, "", {}, merge_tree=tree)
        >>> [t.get_text() for t in draw_merge_tree(piece).get_yticklabels()]
        ['1  (−1, −1)']
    """
    tree = piece.merge_tree
    if tree is None or not tree.minima:
        found = "a slice without one" if tree is None else "one without any minimum"
        raise UsageError(f"expected a merge tree to draw, found {found}", fix="compute the plane to its end")
    drawn, scale = tree.minima[:BARS], scale_of(tree.quantity)
    ax = new_axes(5.5, 1.1 + 0.24 * max(len(drawn), 4)) if ax is None else ax
    births = scale * np.array([m.value for m in drawn])
    deaths = scale * np.array([m.saddle_value for m in drawn])
    errors = scale * np.array([m.doubt or 0.0 for m in drawn])
    top = scale * float(np.ma.masked_invalid(piece.known(tree.quantity)).max())
    highest = max([top, *births, *deaths[np.isfinite(deaths)]])
    # The lowest minimum has no saddle: its bar ends at the largest sampled value, with an arrow.
    ends = np.where(np.isfinite(deaths), deaths, highest)
    log = asks_for_log([births, ends])
    kept = set(map(id, tree.kept))
    for row, (m, low, high, error) in enumerate(zip(drawn, births, ends, errors, strict=True)):
        colour = BLUE if id(m) in kept else GREY
        ax.plot([low, high], [row, row], color=colour, lw=5, solid_capstyle="butt", gid=f"bar {row + 1}")
        if m.saddle is None:
            ax.plot([high], [row], ">", color=colour, ms=8, clip_on=False, gid="without end")
        elif error:
            ax.errorbar([high], [row], xerr=[[max(min(error, high - low), 0.0)], [error]], color=BLACK, lw=1.1, capsize=2.5)
        ax.annotate(
            _persistence(m, scale), (1, row), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=7.5, color=colour, annotation_clip=False,
        )  # fmt: skip
    lowest, reach = float(births.min()), float(max(highest, (ends + errors).max()))
    if log:
        log_axis(ax, "x", lowest / 1.15, reach * 1.15)
    else:
        room = 0.04 * ((reach - lowest) or 1.0)
        ax.set_xlim(lowest - room, reach + room)
    ax.set_ylim(len(drawn) - 0.4, -0.6)
    ax.set_yticks(range(len(drawn)), [_name(i, m) for i, m in enumerate(drawn, 1)])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(label_of(piece, tree.quantity) + (", log scale" if log else ""))
    ax.set_ylabel("minimum at")
    legend_above(ax, _legend(tree, piece, drawn))
    return ax


def _legend(tree: MergeTree, piece: Slice, drawn: tuple[Minimum, ...]) -> list[Line2D]:
    """Legend: persistent minima, minima below the threshold or of unknown error, and minima that are not drawn."""
    thick: dict[str, Any] = {"lw": 5, "solid_capstyle": "butt"}
    handles = [Line2D([], [], color=BLUE, label=_counted(tree, piece), **thick)] if tree.kept else []
    others = len(tree.minima) - len(tree.kept) - tree.unknown
    if tree.unknown:
        handles.append(Line2D([], [], color=GREY, label=f"{tree.unknown} of unknown error", **thick))
    if others:
        handles.append(Line2D([], [], color=GREY, label=f"{others} less persistent", **thick))
    if any(m.doubt for m in drawn):
        handles.append(Line2D([], [], color=BLACK, marker="|", ms=6, lw=1.1, label="95 % over samples"))
    hidden = len(tree.minima) - len(drawn)
    if hidden:
        handles.append(Line2D([], [], color=LIGHT, label=f"{hidden} more not drawn", **thick))
    return handles


def _counted(tree: MergeTree, piece: Slice) -> str:
    """The number of persistent minima and the threshold of persistence."""
    if tree.unknown and all(m.saddle is None for m in tree.kept):
        return f"lowest of {number_of(len(tree.minima), 'minimum', 'minima')}, error unknown"
    count = number_of(len(tree.kept), "minimum", "minima")
    if len(tree.minima) == 1:
        above = ""
    else:
        above = " above sampling error" if tree.threshold is None else f" of persistence > {short(tree.threshold)}"
    return count + above + (f", {tree.on_border} on the border" if tree.on_border else "") + _as_seen(piece)


def _rings(tree: MergeTree, piece: Slice) -> str:
    """The legend of the rings: how many, and whether the lowest is below the checkpoint, whose cross may stand beside it."""
    counted, compared = _counted(tree, piece), _beside_checkpoint(tree, piece)
    return f"{counted}\n{compared}" if compared else counted


def _beside_checkpoint(tree: MergeTree, piece: Slice) -> str:
    """How the lowest computed point compares with the checkpoint: only a difference beyond its error makes it a better one.

    It was selected as the lowest of n points, so the difference counts beyond a bound that holds for all of them together
    (Bonferroni): its standard error times the normal quantile at 0.05 / n. Where none of the n points is better than the
    checkpoint, one of them is called so in at most 5 % of all samples.
    """
    centre = tuple(int(np.argmin(np.abs(np.asarray(c, float)))) for c in piece.coordinates)
    values, lowest = np.ma.filled(piece.known(tree.quantity), np.nan), tree.kept[0]
    if any(_at(piece, centre)) or not np.isfinite(values[centre]) or lowest.index == centre:
        return ""
    own, below = float(values[centre]), float(values[centre]) - lowest.value
    error = piece.paired.get(tree.quantity)
    told = f"1, the lowest computed point: {short(scale_of(tree.quantity) * lowest.value, 4)}"
    beside = f"below the checkpoint ({short(scale_of(tree.quantity) * own, 4)})"
    others = int(np.isfinite(values).sum()) - 1  # the checkpoint is one of the points
    bound = -float(ndtri(SELECTED / others))
    half = None if error is None else bound * float(np.ma.filled(np.ma.asarray(error, float), np.nan)[lowest.index])
    if half is None or not np.isfinite(half):
        return f"{told}, {beside}, sampling error unknown"
    return f"{told}, {'' if below > half else 'not '}{beside} beyond sampling error"


def _as_seen(piece: Slice) -> str:
    """That a minimum is one of the plane: said where the check of random axes found that H has a negative eigenvalue."""
    found = piece.check.random if isinstance(piece.check, SliceCheck) else None
    return ", as seen on these axes" if found is not None and found.falls else ""


def _persistence(m: Minimum, scale: float) -> str:
    """Persistence with its 95 % error: the height of the saddle above the minimum."""
    if m.saddle is None:
        return "the lowest"
    return short(scale * m.persistence) + ("" if m.doubt is None else f" ± {short(scale * m.doubt, 2)}")


def _name(number: int, m: Minimum) -> str:
    """Number and coordinates of a minimum."""
    return f"{number}  ({', '.join(short(x) for x in m.at)})"


def _at(piece: Slice, index: tuple[int, ...]) -> tuple[float, ...]:
    """Coordinates of a grid point."""
    return tuple(float(c[i]) for c, i in zip(piece.coordinates, index, strict=True))


def _columns(points: list[tuple[float, ...]]) -> list[np.ndarray]:
    """Points as one array per coordinate."""
    return list(np.asarray(points, float).T)
