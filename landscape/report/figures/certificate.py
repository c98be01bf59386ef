"""Drawing of a reparameterization certificate: ratio of each measure after to before rescaling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.style import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    VERMILLION,
    house,
    log_axis,
    new_axes,
    note,
    plain,
    short,
    wrapped,
)
from landscape.results import Certificate, CertificateRow

# Styles of measures that are invariant and of those that rescaling can change.
STYLES: dict[str, dict[str, Any]] = {
    "invariant": {"color": BLUE, "ls": "-", "marker": "o"},
    "fakeable": {"color": VERMILLION, "ls": "--", "marker": "s"},
    "CLAIM BROKEN": {"color": BLACK, "ls": "-", "marker": "X"},
}


@house
def draw_certificate(certificates: Sequence[tuple[float, Certificate]], ax: Axes | None = None) -> Axes:
    """Draw every measure's ratio after / before against the rescaling factor, both on log axes.

    Invariant measures have ratio 1. A single certificate is drawn as one dot per measure instead of lines. Hollow markers are
    values that are not comparable (not finite or not converged). Ratios that are not positive are not drawn on the log axis;
    their number is written in a corner.

    Args:
        certificates: (alpha, certificate) pairs of one network; alpha > 0.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: no certificate, or an alpha that is not positive.
    """
    pairs = sorted(certificates, key=lambda pair: pair[0])
    if not pairs or not all(alpha > 0 for alpha, _ in pairs):
        found = f"{[alpha for alpha, _ in pairs]}" if pairs else "none"
        raise UsageError(
            f"expected certificates with positive factors, found {found}", fix="give at least one (alpha, Certificate)"
        )
    names = list(dict.fromkeys(row.name for _, certificate in pairs for row in certificate.rows))
    series = {name: [(alpha, row) for alpha, c in pairs for row in c.rows if row.name == name] for name in names}
    ratios = np.array([row.ratio for rows in series.values() for _, row in rows], float)
    drawn = ratios[np.isfinite(ratios) & (ratios > 0)]
    # At least from 1/2 to 2, so that rounding errors of invariant measures are not visible.
    low, high = (min(drawn.min(initial=1.0) / 1.5, 0.5), max(drawn.max(initial=1.0) * 1.5, 2.0))
    if len(pairs) == 1:
        ax = _dots(new_axes(5.5, 1.5 + 0.27 * len(names)) if ax is None else ax, series, pairs[0][0], (low, high))
    else:
        ax = _lines(new_axes(5.5, 3.8) if ax is None else ax, series, (low, high))
    left_out = int(ratios.size - drawn.size)
    if left_out:
        note(ax, f"{left_out} ratio{'s' * (left_out != 1)} not positive or not finite: not drawn")
    return ax


def kind(rows: Sequence[CertificateRow]) -> str:
    """Key of STYLES for a measure, from its rows at all factors."""
    if any(row.verdict == "CLAIM BROKEN" for row in rows):
        return "CLAIM BROKEN"
    return "invariant" if all(row.claimed for row in rows) else "fakeable"


def _lines(ax: Axes, series: dict[str, list[tuple[float, CertificateRow]]], limits: tuple[float, float]) -> Axes:
    """Draw ratio against factor, one line per measure, with its name at the right end."""
    alphas = sorted({alpha for rows in series.values() for alpha, _ in rows})
    log_axis(ax, "x", alphas[0] / 1.1, alphas[-1] * 1.1)
    log_axis(ax, "y", *limits)
    ax.axhline(1, color=GREY, lw=0.8, zorder=1)
    ends: list[tuple[float, float, str, str]] = []
    for name, rows in series.items():
        style = STYLES[kind([row for _, row in rows])]
        points = [(alpha, row.ratio, row.verdict) for alpha, row in rows if np.isfinite(row.ratio) and row.ratio > 0]
        if not points:
            continue
        x, y, verdicts = (list(column) for column in zip(*points, strict=True))
        ax.plot(x, y, color=style["color"], ls=style["ls"], lw=1.3, zorder=3, gid=f"ratio {plain(name)}")
        for hollow in (False, True):
            chosen = [i for i, v in enumerate(verdicts) if (v == "not comparable") == hollow]
            face = "white" if hollow else style["color"]
            ax.plot(
                [x[i] for i in chosen], [y[i] for i in chosen], style["marker"], mec=style["color"], mfc=face, ms=4.5, zorder=4
            )
        ends.append((x[-1], y[-1], name, style["color"]))
    _name_ends(ax, ends)
    ax.set_xlabel("rescaling factor α")
    ax.set_ylabel("measure after / before (ratio)")
    _legend(ax, series)
    return ax


def _dots(ax: Axes, series: dict[str, list[tuple[float, CertificateRow]]], alpha: float, limits: tuple[float, float]) -> Axes:
    """Draw one row per measure, with its ratio as a dot on a log axis."""
    log_axis(ax, "x", *limits)
    ax.axvline(1, color=GREY, lw=0.8, zorder=1)
    for place, rows in enumerate(series.values()):
        row = rows[0][1]
        style = STYLES[kind([row])]
        if np.isfinite(row.ratio) and row.ratio > 0:
            ax.plot([1, row.ratio], [place, place], color=style["color"], lw=1.2)
            face = "white" if row.verdict == "not comparable" else style["color"]
            ax.plot([row.ratio], [place], style["marker"], color=style["color"], mfc=face, ms=6)
    ax.set_yticks(range(len(series)), [plain(name, 30) for name in series])
    ax.set_ylim(len(series) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"measure after / before (ratio) at α = {short(alpha)}")
    _legend(ax, series, ls="-")  # as the bars are drawn
    return ax


def _legend(ax: Axes, series: dict[str, list[tuple[float, CertificateRow]]], **drawn: Any) -> None:
    """Legend of the styles that occur, but for what is `drawn` otherwise, above the axes."""
    kinds = {kind([row for _, row in rows]) for rows in series.values()}
    words = {"invariant": "invariant, as claimed", "fakeable": "rescaling can change it", "CLAIM BROKEN": "CLAIM BROKEN"}
    handles = [Line2D([], [], **(STYLES[k] | drawn), ms=4.5, label=words[k]) for k in STYLES if k in kinds]
    if any(row.verdict == "not comparable" for rows in series.values() for _, row in rows):
        handles.append(Line2D([], [], color=GREY, ls="", marker="o", mfc="white", ms=4.5, label="hollow: not comparable"))
    legend_above(ax, handles)


def _name_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write names to the right of the lines without overlap; lines with the same end share one label."""
    low, high = np.log10(ax.get_ylim())
    groups: list[tuple[list[float], list[str], str, float]] = []
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        place = (np.log10(y) - low) / (high - low)
        if groups and place - groups[-1][0][0] < 0.015 and groups[-1][2] == colour:
            groups[-1][0].append(place)
            groups[-1][1].append(name)
        else:
            groups.append(([place], [name], colour, x))
    texts = [wrapped(", ".join(plain(n, 40) for n in names), 26, 400) for _, names, _, _ in groups]
    inches = ax.get_position().height * ax.get_figure().get_figheight() * 0.95  # type: ignore[union-attr]  # axes have a figure
    line = 7.5 * 1.3 / 72 / inches
    heights = [line * (text.count("\n") + 1.25) for text in texts]
    places = spread([float(np.mean(p)) for p, *_ in groups], heights)
    for (targets, _, colour, x), text, place in zip(groups, texts, places, strict=True):
        height = 10 ** (low + float(np.mean(targets)) * (high - low))
        ax.annotate(
            text,
            (x, height),
            (1.035, place),
            textcoords="axes fraction",
            color=colour,
            fontsize=7.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": LIGHT, "lw": 0.8, "shrinkA": 1, "shrinkB": 3},
        )


def spread(targets: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres for labels of the given heights, near their increasing targets, without overlap, within [0, 1] where they fit.

    Example:
        >>> spread([0.5, 0.5], [0.2, 0.2])
        [0.4, 0.6]
    """
    blocks: list[tuple[float, float, int]] = []  # (centre, height, labels): labels that touch move as one block
    for target, height in zip(targets, heights, strict=True):
        blocks.append((min(max(target, height / 2), 1 - height / 2), height, 1))
        while len(blocks) > 1 and blocks[-2][0] + blocks[-2][1] / 2 > blocks[-1][0] - blocks[-1][1] / 2 + 1e-12:
            (c2, h2, n2), (c1, h1, n1) = blocks.pop(), blocks.pop()
            total = h1 + h2
            centre = (n1 * (c1 + h2 / 2) + n2 * (c2 - h1 / 2)) / (n1 + n2)
            blocks.append((min(max(centre, total / 2), max(1 - total / 2, total / 2)), total, n1 + n2))
    places: list[float] = []
    rest = list(heights)
    for centre, total, count in blocks:
        edge = centre - total / 2
        for height in rest[:count]:
            places.append(round(edge + height / 2, 12))
            edge += height
        rest = rest[count:]
    return places
