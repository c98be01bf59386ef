"""Drawing of certificates of many measures and both symmetries: one panel per measure, grouped by invariance."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from landscape.errors import UsageError
from landscape.report.figures.certificate import STYLES, kind
from landscape.report.style import BLACK, GREY, HouseAxes, house, log_axis, new_figure, plain, short
from landscape.results import Certificate, CertificateRow

Pairs = Sequence[tuple[float, Certificate]]

COLUMNS, WIDTH = 6, 1.45  # inches of a panel
HEIGHT, FLAT_HEIGHT, HEADING = 1.15, 0.95, 0.3  # inches of a row: of panels, of panels of invariant measures, of text
_APART = 0.35  # least distance of two ticks, as a share of a flat panel: the height of a number
LINES = {"layer": "-", "node": (0, (2.2, 1.4))}
MARKERS = {"layer": "o", "node": "s"}
WORDS = {"layer": "layer-wise", "node": "neuron-wise"}


@dataclass(frozen=True)
class _Measure:
    """One measure: (alpha, row) by symmetry."""

    name: str
    lines: dict[str, list[tuple[float, CertificateRow]]]

    def kind(self, symmetry: str) -> str:
        """Key of STYLES."""
        return kind([row for _, row in self.lines[symmetry]])

    @property
    def group(self) -> str:
        """Heading of the measure's group."""
        kinds = {s: self.kind(s) for s in self.lines}
        if "CLAIM BROKEN" in kinds.values():
            return "CLAIM BROKEN: claimed invariant, but changed"
        changed = [WORDS[s] for s, k in kinds.items() if k == "fakeable"]
        if not changed:
            return "Invariant, as claimed"
        words = "Both rescalings" if len(changed) == 2 else f"{changed[0].capitalize()} rescaling"
        return f"{words} can change these"

    @property
    def rank(self) -> int:
        """Order: broken claims, invariant measures, then by the number of rescalings that can change the measure."""
        kinds = [self.kind(s) for s in self.lines]
        return -1 if "CLAIM BROKEN" in kinds else kinds.count("fakeable")


