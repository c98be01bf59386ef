"""Files: the same bytes for the same result, whole or not at all; the style's own rules; nothing global, nothing heavy."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import report_examples as examples
from gallery import pictures
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape.errors import UsageError
from landscape.report import figure_certificate, figure_slice, save
from landscape.report.figure_files import render, write
from landscape.report.style import asks_for_log, label_text, log_ticks, new_axes, plain, short, unit_text, wrapped
from landscape.report.words_around import finish


@pytest.mark.parametrize("format", ["png", "pdf", "svg"])
def test_equal_results_give_equal_bytes(format):
    one, two = (render(figure_slice(examples.plane(9, 9)), format) for _ in range(2))
    assert one == two
    assert b"matplotlib" not in one.lower() or format == "svg"
    assert not any(word in one for word in (b"CreationDate", b"<dc:date>", b"Software"))


def test_saving_twice_gives_equal_bytes(tmp_path):
    figure = figure_certificate([(a, examples.certificate(a)) for a in (1.0, 2.0)])
    first = [p.read_bytes() for p in save(figure, tmp_path / "one")]
    assert first == [p.read_bytes() for p in save(figure, tmp_path / "two")]
    assert first[0].startswith(b"\x89PNG")
    assert first[1].startswith(b"%PDF")


def test_settings_of_the_user_do_not_change_the_picture():
    ours = render(figure_slice(examples.line()))
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9, "figure.dpi": 50}):
        assert render(figure_slice(examples.line())) == ours


@pytest.mark.parametrize(
    ("name", "stem"), [("a", "a"), ("a.png", "a"), ("a.PDF", "a"), ("run.v2", "run.v2"), ("run.v2.svg", "run.v2")]
)
def test_endings(tmp_path, name, stem):
    written = save(new_axes(1, 1).get_figure(), tmp_path / name)
    assert [p.name for p in written] == [f"{stem}.png", f"{stem}.pdf"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)


def test_a_missing_folder_is_made_by_all_that_save(tmp_path):
    history = examples.watched()
    save(new_axes(1, 1).get_figure(), tmp_path / "a" / "b" / "c")
    history.save(tmp_path / "d" / "e" / "my-watch.json")
    history.to_csv(tmp_path / "f" / "my.csv")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")}
    assert found == {"a/b/c.png", "a/b/c.pdf", "d/e/my-watch.json", "f/my.csv"}


def test_an_unwritable_place_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"expected to write '.*file/a\.png', found: (File exists|Not a directory)"):
        save(new_axes(1, 1).get_figure(), tmp_path / "file" / "a")
    (tmp_path / "file").unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        UsageError, match=r"expected to write .*folder.*; name a file in a folder that exists and can be written"
    ):
        write(tmp_path / "folder", b"text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="expected a figure format out of png, pdf, svg, found 'bmp'"):
        save(new_axes(1, 1).get_figure(), tmp_path / "a", ("png", "bmp"))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = write(tmp_path / "a.html", b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_hostile_names_are_drawn_as_text():
    """Dollars are no mathematics, control characters are no characters, a megabyte is no title, unknown letters no error."""
    for name in (r"$\frac{$", "a$b$c", "tab\tnew\nline\x1b[31m", "x" * 1_000_000, "漢字 🙂", "_under", "%s {x} \\alpha"):
        piece = examples.plane(5, 5, title=name, axes=(name, name))
        assert render(figure_slice(piece)).startswith(b"\x89PNG")


def visible_texts(figure):
    """Everything written on the figure that shows, with its box; ticks beyond the axes' ends do not."""
    texts = [figure._suptitle, figure._supxlabel]
    for ax in figure.axes:
        texts += [ax.xaxis.label, ax.yaxis.label, ax._left_title, ax.title, *ax.texts]
        if ax.get_legend():
            texts += ax.get_legend().get_texts()
        if ax.name == "3d":
            texts.append(ax.zaxis.label)
            for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()), (ax.zaxis, ax.get_zlim())):
                texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [*ax.get_xticklabels(minor=True)] if ax.axison else []
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            if ax.name == "3d" or not axis.get_visible() or not ax.axison:
                continue
            if not axis.get_majorticklabels():  # ticks whose names stand on the axes to the left
                continue
            places = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            texts += [text for place, text in places if min(limits) <= place <= max(limits)]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    renderer = figure.canvas.get_renderer()
    for text in texts:
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            yield text, text.get_window_extent(renderer)


