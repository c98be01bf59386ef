"""Every text of every figure stands inside the figure, at every resolution that it is saved at."""

from dataclasses import replace

import numpy as np
import pytest
import report_examples as examples
from gallery import pictures
from test_drawn_minima import valleys

from landscape.report import words_around
from landscape.report.figures import titled
from landscape.report.figures.on_axes import draw_slice
from landscape.report.measured_text import RESOLUTIONS
from landscape.report.over_training.watched import figure_watched
from landscape.report.style import DPI, drawing


def beyond(figure, dpi):
    """The texts of a figure that reach beyond its left or right edge at this resolution."""
    own, figure.dpi = figure.dpi, dpi
    try:
        with drawing():
            figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        seen = [t for t in (figure._suptitle, figure._supxlabel, *figure.texts) if t is not None]
        for ax in figure.axes:
            seen += [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for legend in [*figure.legends, *(ax.legend_ for ax in figure.axes if ax.legend_)]:
            seen += legend.texts
        boxes = [(t, t.get_window_extent(renderer)) for t in seen if t.get_visible() and t.get_text().strip()]
        return [t.get_text() for t, box in boxes if box.x0 < 0 or box.x1 > figure.bbox.x1]
    finally:
        figure.dpi = own


def told(lines=3):
    """A figure whose caption has many words of all widths, so that some line is nearly full at any resolution."""
    piece = examples.plane(9, 9)
    words = " ".join(f"{i * 7919 % 977 / 10:.1f} of sample {'WiMlm'[i % 5]}" for i in range(20 * lines))
    return words_around.finish(draw_slice(piece), words[:200], [words], True)


QUICK = {
    "caption": told,
    "watched": lambda: figure_watched(examples.watched()),
    "minima": lambda: titled.figure_slice(beside_checkpoint()),
    "merge_tree": lambda: titled.figure_merge_tree(valleys()),
    "measures_one": lambda: titled.figure_measures({"final": [examples.sharpness()]}, measures=["trace"]),
}


def beside_checkpoint():
    """Minima below the checkpoint, the longest entry of the legend, above a caption that makes the axes smaller."""
    piece = valleys()
    said = {"checkpoint": "a.pt", "through": ["a.pt", "b.pt", "c.pt"], "task": "net", "split": "train", "samples": 1000}
    return replace(piece, paired={"loss": np.full(piece.values["loss"].shape, 1e-3)}, provenance=said)


@pytest.mark.parametrize("name", QUICK)
def test_texts_stand_inside_at_every_resolution(name):
    """72 and 100 dpi are matplotlib's own: glyphs are hinted to pixels, and lines measured at 180 dpi were cut there."""
    figure = QUICK[name]()
    assert {dpi: beyond(figure, dpi) for dpi in RESOLUTIONS} == {dpi: [] for dpi in RESOLUTIONS}


def test_a_text_beyond_the_edge_is_found():
    figure = told(1)
    figure.text(0.99, 0.5, "beyond the edge")
    assert beyond(figure, 100) == ["beyond the edge"]


@pytest.mark.slow
def test_every_figure_keeps_its_texts_inside():
    """All examples of the gallery at the resolution where text is widest, at matplotlib's and at that of the files."""
    cut = {(name, dpi): found for name, figure in pictures() for dpi in (72, 100, DPI) if (found := beyond(figure, dpi))}
    assert cut == {}
