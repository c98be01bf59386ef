"""Text in lines of a measured width: the number of characters says little, since a W is three times as wide as an i."""

import re
from functools import cache, lru_cache

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from landscape.report.style import DPI, HOUSE, drawing, plain

# Glyphs are hinted to pixels, so a line is up to 6 % wider at one resolution than at another, and not in one order: a width is
# the largest at those that figures are saved at.
RESOLUTIONS = (72, 96, 100, 110, 120, 150, DPI, 200, 300)
_KEPT = "\N{NO-BREAK SPACE}"


def width_of(text: str, points: float, *, bold: bool = False) -> float:
    """Width in inches of the widest line of a text in the figures' font, at a size in points, wherever it is widest.

    Example:
        >>> width_of("iiii", 8) < width_of("WWWW", 8) < width_of("WWWW", 8, bold=True)
        True
    """
    with drawing():
        return max(_width(line, points, bold) for line in text.split("\n"))


def fitted(text: object, inches: float, points: float, *, bold: bool = False, longest: int = 240) -> str:
    """`plain` text in lines that are at most this wide; a word wider than a line is broken.

    Args:
        text: the text; its middle is left out beyond `longest` characters.
        inches: width of a line.
        points: size of the type.
        bold: whether the type is bold.
        longest: most characters.

    Returns:
        The lines, joined by line feeds; one space if there is no text.

    Example:
        >>> fitted("one two three", 0.5, 8)
        'one two\\nthree'
    """
    words = re.sub(r"(?<=\d) %", f"{_KEPT}%", plain(text, longest)).split(" ")
    lines = [""]
    with drawing():
        for word in filter(None, words):
            longer = f"{lines[-1]} {word}".lstrip(" ")
            if _width(longer, points, bold) <= inches:
                lines[-1] = longer
                continue
            lines = [*filter(None, lines), word]
            while len(lines[-1]) > 1 and _width(lines[-1], points, bold) > inches:
                lines[-1:] = _broken(lines[-1], inches, points, bold)
    return "\n".join(lines).replace(_KEPT, " ") or " "


def _broken(word: str, inches: float, points: float, bold: bool) -> tuple[str, str]:
    """The longest beginning of a word that fits into a line, of one character at least, and the rest."""
    fits, beyond = 1, len(word)
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if _width(word[:middle], points, bold) <= inches else (fits, middle)
    fits -= word[:fits].endswith("\\") and fits > 1  # a dollar sign keeps its backslash
    return word[:fits], word[fits:]


@cache
def _renderers() -> tuple[RendererAgg, ...]:
    """What measures at each of the resolutions."""
    return tuple(RendererAgg(1, 1, dpi) for dpi in RESOLUTIONS)


@cache
def _font(points: float, bold: bool) -> FontProperties:
    """The font of the figures."""
    return FontProperties(family=HOUSE["font.sans-serif"], size=points, weight="bold" if bold else "normal")


@lru_cache(maxsize=8192)  # a figure asks for the same beginnings of its title, caption and legend at every pass of its layout
def _width(line: str, points: float, bold: bool) -> float:
    """Width of one line in inches at the resolution where it is widest; a dollar sign is drawn without its backslash."""
    drawn, font = line.replace("\\$", "$"), _font(points, bold)
    return max(float(r.get_text_width_height_descent(drawn, font, False)[0]) / r.dpi for r in _renderers())