@pytest.fixture(scope="module")
def gallery():
    """Every kind of figure, made once."""
    return list(pictures())


def test_nothing_written_is_cut_or_overlaps(gallery):
    """Over the whole gallery: every text lies on the paper, and no two upright texts of a flat figure overlap."""
    problems = []
    for name, figure in gallery:
        figure.dpi = 180
        figure.draw_without_rendering()
        paper = figure.bbox
        texts = list(visible_texts(figure))
        for text, box in texts:
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= paper.x1 + 1 and box.y1 <= paper.y1 + 1
            if not inside:
                problems.append(f"{name}: {text.get_text()!r} is cut: {box} on {paper}")
        # A text that begins with an empty line stands one line lower than its box says.
        upright = [(t, b) for t, b in texts if t.get_rotation() in (0, 90) and not t.get_text().startswith("\n")]
        if any(ax.name == "3d" for ax in figure.axes):
            continue
        for i, (one, a) in enumerate(upright):
            for other, b in upright[i + 1 :]:
                if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2:
                    problems.append(f"{name}: {one.get_text()!r} overlaps {other.get_text()!r}")
    assert not problems, "\n".join(problems)


def test_every_axis_of_the_gallery_has_a_label(gallery):
    for name, figure in gallery:
        if name in ("sample_images", "certificate_panels"):  # no axes; one label for all panels
            continue
        for ax in (ax for ax in figure.axes if ax.axison):  # the others hold a legend
            named = [t.get_text() for t in (ax if ax.get_yticklabels() else figure.axes[0]).get_yticklabels()]
            assert ax.get_ylabel() or named[0].isidentifier(), name
            assert ax.get_xlabel() or name.startswith("measures") or ax.get_label() == "<colorbar>" or ax._twinned_axes, name


def test_a_footer_does_not_shrink_the_drawing():
    heights = []
    for facts in ([], ["a fact " * 60]):
        ax = new_axes()
        ax.plot([0, 1])
        figure = finish(ax, "title", facts)
        heights.append(ax.get_position().height * figure.get_figheight())
    assert heights[1] == pytest.approx(heights[0], abs=0.15)


def test_report_imports_no_torch_no_pyplot_and_no_plotly():
    code = "import sys, landscape.report; print([m for m in ('torch', 'matplotlib.pyplot', 'plotly') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_numbers_and_names():
    assert [short(x) for x in (0, 0.125, 1234, 10_000, 1e-3, 9e-4, -1e-5)] == [
        "0",
        "0.125",
        "1234",
        "10⁴",
        "0.001",
        "9×10⁻⁴",
        "−10⁻⁵",
    ]
    assert [short(x) for x in (np.nan, np.inf, -np.inf)] == ["nan", "∞", "−∞"]
    assert unit_text("loss / weight^2 x^-1") == "loss / weight² x⁻¹"
    assert label_text("a\n\x00b") == "a��b"
    assert len(label_text("x" * 10**6, 50)) == 50
    assert plain(plain("$")) == r"\$"
    assert wrapped("", 10) == " "


@pytest.mark.parametrize(("low", "high"), [(1, 101), (0.012, 8.7), (3e-4, 2e3), (1e-30, 1e30), (1, 1000), (0.5, 50.0001)])
def test_log_ticks_cover_the_range_and_stay_few(low, high):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 4 <= len(ticks) <= 15
    assert (np.diff(ticks) > 0).all()


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1, 100], False),
        ([1, 100.1], True),
        ([0, 1000], False),
        ([-1, 1000], False),
        ([np.nan, 1, np.inf, 200], True),
        ([], False),
    ],
)
def test_when_a_range_asks_for_a_log_scale(values, log):
    assert asks_for_log([values]) is log


def test_a_drawing_on_ones_own_figure_keeps_its_figure():
    ax = Figure().add_subplot()
    assert examples.line().plot(ax) is ax
