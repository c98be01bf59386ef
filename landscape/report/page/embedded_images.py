"""Figures embedded in an HTML file."""

import base64
from dataclasses import dataclass

from matplotlib.figure import Figure

from landscape.report.figure_files import render

# Larger SVG images are embedded as PNG, which is then smaller and faster to display.
LARGEST_SVG = 300_000


@dataclass(frozen=True)
class Picture:
    """The attributes of an image tag; `words` is the alternative text, `width` and `height` are in CSS pixels."""

    source: str
    words: str
    width: int
    height: int


def picture(figure: Figure, words: str) -> Picture:
    """The figure as a data URL, SVG if small enough, else PNG, with the alternative text `words`.

    Inside an image tag the ids of an SVG cannot clash with those of other figures.
    """
    width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
    content, kind = render(figure, "svg"), "svg+xml"
    if len(content) > LARGEST_SVG:
        content, kind = render(figure, "png", dpi=192), "png"
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", words, width, height)
