"""Drawing of quantities along a line, with confidence bands or residuals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from landscape.report.quantities import (
    GAPS,
    SIGNED,
    is_eigenvalue,
    label_of,
    quantity_name,
    scale_of,
    scaled,
    shown,
    states,
)
from landscape.report.style import BLACK, GREY, PURPLE, asks_for_log, log_axis, plain
from landscape.results import Slice
from landscape.results.surfaces.slice import FAILED, INTERPOLATED, MISSING, NOT_FINITE

# From a standard error over samples to half the width of a 95 % interval.
NORMAL_95 = 1.96
# Opacity of the two bands: of the value over samples, and, on top, of the difference to the checkpoint.
LIGHT_BAND, DARK_BAND = 0.16, 0.34
# Residuals are drawn if one is at least this share of the range of the curve.
VISIBLE = 0.004
# Bands that differ by less than this share of the axis look like one.
SEEN = 0.03

# Marker, colour and size, on the top edge, of a point without a value.
_EDGE = {NOT_FINITE: ("x", BLACK, 5.0), FAILED: ("v", PURPLE, 5.0), MISSING: ("|", GREY, 5.0)}


def draw_curves(ax: Axes, piece: Slice, quantities: Sequence[str], *colours: str, bands: bool = True) -> None:
    """Draw each quantity as a line with its bands, test data dashed. Sets a log axis according to `asks_for_log`."""
    x = np.asarray(piece.coordinates[0], float)
    drawn = [(q, *shown(piece, q)) for q in quantities]
    finite = [np.ma.masked_invalid(v).compressed() for _, v, _ in drawn]
    log = asks_for_log(finite)
    for i, (quantity, values, error) in enumerate(drawn):
        test = quantity.startswith("test_")
        colour = colours[i % len(colours)]
        y = np.ma.masked_invalid(values)
        name = quantity_name(quantity) if test or len(quantities) == 1 else f"train {quantity_name(quantity)}"
        computed = np.flatnonzero(states(piece, quantity) != INTERPOLATED)  # what is interpolated has no mark
        marker = "." if len(x) <= 51 or y.count() <= 51 or len(computed) < len(x) else ""
        name += ", dots computed" if len(computed) < len(x) else ""
        ax.plot(x, y, color=colour, ls="--" if test else "-", marker=marker, ms=3.5, markevery=computed.tolist(), label=name)
        if is_eigenvalue(quantity):
            _residuals(ax, x, y, error, colour, quantity)
            continue
        for kind, half, alpha in (
            ("band", error, LIGHT_BAND),
            ("paired", scaled(piece.paired.get(quantity), scale_of(quantity)), DARK_BAND),
        ):
            if half is not None and bands:
                low, high = _ends(y, NORMAL_95 * np.where(np.isfinite(half), half, 0.0), log, quantity)
                ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0, gid=f"{kind} {quantity}")
    if log:
        smallest, largest = (f([f(v) for v in finite if v.size]) for f in (min, max))
        log_axis(ax, "y", float(smallest) / 1.6, float(largest) * 1.6)
    else:
        banded = [q for q in quantities if bands and not is_eigenvalue(q)]
        _room_for_curves(ax, finite + [_paired_ends(ax, q) for q in banded], banded)
    if not log and quantities[0] in SIGNED and any((v < 0).any() for v in finite) and any((v > 0).any() for v in finite):
        ax.axhline(0, color=GREY, lw=0.9, zorder=1, gid="zero")
    ax.set_ylabel(label_of(piece, quantities[0] if len(quantities) == 1 else quantities[0].removeprefix("test_")))
    for quantity in quantities:
        _mark_gaps(ax, x, states(piece, quantity), quantity_name(quantity))


def _paired_ends(ax: Axes, quantity: str) -> np.ndarray:
    """The lower and upper end of the band of the difference, where it is drawn."""
    bands = (c for c in ax.collections if c.get_gid() == f"paired {quantity}" and c.get_paths())
    return np.concatenate([np.zeros(0), *(np.asarray(c.get_paths()[0].vertices)[:, 1] for c in bands)])


def _room_for_curves(ax: Axes, curves: Sequence[np.ndarray], banded: Sequence[str]) -> None:
    """Cut the axis where bands over samples are much wider than the curves, which fill at least half of its height.

    A band over few samples can be ten times as wide as the curve that it belongs to, which would then look flat. The band of
    the difference, which says what of the curve is more than noise, is never cut: it is given as one of the curves.
    """
    known = np.concatenate([c for c in curves if c.size] or [np.zeros(0)])
    if not banded or not known.size or not np.ptp(known):
        return
    low, high = float(known.min()), float(known.max())
    bottom, top = ax.get_ylim()
    room = (high - low) / 2
    if bottom < low - room or top > high + room:
        ax.set_ylim(max(bottom, low - room), min(top, high + room))


def band_handles(ax: Axes, piece: Slice, quantities: Sequence[str]) -> list[Artist]:
    """Legend entries of the bands of these quantities, in their colour; a band that is wider than the axes is said to be cut.

    Two bands that cannot be told apart have one entry.
    """
    first = plain(piece.ends[0], 22)
    centre = "the checkpoint" if not piece.path else "the start" if first == "start" else first
    own = any(q in piece.stderr and not is_eigenvalue(q) for q in quantities)
    colours = {to_hex(np.asarray(band.get_facecolor())[0].tolist()) for q in quantities for band in _bands(ax, q)}
    colour = colours.pop() if len(colours) == 1 else GREY
    light, both = (Patch(facecolor=colour, alpha=alpha, lw=0) for alpha in (LIGHT_BAND, LIGHT_BAND + DARK_BAND))
    light.set_label("95 % over samples" + (", cut at the edge" if _cut(ax) else ""))
    both.set_label(f"95 % of the difference to {centre}")
    paired = any(q in piece.paired for q in quantities)
    if own and paired and all(_alike(ax, q) for q in quantities):
        own = False
        both.set_label(f"95 % over samples, also of the difference to {centre}" + (", cut at the edge" if _cut(ax) else ""))
    return [band for band, there in ((light, own), (both, paired)) if there]


def _bands(ax: Axes, quantity: str) -> list[Collection]:
    """The bands of a quantity that are drawn: over samples, of the difference."""
    found = {str(c.get_gid()): c for c in ax.collections if c.get_paths()}
    return [found[gid] for gid in (f"band {quantity}", f"paired {quantity}") if gid in found]


def _alike(ax: Axes, quantity: str) -> bool:
    """Whether the bands of a quantity look like one; also where it has none."""
    bands = [np.asarray(c.get_paths()[0].vertices)[:, 1] for c in _bands(ax, quantity)]
    if len(bands) < 2:
        return not bands
    return len(bands[0]) == len(bands[1]) and bool(np.abs(bands[0] - bands[1]).max() < SEEN * np.ptp(ax.get_ylim()))


def _cut(ax: Axes) -> bool:
    """Whether a band reaches beyond the axes."""
    low, high = ax.get_ylim()
    drawn = (c for c in ax.collections if str(c.get_gid()).startswith("band ") and c.get_paths())
    bands = [np.asarray(c.get_paths()[0].vertices)[:, 1] for c in drawn]
    return any(float(np.min(v)) < low or float(np.max(v)) > high for v in bands)


def _ends(y: np.ma.MaskedArray, half: np.ndarray, log: bool, quantity: str) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
    """Lower and upper end of a band, clipped to the possible values of the quantity."""
    low, high = y - half, y + half
    if log:
        low = np.ma.maximum(low, y.min() / 10)
    elif quantity.removeprefix("test_") == "accuracy":
        low, high = np.ma.maximum(low, 0), np.ma.minimum(high, 100)
    return low, high


def _residuals(ax: Axes, x: np.ndarray, y: np.ma.MaskedArray, error: np.ndarray | None, colour: str, quantity: str) -> None:
    """Draw the residuals as error bars, unless all are too short to be seen."""
    if error is None or not y.count():
        return
    half = np.where(np.isfinite(error), error, 0.0)
    if not (half[~np.ma.getmaskarray(y)] > VISIBLE * max(float(np.ptp(y.compressed())), 1e-300)).any():
        return
    low = np.minimum(half, np.ma.filled(y, 0.0) * 0.9) if asks_for_log([y.compressed()]) else half
    bars = ax.errorbar(x, y, np.stack([np.abs(low), half]), fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.8, alpha=0.8)
    for part in (*bars.lines[1], *bars.lines[2]):
        part.set_gid(f"residual {quantity}")
    ax.add_line(Line2D([], [], color=colour, marker="|", ms=8, lw=0, label="residual ‖Hv − λv‖"))


def _mark_gaps(ax: Axes, x: np.ndarray, state: np.ndarray, quantity: str) -> None:
    """Mark points without a value on the top edge, one marker for each reason, with their number in the legend."""
    for status, what in GAPS.items():
        here = state == status
        if here.any():
            marker, colour, size = _EDGE[status]
            ax.plot(
                x[here], np.ones(here.sum()), marker, color=colour, ms=size, transform=ax.get_xaxis_transform(),
                clip_on=False, label=f"{quantity} {what}: {int(here.sum())} of {len(x)}", gid=what,
            )  # fmt: skip
