"""Drawing of the effect sizes, AUC and rank correlations of a comparison, with intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.style import (
    BLACK,
    BLUE,
    CATEGORIES,
    GREY,
    MARKERS,
    house,
    log_axis,
    new_figure,
    plain,
    short,
)
from landscape.report.style import HouseAxes as _HouseAxes
from landscape.results import Comparison, Difference

_ROW, _LABELS = 0.27, 1.5  # inches
# A value, the ends of its interval, and whether its marker is filled.
_Marked = tuple[float | None, float | None, float | None, bool]


@house
def draw_effects(comparison: Comparison, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw differences between groups: Cliff's delta on the left, ratio of medians on the right, with 95 % intervals.

    One row per measure and, below a dotted line, per loss, accuracy and gap; one colour and marker per pair of groups. Filled
    markers have q <= 0.05. The ratio is drawn for positive finite values only.

    Args:
        comparison: with differences.
        axes: two axes; None makes a figure.

    Returns:
        Both axes.

    Raises:
        UsageError: no differences, or fewer than two axes.
    """
    if not comparison.differences:
        raise UsageError("expected a comparison of two groups or more, found no differences", fix="compare two groups")
    names = list(dict.fromkeys(d.name for d in comparison.differences))
    pairs = list(dict.fromkeys((d.a, d.b) for d in comparison.differences))
    axes = _two(len(names) * max(1.0, 0.62 * len(pairs))) if axes is None else list(axes)
    if len(axes) < 2:
        raise UsageError(f"expected 2 axes, found {len(axes)}", fix="give one for delta and one for the ratio")
    left, right = axes[:2]
    places = _places(names, comparison)
    ratios = []
    for d in comparison.differences:
        k = pairs.index((d.a, d.b))
        y = places[d.name] + (k - (len(pairs) - 1) / 2) * min(0.22, 0.7 / len(pairs))
        _mark(left, d, k, y, d.delta, d.delta_low, d.delta_high)
        if d.ratio is not None:
            _mark(right, d, k, y, d.ratio, d.ratio_low, d.ratio_high)
            ratios += [d.ratio, d.ratio_low or d.ratio, d.ratio_high or d.ratio]
    left.axvline(0, color=GREY, lw=0.8, zorder=1)
    left.set_xlim(-1.06, 1.06)
    left.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    left.set_xlabel("Cliff's δ  (1: the first group's run is always larger)")
    right.axvline(1, color=GREY, lw=0.8, zorder=1)
    low, high = min([*ratios, 0.5]) / 1.25, max([*ratios, 2.0]) * 1.25
    log_axis(right, "x", low, high)
    if 20 < high / low < 1e4:  # few enough ticks for their labels to fit
        ticks = [t for t in 10.0 ** np.arange(-12, 13) if low <= t <= high]
        right.set_xticks(ticks, [short(t) for t in ticks])
    right.set_xlabel("ratio of medians  (first / second)")
    lacking = [name for name in names if all(d.ratio is None for d in comparison.differences if d.name == name)]
    for name in lacking:
        right.text(
            0.98, places[name], "not all positive", transform=right.get_yaxis_transform(), fontsize=7, color=GREY, va="center",
            ha="right", bbox={"fc": "white", "ec": "none", "pad": 1},
        )  # fmt: skip
    _rows(left, places, names, comparison)
    _rows(right, places, names, comparison)
    right.tick_params(axis="y", labelleft=False)
    legend_above(left, [_handle(k, f"{plain(a, 20)} / {plain(b, 20)}") for k, (a, b) in enumerate(pairs)])
    filled = Line2D([], [], color=BLACK, ls="", marker="o", ms=4.5, label="q ≤ 0.05")
    hollow = Line2D([], [], color=BLACK, ls="", marker="o", ms=4.5, mfc="white", label="no difference found")
    legend_above(right, [filled, hollow])
    return [left, right]


