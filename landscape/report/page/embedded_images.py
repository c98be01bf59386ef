"""Figures embedded in an HTML file."""

import base64
import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from landscape.report.figure_files import render

# Larger SVG images are embedded as PNG, which is then smaller and faster to display.
LARGEST_SVG = 300_000


@dataclass(frozen=True)
class Picture:
    """An image tag and what is saved from it.

    Attributes:
        source: the image as a data URL.
        words: the alternative text.
        width, height: in CSS pixels.
        name: of the files that are saved from it, without their ending.
        data: the numbers that are drawn, as CSV.
    """

    source: str
    words: str
    width: int
    height: int
    name: str
    data: str


def picture(figure: Figure, words: str, name: str, data: str) -> Picture:
    """The figure as a data URL, SVG if small enough, else PNG, with the alternative text `words`, its name and its data.

    Inside an image tag the ids of an SVG cannot clash with those of other figures.
    """
    width, height = (round(float(inches) * 96) for inches in figure.get_size_inches())
    content, kind = render(figure, "svg"), "svg+xml"
    if len(content) > LARGEST_SVG:
        content, kind = render(figure, "png", dpi=192), "png"
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(source, words, width, height, file_name(name), data)


def file_name(text: str) -> str:
    """A name for a file from any text: small letters and digits with hyphens between them.

    Example:
        >>> file_name("Loss surface: a/b.pt (3d)")
        'loss-surface-a-b-pt-3d'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:80].strip("-") or "figure"
