"""The gallery's build: what it takes for the same picture, and what it does not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from landscape.report import save

SCRIPT = Path(__file__).parents[2] / "docs" / "make_gallery.py"


@pytest.fixture(scope="module")
def build():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_gallery", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figure(kind, values):
    """Values as bars, a histogram, steps, a filled area, an image, points or a line."""
    made = Figure()
    ax = made.add_subplot()
    places = np.arange(len(values))
    {
        "bar": lambda: ax.bar(places, values),
        "barh": lambda: ax.barh(places, values),
        "hist": lambda: ax.hist(values, bins=4, range=(0, 9)),
        "step": lambda: ax.hist(values, bins=4, range=(0, 9), histtype="step"),
        "stairs": lambda: ax.stairs(values),
        "fill": lambda: ax.fill_between(places, values),
        "error": lambda: ax.errorbar([0.0], [1.0], yerr=[values[:1]]),
        "vlines": lambda: ax.vlines(places, 0, values),
        "image": lambda: ax.imshow(np.outer(values, values)),
        "points": lambda: ax.scatter(places, values),
        "line": lambda: ax.plot(places, values),
        "contour": lambda: ax.contourf(np.outer(values, values)),
    }[kind]()
    return made


KINDS = ("bar", "barh", "hist", "step", "stairs", "fill", "error", "vlines", "image", "points", "line", "contour")


@pytest.mark.parametrize("kind", KINDS)
def test_other_data_is_another_figure(build, kind):
    one, same, other = (build.content(figure(kind, v)) for v in ([1.0, 5.0, 6.0], [1.0, 5.0, 6.0], [2.0, 3.0, 6.0]))
    assert build.equal(one, same)
    assert not build.equal(one, other)


def page(folder, command, python):
    """A page that shows a command and Python; both are given as functions here."""
    (folder / "page.md").write_text(f"Picture: `out/wanted.png`\n\n```console\n$ {command}\n```\n\n```python\n{python}\n```\n")
    return folder / "page.md"


@pytest.mark.parametrize(("shown", "right"), [("wanted", True), ("other", False)])
def test_the_figure_that_is_compared_is_the_one_that_the_page_shows(build, tmp_path, monkeypatch, shown, right):
    """The command writes two figures; the Python that draws the other one is wrong."""
    values = {"wanted": [1.0, 5.0, 6.0], "other": [2.0, 3.0, 6.0]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(build, "run", lambda line: [save(figure("hist", v), f"out/{name}") for name, v in values.items()])
    python = f"""from matplotlib.figure import Figure
made = Figure()
made.add_subplot().hist({values[shown]}, bins=4, range=(0, 9))
made.savefig("page.png", dpi=180)"""
    (tmp_path / "pictures").mkdir()
    text = page(tmp_path, "landscape draw", python)
    if right:
        assert set(build.draw(text, tmp_path / "pictures")) == {"command", "python"}
    else:
        with pytest.raises(build.Broken, match="the Python draws other data than the command"):
            build.draw(text, tmp_path / "pictures")


def test_a_picture_that_the_command_does_not_write_is_noticed(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    figure("bar", [1.0, 2.0]).savefig(tmp_path / "out" / "wanted.png")  # left from another day
    monkeypatch.setattr(build, "run", lambda line: None)
    with pytest.raises(build.Broken, match=r"expected a figure saved as out/wanted\.png, found none"):
        build.draw(page(tmp_path, "landscape draw", "pass"), tmp_path)
