"""Drawing of measures of checkpoints: one panel per measure, one column per group."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from landscape.errors import UsageError
from landscape.report.legend import legend_columns
from landscape.report.measured_text import fitted
from landscape.report.style import (
    BLACK,
    CATEGORIES,
    GREY,
    MARKERS,
    VERMILLION,
    HouseAxes,
    asks_for_log,
    house,
    log_axis,
    new_figure,
    note,
    plain,
    unit_text,
)
from landscape.results import Comparison, Estimate, GroupValue, Sharpness
from landscape.results.records.loss_unit import loss_per
from landscape.results.sharpness import joint_mark

PERCENT = {"accuracy": "%", "train_accuracy": "%", "test_accuracy": "%", "gap": "percentage points"}


@dataclass(frozen=True)
class _Point:
    """The value of one measure of one checkpoint, with its position and interval."""

    group: int
    place: float
    estimate: Estimate
    scale: float

    @property
    def value(self) -> float:
        return self.estimate.value * self.scale

    @property
    def bars(self) -> tuple[float, float]:
        """Distances to the ends of the 95 % interval of the computation; 0 without one, and for means over samples."""
        interval = self.estimate.interval()
        if interval is None or self.estimate.kind in ("lower bound", "samples", "proportion"):
            return 0.0, 0.0
        return self._distances(interval)

    @property
    def wide(self) -> tuple[float, float]:
        """Distances to the ends of the 95 % interval of the value on the population; one sd without an interval."""
        e = self.estimate
        bounds = e.interval() if e.kind in ("samples", "proportion") else e.data_interval()
        if bounds is None:
            sd = (e.stderr if e.kind == "samples" else e.data_stderr) or 0.0
            return sd * self.scale, sd * self.scale
        return self._distances(bounds)

    def _distances(self, interval: tuple[float, float]) -> tuple[float, float]:
        """Down and up to the ends; at 0 and 1 the interval of a proportion ends at the value, up to rounding."""
        down, up = self.estimate.value - interval[0], interval[1] - self.estimate.value
        return max(down, 0.0) * self.scale, max(up, 0.0) * self.scale


@house
def draw_measures(
    groups: Mapping[str, Sequence[Sharpness]],
    axes: Sequence[Axes] | None = None,
    *,
    measures: Sequence[str] | None = None,
    columns: int = 3,
    comparison: Comparison | None = None,
) -> list[Axes]:
    """Draw one panel per measure, one column per group, and one point with its 95 % interval per checkpoint.

    A short line is the median of a group of three or more. Arrows are lower bounds; hollow markers did not converge; values
    that are not finite are counted in a corner. The loss comes first because sharpness at different losses is not comparable.
    With a comparison, the panels of its losses, accuracies and gap come first, a box shows the interval of each group's median,
    and the q-value of two groups is written below the panel, in black if it is at most 0.05. A new figure has a legend above
    the panels.

    Args:
        groups: label -> checkpoints of the group.
        axes: one per panel; None makes a figure.
        measures: names of measures, or "loss" and "accuracy"; default the loss and every measure that occurs.
        columns: panels in a row of a new figure.
        comparison: of these groups.

    Returns:
        The axes of the panels.

    Raises:
        UsageError: no checkpoint, a measure that none of them has, or too few axes.
    """
    everything = [s for members in groups.values() for s in members]
    if not everything:
        raise UsageError("expected at least one checkpoint, found none", fix="give label -> list of results")
    known = list(dict.fromkeys(name for s in everything for name in s.measures))
    scores = {} if comparison is None else comparison.scores
    names = [*(scores or ["loss"]), *known] if measures is None else list(measures)
    unknown = [n for n in names if n not in ("loss", "accuracy", *scores, *known)]
    if unknown:
        raise UsageError(
            f"expected measures out of loss, accuracy, {', '.join(known)}, found {unknown[0]!r}", fix="choose one of them"
        )
    if axes is None:
        points = [p for name in names for p in _points(groups, name, scores.get(name))[0]]
        boxed = [v for name in names for v in _values(comparison, name).values()]
        handles = _legend(points, any(v.is_interval for v in boxed))
        axes = _panels_under_a_legend(len(names), columns, 2.2 + _label_room(list(groups)), handles)
    if len(axes) < len(names):
        raise UsageError(f"expected {len(names)} axes, found {len(axes)}", fix="give one for each measure")
    drawn = list(axes)[: len(names)]
    for ax, name in zip(drawn, names, strict=True):
        _panel(ax, groups, name, scores.get(name))
        if comparison is not None:
            _boxes(ax, list(groups), _values(comparison, name), _scale(name))
            tests = [d for d in comparison.differences if d.name == name]
            if len(tests) == 1:
                ax.set_xlabel(f"q = {tests[0].q:.2g}", fontsize=8, color=BLACK if tests[0].found else GREY)
    return drawn


def _panels_under_a_legend(count: int, columns: int, height: float, handles: list[Artist]) -> list[Axes]:
    """Panels of a new figure in rows of at most `columns`, each `height` inches high, with the legend above."""
    rows = -(-count // max(columns, 1))
    in_row = -(-count // rows)
    width = max(2.35, 4.2 / in_row) * in_row
    beside = width - 0.9  # the legend begins where the axes do, after the numbers
    names = [fitted(handle.get_label(), beside - 0.3, 7.5) for handle in handles]
    in_legend = legend_columns(names, beside)
    room = 0.2 + 0.24 * -(-len(names) // in_legend) + 0.13 * sum(name.count("\n") for name in names)
    figure = new_figure(width, rows * height + room)
    grid = figure.add_gridspec(1 + rows, in_row, height_ratios=[room, *[height] * rows])
    axes = [figure.add_subplot(grid[1 + i // in_row, i % in_row], axes_class=HouseAxes) for i in range(count)]
    above = figure.add_subplot(grid[0, 0])
    above.set_axis_off()
    words = above.legend(handles, names, loc="center left", bbox_to_anchor=(-0.02, 0.5), ncols=in_legend, fontsize=7.5)
    words.set_in_layout(False)  # does not change the panels' width
    return list(axes)


def _values(comparison: Comparison | None, name: str) -> Mapping[str, GroupValue]:
    """The median of a measure in each group; empty without a comparison."""
    return {} if comparison is None else comparison.conditions.get(name) or comparison.table.get(name) or {}


def _legend(points: "list[_Point]", boxes: bool) -> list[Artist]:
    """Legend of the bars, lines and markers that occur."""
    finite = [p for p in points if np.isfinite(p.value)]
    sizes = Counter(p.group for p in finite)
    bounds = any(p.estimate.kind == "lower bound" for p in finite)
    mark: dict[str, Any] = {"ls": "", "color": GREY}
    handles = [
        (
            any(any(p.bars) for p in finite),
            Line2D([], [], marker="|", ls="", color=BLACK, ms=9),
            "error of the method: 95 %",
        ),
        (
            any(any(p.wide) for p in finite),
            Line2D([], [], marker="|", ms=9, mew=5, alpha=0.4, **mark),
            "sampling error: 95 %, or one standard deviation of a maximum",
        ),
        (any(n > 2 for n in sizes.values()), Line2D([], [], color=GREY, lw=1.2), "median of a group of 3 or more"),
        (boxes, Patch(facecolor=GREY, alpha=0.25, lw=0), "95 % bootstrap interval of the median"),
        (bounds, Line2D([], [], marker=r"$\uparrow$", ms=8, **mark), "lower bound"),
        (any(not p.estimate.converged for p in finite), Line2D([], [], marker="o", mfc="white", ms=5, **mark), "NOT converged"),
    ]  # fmt: skip
    out: list[Artist] = []
    for occurs, handle, words in handles:
        handle.set_label(words)
        out += [handle] if occurs else []
    return out


def _boxes(ax: Axes, groups: list[str], values: Mapping[str, GroupValue], scale: float) -> None:
    """Draw the intervals of the groups' medians behind the points."""
    for g, name in enumerate(groups):
        v = values.get(name)
        if v is not None and v.is_interval and np.isfinite((v.low, v.high)).all():
            colour = CATEGORIES[g % len(CATEGORIES)]
            ax.fill_between(
                [g - 0.36, g + 0.36], v.low * scale, v.high * scale, color=colour, alpha=0.16, lw=0, zorder=1, gid=f"box {g}"
            )


