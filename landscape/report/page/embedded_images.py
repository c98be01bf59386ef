"""Figures as they stand inside an HTML file."""

import base64
from dataclasses import dataclass

from matplotlib.figure import Figure

from landscape.report.figure_files import render

# Beyond this a drawing of many polygons is smaller, and faster to show, as pixels.
LARGEST_SVG = 300_000


@dataclass(frozen=True)
class Picture:
    """An image with everything its tag needs; `width` and `height` in CSS pixels."""

    source: str
    words: str
    width: int
    height: int


def picture(figure: Figure, words: str) -> Picture:
    """The figure as a data address, drawn in lines where that is small enough; `words` are for who cannot see it.

    An image tag keeps the figure's inner names apart from those of the next one, which SVG pasted into the page would not.
    """
    width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
    content, kind = render(figure, "svg"), "svg+xml"
    if len(content) > LARGEST_SVG:
        content, kind = render(figure, "png", dpi=192), "png"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", words, width, height)