@house
def draw_correlations(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw how every measure ranks the generalization gap, with 95 % intervals.

    A row a measure: Kendall's tau-b, the granulated Psi, the partial correlation, and the worst environment as
    1 - 2 x sign error, so that 0 is chance and 1 is no error in all four. Filled markers of tau and of the partial correlation
    have q <= 0.05. With too few runs or pairs for an interval, only the marker is drawn.

    Args:
        comparison: with rank correlations.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: no rank correlation.
    """
    taus = comparison.rank_correlation
    if not taus:
        raise UsageError("expected rank correlations, found none", fix="compare three runs or more that have test data")
    fixed = next((", ".join(r.controls) for r in comparison.partial.values()), "")
    # Name -> label, and of every measure value, ends of the interval, and whether the marker is filled.
    series: dict[str, tuple[str, dict[str, _Marked]]] = {
        "tau": ("Kendall's τ, all runs", {m: (t.tau, t.low, t.high, t.q <= 0.05) for m, t in taus.items()}),
        "psi": ("granulated Ψ", {m: (g.psi, g.low, g.high, True) for m, g in comparison.granulated.items()}),
        "partial": (
            f"partial ρ at fixed {plain(fixed, 60)}",
            {m: (r.rho, r.low, r.high, r.q <= 0.05) for m, r in comparison.partial.items()},
        ),
        "worst": (
            "worst environment, 1 − 2 × sign error",
            {m: (_agreement(e.worst), _agreement(e.high), _agreement(e.low), True) for m, e in comparison.sign_error.items()},
        ),
    }
    marked = {
        what: (label, {m: v for m, v in found.items() if m in taus and v[0] is not None})
        for what, (label, found) in series.items()
    }
    marked = {what: (label, found) for what, (label, found) in marked.items() if found}
    if ax is None:
        ax = new_figure(5.5, 0.7 + 0.2 * len(marked) + (0.85 + 0.35 * len(marked)) * _ROW * len(taus)).add_subplot(
            axes_class=_HouseAxes
        )
    places = {m: float(i) for i, m in enumerate(taus)}
    handles = []
    for k, (what, (label, found)) in enumerate(marked.items()):
        colour, marker = CATEGORIES[k], MARKERS[k]
        shift = (k - (len(marked) - 1) / 2) * min(0.32, 0.8 / len(marked))
        for name, (value, low, high, filled) in found.items():
            assert value is not None  # chosen above
            face = colour if filled else "white"
            _interval(ax, places[name] + shift, value, low, high, colour, marker, face, f"{what} {plain(name)}")
        handles.append(_handle(k, label))
    if any(not filled for _, found in marked.values() for *_, filled in found.values()):
        handles.append(Line2D([], [], color=BLACK, ls="", marker="o", ms=4.5, mfc="white", label="q > 0.05"))
    ax.axvline(0, color=GREY, lw=0.8, zorder=1)
    ax.set_xlim(-1.06, 1.06)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
    _measures(ax, places)
    ax.set_xlabel("rank correlation with the generalization gap")
    legend_above(ax, handles)
    return ax


@house
def draw_separation(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the AUC of every measure for telling runs that memorized from all others, with 95 % intervals.

    1: every run that memorized has the larger value; 0: the smaller one; 1/2: chance. Filled markers have q <= 0.05. With
    fewer than five runs of either kind, only the marker is drawn.

    Args:
        comparison: with runs that memorized and others.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: no AUC.
    """
    if not comparison.memorization:
        raise UsageError(
            "expected runs that memorized and others, found one kind, or no word of it",
            fix="compare both kinds; --memorized names the groups that did",
        )
    if ax is None:
        ax = new_figure(5.5, 0.9 + 1.15 * _ROW * len(comparison.memorization)).add_subplot(axes_class=_HouseAxes)
    places = {m: float(i) for i, m in enumerate(comparison.memorization)}
    for name, d in comparison.memorization.items():
        face = BLUE if d.found else "white"
        _interval(ax, places[name], d.auc, d.auc_low, d.auc_high, BLUE, "o", face, f"auc {plain(name)}")
    ax.axvline(0.5, color=GREY, lw=0.8, zorder=1)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    _measures(ax, places)
    ax.set_xlabel("AUC  (1: runs that memorized always have the larger value)")
    filled = Line2D([], [], color=BLUE, ls="", marker="o", ms=4.5, label="q ≤ 0.05")
    hollow = Line2D([], [], color=BLUE, ls="", marker="o", ms=4.5, mfc="white", label="no difference found")
    legend_above(ax, [filled, hollow])
    return ax


def _agreement(error: float | None) -> float | None:
    """1 - 2 x sign error: 1 for no error, 0 for chance, -1 for the opposite order."""
    return None if error is None else 1 - 2 * error


def _measures(ax: Axes, places: dict[str, float]) -> None:
    """Set the names of the measures, one row each, the first on top."""
    ax.set_yticks(list(places.values()), [plain(name, 30) for name in places])
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def _two(rows: float) -> list[Axes]:
    """Two axes of a new figure, with height for `rows` rows."""
    figure = new_figure(7.6, 0.95 + _ROW * rows + 0.15)
    return [figure.add_subplot(1, 2, i, axes_class=_HouseAxes) for i in (1, 2)]


def _places(names: list[str], comparison: Comparison) -> dict[str, float]:
    """Vertical position of every row; losses, accuracies and gap are 0.4 rows below the measures."""
    return {name: i + (0.4 if name in comparison.conditions else 0.0) for i, name in enumerate(names)}


def _rows(ax: Axes, places: dict[str, float], names: list[str], comparison: Comparison) -> None:
    """Set the names of the rows and draw the line between measures and conditions."""
    ax.set_yticks(
        [places[n] for n in names], [plain(n.replace("_", " ") if n in comparison.conditions else n, 30) for n in names]
    )
    ax.set_ylim(max(places.values()) + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    first = next((n for n in names if n in comparison.conditions), None)
    if first is not None and places[first] > 0.5:
        ax.axhline(places[first] - 0.7, color=GREY, lw=0.6, ls=":", zorder=1)


def _mark(ax: Axes, d: Difference, k: int, y: float, value: float, low: float | None, high: float | None) -> None:
    """Draw one difference, filled if q <= 0.05."""
    colour = CATEGORIES[k % len(CATEGORIES)]
    face = colour if d.found else "white"
    _interval(ax, y, value, low, high, colour, MARKERS[k % len(MARKERS)], face, f"{plain(d.name)}: {plain(d.a)} / {plain(d.b)}")


def _interval(
    ax: Axes, y: float, value: float, low: float | None, high: float | None, colour: str, marker: str, face: str, gid: str
) -> None:
    """Draw a marker with its interval."""
    if low is not None and high is not None:
        ax.plot([low, high], [y, y], color=colour, lw=1.4, solid_capstyle="butt", zorder=2, gid=f"interval {gid}")
    ax.plot([value], [y], marker, color=colour, mfc=face, ms=5.5, zorder=3, clip_on=False, gid=f"value {gid}")


def _handle(k: int, label: str) -> Line2D:
    """Legend entry of a pair of groups."""
    return Line2D([], [], color=CATEGORIES[k % len(CATEGORIES)], marker=MARKERS[k % len(MARKERS)], ms=4.5, lw=1.2, label=label)