def _panel(
    ax: Axes, groups: Mapping[str, Sequence[Sharpness]], name: str, scores: Mapping[str, Sequence[Estimate]] | None = None
) -> None:
    """Draw one measure of all groups."""
    points, absent = _points(groups, name, scores)
    finite = [p for p in points if np.isfinite(p.value)]
    log = asks_for_log([[p.value for p in finite]])
    for p in finite:
        _draw_point(ax, p)
    for g in range(len(groups)):
        values = [p.value for p in finite if p.group == g]
        if len(values) > 2:
            ax.hlines(float(np.median(values)), g - 0.32, g + 0.32, color=GREY, lw=1.2, zorder=2)
    if log:
        values = [p.value for p in finite]
        tops = [p.value + p.bars[1] for p in finite]
        log_axis(ax, "y", min(values) / 2.5, max(tops) * 1.6)
    else:
        ax.margins(y=0.14)
    lost = [f"{n} {what}" for n, what in ((len(points) - len(finite), "not finite"), (absent, "not measured")) if n]
    if lost:
        note(ax, "\n".join(lost), corner="upper right")
    labels = [plain(label, 22) for label in groups]
    if _rotated(list(groups)):
        ax.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    else:
        inches = ax.get_position().width * ax.get_figure().get_figwidth()  # type: ignore[union-attr]  # axes have a figure
        room = max(0.9 * inches / len(labels), 0.4)
        ax.set_xticks(range(len(labels)), [fitted(label, room, 8, longest=48) for label in groups])
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.grid(axis="x", visible=False)
    mark, unit = _mark_and_unit(groups, name)
    ax.set_ylabel(unit, fontsize=8)
    ax.set_title(
        plain(name.replace("_", " ") if scores is not None else name, 28), pad=16
    )  # room for the mark between name and axes
    if mark:
        known = not mark.startswith("fakeable")
        ax.text(0, 1.025, mark, transform=ax.transAxes, fontsize=7.5, color=GREY if known else VERMILLION, va="bottom")