@house
def draw_certificate_panels(certificates: Pairs) -> list[Axes]:
    """Draw each measure's ratio after / before against the rescaling factor, one panel per measure, all on the same log axes.

    The point (1, 1) is the network before rescaling. Layer-wise rescaling is drawn solid with circles, neuron-wise dashed with
    squares. Blue: invariant, as claimed. Vermillion: rescaling can change the measure. Hollow markers: not comparable. Under
    the name of a measure that changed is the ratio farthest from 1. Measures that are not defined or have no positive ratio get
    no panel; `left_out` lists them.

    Args:
        certificates: (alpha, certificate) pairs of one network, of one or both symmetries; alpha > 0.

    Returns:
        The panels, in this order: broken claims, invariant measures, those that one rescaling can change, those that both can.

    Raises:
        UsageError: no certificate, an alpha that is not positive, or no measure to draw.
    """
    if not certificates or not all(alpha > 0 for alpha, _ in certificates):
        raise UsageError("expected certificates with positive factors, found none or another", fix="give (alpha, Certificate)")
    drawn = [m for m in _measures(certificates) if any(_points(line) for line in m.lines.values())]
    if not drawn:
        raise UsageError("expected a measure with a positive ratio, found none", fix="certify other measures")
    drawn.sort(key=lambda m: m.rank)
    groups = {title: [m for m in drawn if m.group == title] for title in dict.fromkeys(m.group for m in drawn)}
    columns = max(4, min(COLUMNS, max(map(len, groups.values()))))
    heights, places = _grid(groups, columns)
    figure = new_figure(columns * WIDTH, sum(heights))
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    alphas = [1.0, *(alpha for alpha, _ in certificates)]
    ratios = [y for m in drawn for line in m.lines.values() for _, y, _ in _points(line)]
    limits = (min(*alphas) / 1.15, max(*alphas) * 1.15), (min(*ratios, 0.5) / 1.6, max(*ratios, 2.0) * 1.6)
    words = figure.add_subplot(grid[0, :])
    words.set_axis_off()
    _legend(words, drawn)
    axes = []
    for title, members in groups.items():
        head = figure.add_subplot(grid[places[members[0].name][0] - 1, :])
        head.set_axis_off()
        head.text(0, 0.3, title, transform=head.transAxes, fontsize=9, fontweight="bold", va="center", color=_colour(members))
        for i, m in enumerate(members):
            row, column = places[m.name]
            ax = figure.add_subplot(grid[row, column], axes_class=HouseAxes)
            _panel(ax, m, limits, bottom=i // columns == (len(members) - 1) // columns, left=column == 0)
            axes.append(ax)
    return axes


def left_out(certificates: Pairs) -> list[str]:
    """Text that lists the measures without a panel in `draw_certificate_panels`, by reason."""
    why: dict[str, list[str]] = {}
    for m in _measures(certificates):
        if any(_points(line) for line in m.lines.values()):
            continue
        rows = [row for line in m.lines.values() for _, row in line]
        lost = "not defined for this network" if all(r.verdict == "not defined" for r in rows) else "no positive ratio"
        why.setdefault(lost, []).append(m.name)
    return [f"{lost}: {', '.join(names)}" for lost, names in why.items()]


def _measures(certificates: Pairs) -> list[_Measure]:
    """The rows of the certificates, sorted by measure, symmetry and factor."""
    ordered = sorted(certificates, key=lambda pair: pair[0])
    names = dict.fromkeys(row.name for _, c in ordered for row in c.rows)
    out = []
    for name in names:
        lines: dict[str, list[tuple[float, CertificateRow]]] = {}
        for symmetry in ("layer", "node"):
            line = [(a, r) for a, c in ordered if c.symmetry == symmetry for r in c.rows if r.name == name]
            if line:
                lines[symmetry] = line
        out.append(_Measure(name, lines))
    return out


def _points(line: list[tuple[float, CertificateRow]]) -> list[tuple[float, float, str]]:
    """(alpha, ratio, verdict) of the positive finite ratios."""
    return [(a, r.ratio, r.verdict) for a, r in line if 0 < r.ratio < math.inf]


def _grid(groups: dict[str, list[_Measure]], columns: int) -> tuple[list[float], dict[str, tuple[int, int]]]:
    """Heights of the rows in inches (legend, and heading and panels of every group); row and column of every measure."""
    heights = [HEADING + 0.1]
    places = {}
    for members in groups.values():
        heights.append(HEADING)
        for i, m in enumerate(members):
            if i % columns == 0:
                heights.append(FLAT_HEIGHT if m.rank == 0 else HEIGHT)
            places[m.name] = (len(heights) - 1, i % columns)
    return heights, places


def _panel(ax: Axes, m: _Measure, limits: tuple[tuple[float, float], tuple[float, float]], *, bottom: bool, left: bool) -> None:
    """Draw one measure: its lines, its name, and the ratio farthest from 1 on each line."""
    log_axis(ax, "x", *limits[0])
    log_axis(ax, "y", *limits[1])
    ax.yaxis.set_major_locator(FixedLocator(_few(*limits[1])))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    ax.axhline(1, color=GREY, lw=0.7, zorder=1)
    ax.axvline(1, color=GREY, lw=0.7, zorder=1)
    said = []
    for symmetry, line in m.lines.items():
        style = STYLES[m.kind(symmetry)]
        points = sorted([*_points(line), (1.0, 1.0, "")])
        x, y = [p[0] for p in points], [p[1] for p in points]
        ax.plot(x, y, color=style["color"], ls=LINES[symmetry], lw=1.3, zorder=3, gid=f"ratio {symmetry} {plain(m.name)}")
        marker = "X" if m.kind(symmetry) == "CLAIM BROKEN" else MARKERS[symmetry]
        for a, ratio, verdict in _points(line):
            face = "white" if verdict == "not comparable" else style["color"]
            ax.plot([a], [ratio], marker, ms=3.2, mec=style["color"], mew=0.8, mfc=face, zorder=4)
        if m.kind(symmetry) != "invariant" and len(points) > 1:
            furthest = max((p[1] for p in points), key=lambda r: abs(np.log(r)))
            said.append(f"{symmetry} ×{short(furthest, 2)}")
        lost = len(line) - len(_points(line))
        if lost:
            said.append(f"{symmetry}: {lost} not drawn")
    ax.set_title(_folded(m.name), fontsize=7, fontweight="normal", pad=11 if said else 4)
    worst = "CLAIM BROKEN" if any(m.kind(s) == "CLAIM BROKEN" for s in m.lines) else "fakeable"
    ax.text(0, 1.03, "  ".join(said), transform=ax.transAxes, fontsize=6.3, color=STYLES[worst]["color"], va="bottom")
    ax.tick_params(labelsize=6.5, length=2, pad=1.5)
    ax.minorticks_off()
    ax.tick_params(labelbottom=bottom, labelleft=left)
    if bottom:
        ax.set_xlabel("α", fontsize=7.5, labelpad=1)
    if left:
        ax.set_ylabel("after / before", fontsize=7, labelpad=2)


def _few(low: float, high: float) -> list[float]:
    """At most three ticks, as far apart as the height of a flat panel needs, and 1 among them.

    They are powers of ten if two of these fit, else of two, else 1 and 3.

    Example:
        >>> _few(0.3, 30.0), _few(0.4, 5.0), _few(0.5, 2e6), _few(0.31, 3.2)
        ([1.0, 10.0], [1.0, 4.0], [1.0, 1000.0, 1000000.0], [1.0, 3.0])
    """
    for base in (10.0, 2.0):
        decades = math.log10(base)
        apart = max(math.ceil(_APART * math.log10(high / low) / decades), 1)
        exponents = range(math.ceil(math.log10(low) / decades), math.floor(math.log10(high) / decades) + 1)
        found = [base**k for k in exponents if k % apart == 0]
        if len(found) > 1:
            return found
    return [tick for tick in (1.0, 3.0) if tick <= high]


def _folded(name: str, width: int = 22) -> str:
    """The name in lines of about `width` characters, broken after underscores and colons.

    Example:
        >>> _folded("adaptive_worst_linf_normalized_m")
        'adaptive_worst_linf_\\nnormalized_m'
    """
    lines = [""]
    for part in re.findall(r"[^_:]*[_:]?", plain(name, 60)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _colour(members: list[_Measure]) -> str:
    """Colour of a group's heading."""
    kinds = {m.kind(s) for m in members for s in m.lines}
    if "CLAIM BROKEN" in kinds:
        return BLACK
    return str(STYLES["fakeable" if "fakeable" in kinds else "invariant"]["color"])


def _legend(ax: Axes, drawn: list[_Measure]) -> None:
    """Legend of the lines and markers that occur."""
    symmetries = [s for s in ("layer", "node") if any(s in m.lines for m in drawn)]
    words = {
        "layer": "layer-wise: one layer's outputs × α",
        "node": "neuron-wise: each neuron × its own power of α, between 1/α and α",
    }
    handles = [Line2D([], [], color=GREY, ls=LINES[s], marker=MARKERS[s], ms=3.5, lw=1.3, label=words[s]) for s in symmetries]
    if any(row.verdict == "not comparable" for m in drawn for line in m.lines.values() for _, row in line):
        handles.append(Line2D([], [], color=GREY, ls="", marker="o", mfc="white", ms=3.5, label="hollow: not comparable"))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(-0.01, 0.5), ncols=1, fontsize=7.5, borderaxespad=0)
