"""The picture in architecture.md: the wings in the layers of the import contract, as pyproject.toml has them.

    python docs/draw_architecture.py

The words in the boxes are the first line of each wing's own docstring. All that is drawn also stands in the file as text (PNG
keyword "Source"), which a test holds against the contract.
"""

import ast
import json
import tomllib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from landscape.machine.files import write
from landscape.report.style import DPI, GREY, drawing, new_axes, wrapped

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.png"
# Inches: the page, its margin on the left for the arrow, a layer without its words, a line of words, the gap between boxes.
WIDTH, LEFT, NAME, LINE, GAP = 9.0, 0.62, 0.33, 0.125, 0.11
LETTERS = 19  # an inch of words
# Fill of the top and of the bottom layer; those between are mixed from the two.
TOP, BOTTOM = (0.87, 0.93, 0.98), (0.99, 0.94, 0.86)


def source(root: Path = ROOT) -> dict[str, Any]:
    """What is drawn: {"layers": rows of [name, words], from the top down}."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    house = next(c for c in contracts if c.get("containers") == ["landscape"])
    rows = [[name.strip() for name in layer.split("|")] for layer in house["layers"]]
    layers = [[[name, _words(root / "landscape", name)] for name in row if not name.startswith("__")] for row in rows]
    return {"layers": [row for row in layers if row]}


def drawn(picture: Path = PICTURE) -> dict[str, Any]:
    """What a picture says that it shows."""
    with Image.open(picture) as image:
        return json.loads(image.text["Source"])


def _words(package: Path, name: str) -> str:
    """The first line of a wing's docstring; "" where it has none."""
    path = package / name / "__init__.py" if (package / name).is_dir() else package / f"{name}.py"
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def draw(found: dict[str, Any]) -> bytes:
    """The picture as the bytes of a PNG file; the same bytes for the same contract."""
    layers = [
        [(name, wrapped(words, int((_width(row) - 0.24) * LETTERS)).strip()) for name, words in row] for row in found["layers"]
    ]
    heights = [NAME + LINE * max(words.count("\n") + 1 for _, words in row) for row in layers]
    total = sum(heights) + GAP * len(layers) + 0.4
    with drawing():
        ax = new_axes(WIDTH, total)
        figure = ax.get_figure()
        assert figure is not None
        figure.set_layout_engine("none")
        ax.set_position((0, 0, 1, 1))
        ax.set(xlim=(0, WIDTH), ylim=(0, total))
        ax.axis("off")
        top = total - GAP
        for i, (row, height) in enumerate(zip(layers, heights, strict=True)):
            share = i / (len(layers) - 1)
            colour = tuple((1 - share) * a + share * b for a, b in zip(TOP, BOTTOM, strict=True))
            _layer(ax, top, height, row, colour)
            top -= height + GAP
        high, low = total - GAP, top + GAP
        ax.add_patch(FancyArrowPatch((0.42, high), (0.42, low), arrowstyle="-|>", mutation_scale=16, color=GREY, lw=1.4))
        ax.text(0.24, (low + high) / 2, "a wing may import what is below it", rotation=90, va="center", ha="center", color=GREY)
        ax.text(LEFT, 0.2, "Wings in one layer know nothing of each other.", va="center", color=GREY, fontsize=9)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
    told, small = PngInfo(), BytesIO()
    told.add_text("Source", json.dumps(found))
    Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", pnginfo=told, optimize=True)
    return small.getvalue()


def _width(row: Sequence[object]) -> float:
    """Of each box in a row."""
    return (WIDTH - LEFT - 0.2 - GAP * (len(row) - 1)) / len(row)


def _layer(ax: Axes, top: float, height: float, row: list[tuple[str, str]], colour: tuple[float, ...]) -> None:
    """A row of boxes of one size: the wing's name, and what it holds."""
    width = _width(row)
    for i, (name, words) in enumerate(row):
        left = LEFT + i * (width + GAP)
        style = "round,pad=0,rounding_size=0.07"
        box = FancyBboxPatch((left, top - height), width, height, boxstyle=style, facecolor=colour, edgecolor="#8a8a8a", lw=0.8)
        ax.add_patch(box)
        ax.text(left + 0.12, top - 0.07, name, va="top", weight="bold", fontsize=10)
        ax.text(left + 0.12, top - 0.25, words, va="top", fontsize=7.4, color="#333333", linespacing=1.2)


if __name__ == "__main__":
    write(PICTURE, draw(source()))