def _draw_point(ax: Axes, p: _Point) -> None:
    """Draw marker and interval, and an arrow for a lower bound."""
    colour, marker = CATEGORIES[p.group % len(CATEGORIES)], MARKERS[p.group % len(MARKERS)]
    face = colour if p.estimate.converged else "white"
    down, up = p.bars
    bars = [[down], [up]] if down or up else None
    if any(p.wide):
        wide = [[d] for d in p.wide]
        ax.errorbar(p.place, p.value, yerr=wide, fmt="none", ecolor=colour, alpha=0.3, elinewidth=5, zorder=2)
    ax.errorbar(
        p.place, p.value, yerr=bars, fmt=marker, color=colour, mfc=face, ecolor=BLACK, elinewidth=0.9, capsize=2, ms=5, zorder=3
    )
    if p.estimate.kind == "lower bound":
        ax.annotate(
            "", (p.place, p.value), (0, 13), textcoords="offset points", zorder=2,
            arrowprops={"arrowstyle": "<-", "color": colour, "lw": 0.9, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def _points(
    groups: Mapping[str, Sequence[Sharpness]], name: str, scores: Mapping[str, Sequence[Estimate]] | None
) -> tuple[list[_Point], int]:
    """The values of a measure, spread over the column of their group, and the number of checkpoints without one."""
    out, absent = [], 0
    for g, (label, members) in enumerate(groups.items()):
        offsets = np.linspace(-0.25, 0.25, len(members)) if len(members) > 1 else [0.0]
        estimates = [estimate_of(member, name) for member in members] if scores is None else scores[label]
        for offset, estimate in zip(offsets, estimates, strict=True):
            if estimate is None:
                absent += 1
            else:
                out.append(_Point(g, g + float(offset), estimate, _scale(name)))
    return out, absent


def _scale(name: str) -> float:
    """100 for accuracies and their gap, which are drawn in percent, else 1."""
    return 100.0 if name in PERCENT else 1.0


def mark_text(mark: str) -> str:
    """The mark of a measure in words, above its panel."""
    words = {"no": "survives all symmetries", "not known": "not known what it survives"}
    return words.get(mark) or plain(f"fakeable: {mark}", 40)


def estimate_of(result: Sharpness, name: str) -> Estimate | None:
    """A measure, the loss or the accuracy of a checkpoint by its name; None if it was not measured."""
    if name in result.measures:
        return result.measures[name].estimate
    return {"loss": result.loss, "accuracy": result.accuracy}.get(name)


def _mark_and_unit(groups: Mapping[str, Sequence[Sharpness]], name: str) -> tuple[str, str]:
    """What could have faked it in any of the networks, and the unit."""
    found = [s.measures[name] for members in groups.values() for s in members if name in s.measures]
    if found:
        return mark_text(joint_mark(found)), unit_text(found[0].unit)
    per = loss_per(*(s.provenance for members in groups.values() for s in members))
    return "", PERCENT.get(name, f"mean loss per {per}")


def _rotated(labels: list[str]) -> bool:
    """Whether the names of the groups are rotated, because they do not fit side by side."""
    return len(labels) > 2 and max(map(len, labels)) * len(labels) > 22


def _label_room(labels: list[str]) -> float:
    """Extra inches under a panel for rotated labels."""
    return min(0.04 * max(map(len, labels)), 0.8) if _rotated(labels) else 0.1
