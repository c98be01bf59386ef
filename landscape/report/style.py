"""The style of all figures: colours for colour-blind readers, type sizes for a paper's column, no global state.

Figures are built with matplotlib's objects, without pyplot: pyplot keeps every figure in memory and selects a window system.
"""

import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # the toolkit has no types

P = ParamSpec("P")
T = TypeVar("T")

# Okabe and Ito, "Color Universal Design", 2008: eight colours that are distinct under the common colour blindnesses.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
CATEGORIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FIELD = "viridis"  # perceptually uniform, also for most colour-blind readers
DIVERGING = "RdBu_r"  # ColorBrewer's, safe for colour-blind readers: red above zero, blue below
GREY, LIGHT = "#6b6b6b", "#e4e4e4"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

DPI = 180
COARSE = 72  # dots per inch at which the layout is made
WIDTH, HEIGHT = 5.5, 3.6  # inches: the text width of a one-column paper
DECADES_ASK = 100.0  # a positive quantity whose largest value is this many times its smallest is drawn on a log scale

HOUSE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the same bytes on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "text.usetex": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "landscape",
    "pdf.fonttype": 42,
}


def house(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a drawing function with the settings of `HOUSE` and restore matplotlib's own afterwards."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(HOUSE):
            return draw(*args, **kwargs)

    return styled


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the settings of `HOUSE` while a figure is rendered; missing glyphs are drawn as boxes without a warning."""
    with matplotlib.rc_context(HOUSE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def settle(figure: Figure) -> Figure:
    """Compute the layout once and freeze it, so that every file format gets the same one.

    Axes of a fixed aspect need a second pass.
    """
    own, engine = figure.dpi, figure.get_layout_engine()
    figure.dpi = COARSE  # glyphs are hinted to pixels: with few of them text is widest, and what fits here fits at any
    with drawing():
        figure.draw_without_rendering()
        if engine is not None:
            engine.execute(figure)
    figure.dpi = own
    figure.set_layout_engine("none")
    return figure


class _Shown:
    """Displays the object as an image in a notebook, without pyplot."""

    def _repr_png_(self) -> bytes:
        figure = self.get_figure(root=True) if isinstance(self, Axes) else self
        assert isinstance(figure, Figure)  # mixed into figures and axes only
        buffer = BytesIO()
        with drawing():
            figure.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


class HouseFigure(_Shown, Figure):
    """A figure that a notebook displays."""


class HouseAxes(_Shown, Axes):
    """Axes whose figure a notebook displays."""


class HouseAxes3D(_Shown, Axes3D):
    """Three-dimensional axes whose figure a notebook displays."""


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure on a canvas that needs no screen; sizes in inches."""
    figure = HouseFigure(figsize=(width, height))
    figure.set_layout_engine("constrained", h_pad=0.07, w_pad=0.06)
    FigureCanvasAgg(figure)
    return figure


def new_axes(width: float = WIDTH, height: float = HEIGHT, *, deep: bool = False) -> Axes:
    """Axes in a new figure; three-dimensional if `deep`."""
    return new_figure(width, height).add_subplot(axes_class=HouseAxes3D if deep else HouseAxes)


def panels(count: int, columns: int, *, width: float, height: float) -> list[Axes]:
    """`count` axes in rows of `columns`; width and height of one panel in inches."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = new_figure(columns * width, rows * height)
    return [figure.add_subplot(rows, columns, i + 1, axes_class=HouseAxes) for i in range(count)]


def label_text(text: object, longest: int = 120) -> str:
    """Text for a label: one line without control characters; the middle of more than `longest` characters is left out."""
    whole = str(text)
    if len(whole) > longest:
        whole = f"{whole[: longest // 2]}…{whole[len(whole) - (longest - 1) // 2 :]}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in whole)


def plain(text: object, longest: int = 120) -> str:
    """`label_text` with dollar signs escaped, so that matplotlib does not typeset mathematics.

    Example:
        >>> plain("run_$5$")
        'run_\\\\$5\\\\$'
    """
    return re.sub(r"(?<!\\)\$", r"\\$", label_text(text, longest))


def ending(name: str, longest: int) -> str:
    """The end of the dotted name of a module, where the names of a network differ.

    Example:
        >>> ending("model.layers.0.self_attn.q_proj", 24), ending("fc1", 24)
        ('…0.self_attn.q_proj', 'fc1')
    """
    if len(name) <= longest:
        return name
    parts = name.split(".")
    while len(parts) > 1 and len(".".join(parts)) >= longest:
        parts = parts[1:]
    return "…" + ".".join(parts)[-longest + 1 :]


def wrapped(text: object, width: int, longest: int = 240) -> str:
    """`plain` text in lines of at most `width` characters."""
    whole = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", plain(text, longest))
    return "\n".join(textwrap.wrap(whole, width, break_on_hyphens=False)).replace("\N{NO-BREAK SPACE}", " ") or " "


def unit_text(unit: str) -> str:
    """A unit with superscript powers: "loss / weight^2" becomes "loss / weight²"."""
    return re.sub(r"\^(-?\d+)", lambda power: power[1].translate(RAISED), plain(unit))


def short(x: float, digits: int = 3) -> str:
    """A number for a label, with a minus sign and superscript powers.

    Example:
        >>> short(0.25), short(-12000), short(1e-5), short(2.5e7)
        ('0.25', '−1.2×10⁴', '10⁻⁵', '2.5×10⁷')
    """
    if not np.isfinite(x):
        return {"nan": "nan", "inf": "∞", "-inf": "−∞"}[f"{x:g}"]
    if x == 0 or 1e-3 <= abs(x) < 1e4:
        text = f"{x:.{digits}g}" if abs(x) < 10**digits else f"{x:.0f}"
    else:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = "10" + str(int(exponent)).translate(RAISED)
        text = {"1": power, "-1": f"-{power}"}.get(mantissa, f"{mantissa}×{power}")
    return text.replace("-", "−")


def number_of(count: int, noun: str, many: str | None = None) -> str:
    """A count with its noun in the singular or plural.

    Example:
        >>> number_of(1, "point"), number_of(1234, "point")
        ('1 point', '1,234 points')
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """Names as text.

    Example:
        >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def tick_text(low: float, high: float) -> Callable[[float], str]:
    """Tick label function of a log scale over [low, high]: one notation for all of its ticks.

    Powers of ten with a factor if `short` would write one of its ends so; else numbers.

    Example:
        >>> list(map(tick_text(1e-4, 100), [1e-4, 0.03, 1, 3, 30])), list(map(tick_text(0.01, 100), [0.01, 0.03, 1, 100]))
        (['10⁻⁴', '3×10⁻²', '1', '3', '3×10¹'], ['0.01', '0.03', '1', '100'])
    """

    def power(x: float) -> str:
        exponent = int(np.floor(np.log10(x) + 1e-9)) if x > 0 else 0
        if exponent == 0:
            return short(x)
        factor, ten = short(x / 10.0**exponent), "10" + str(exponent).translate(RAISED)
        return ten if factor == "1" else f"{factor}×{ten}"

    return power if low > 0 and (low < 1e-3 * (1 - 1e-9) or high >= 1e4) else short


def asks_for_log(values: Iterable[Any]) -> bool:
    """Whether to use a log scale: the finite values are positive and the largest is over 100 times the smallest."""
    arrays: list[np.ndarray] = [np.ravel(np.ma.filled(np.ma.asarray(v, dtype=float), np.nan)) for v in values]
    flat = np.concatenate(arrays) if arrays else np.empty(0)
    flat = flat[np.isfinite(flat)]
    return bool(flat.size and flat.min() > 0 and flat.max() > DECADES_ASK * flat.min())


def log_ticks(low: float, high: float) -> np.ndarray:
    """About 6 to 14 round values that span [low, high], for levels and ticks on a log scale."""
    decades = np.log10(high) - np.log10(low)
    if decades <= 4:
        mantissas = [1.0, 2.0, 5.0] if decades <= 3 else [1.0, 3.0]
        exponents = np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 1)
        ticks = np.array([m * 10.0**e for e in exponents for m in mantissas])
    else:
        step = int(np.ceil(decades / 12))
        ticks = 10.0 ** np.arange(np.floor(np.log10(low) / step) * step, np.ceil(np.log10(high)) + step, step)
    first = max(int(np.searchsorted(ticks, low, side="right")) - 1, 0)
    last = int(np.searchsorted(ticks, high, side="left"))
    return ticks[first : last + 1]


def log_axis(ax: Axes, which: str, low: float, high: float) -> None:
    """Make axis "x" or "y" a log axis over [low, high]; under four decades, 2 and 5 times the powers are labelled too."""
    getattr(ax, f"set_{which}scale")("log")
    getattr(ax, f"set_{which}lim")(low, high)
    axis = getattr(ax, f"{which}axis")
    if high / low < 1e4:
        ticks = [t for t in log_ticks(low, high) if low <= t <= high]
        axis.set_major_locator(FixedLocator(ticks))
        write = tick_text(ticks[0], ticks[-1]) if ticks else short
        axis.set_major_formatter(FixedFormatter([write(t) for t in ticks]))
    else:
        axis.set_major_locator(LogLocator(numticks=8))
        write = tick_text(low, high)
        axis.set_major_formatter(FuncFormatter(lambda x, _: write(x)))
    axis.set_minor_formatter(NullFormatter())


def note(ax: Axes, text: str, *, corner: str = "lower right") -> None:
    """Write a remark in small grey type inside the axes, such as the number of values that are not drawn."""
    vertical, horizontal = corner.split()
    ax.text(
        0.98 if horizontal == "right" else 0.02,
        0.03 if vertical == "lower" else 0.97,
        text,
        transform=ax.transAxes,
        ha=horizontal,
        va="bottom" if vertical == "lower" else "top",
        fontsize=7.5,
        color=GREY,
        zorder=20,
    )
