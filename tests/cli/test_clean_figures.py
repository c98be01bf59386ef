"""`--clean`: figures for a paper, and every number, export and record as without it."""

import json
import struct

import pytest
from in_process import run

from landscape.report import figure_slice
from landscape.report.figure_files import render
from landscape.results import Slice

SMALL = ("--samples", 48, "--allow-unconverged")
# Arguments that draw, and the pictures that they draw.
DRAWING = {
    "surface": (("0.safetensors", "--dim", 1, "--grid", 5, "--no-test"), {"surface-line"}),
    "spectrum": (("0.safetensors", "-k", 2, "--probes", 2, "--steps", 8, "--per-layer"), {"spectrum", "blocks"}),
    "samples": (("0.safetensors", "--scores", "loss", "--top", 4), {"scores", "samples"}),
    "compare": (("0.safetensors", "1.safetensors", "--measures", "trace", "--grid", 3), {"measures", "line-1"}),
    "reparam": (("0.safetensors", "--node", "--measures", "trace,adaptive_trace"), {"certificate"}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two networks, trained for an epoch."""
    from landscape.tasks import customise, train

    folder = tmp_path_factory.mktemp("networks")
    for seed in (0, 1):
        recipe = customise("digits-mlp", epochs=1, seed=seed, network_options={"widths": [8]})
        train(recipe, out=folder / f"{seed}.safetensors", samples=64)
    return folder


def size(png):
    """Width and height in pixels."""
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("name", DRAWING)
def test_only_the_pictures_differ_and_only_in_their_height(name, place, capfd, monkeypatch):
    """The same folder takes both: `--clean` is no input of the numbers."""
    monkeypatch.chdir(place)
    arguments, pictures = DRAWING[name]
    files, documents = [], []
    for clean in ((), ("--clean",)):
        done = run(capfd, name, *arguments, *SMALL, "--json", "--out", name, *clean)
        assert done.code == 0, done.err
        documents.append(json.loads(done.out))
        files.append({p.name: p.read_bytes() for p in (place / name).iterdir() if p.is_file()})
    full, bare = files
    assert set(full) == set(bare) >= {f"{p}.{kind}" for p in pictures for kind in ("png", "pdf")}
    for file in full:
        if file.endswith(".png"):
            assert size(bare[file])[0] == size(full[file])[0]
            assert size(bare[file])[1] < size(full[file])[1]
        elif file.endswith((".csv", "run.json", ".safetensors", ".nc", ".vtr")):
            assert bare[file] == full[file], file
    assert without_seconds(documents[0]) == without_seconds(documents[1])
    if name == "surface":
        piece = Slice.from_json(json.loads(bare["surface.json"]))
        assert bare["surface-line.png"] == render(figure_slice(piece, caption=False))
        assert full["surface-line.png"] == render(figure_slice(piece))


def without_seconds(value):
    """A document without time and memory, which every run has its own of."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k not in ("seconds", "products", "memory")}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


def test_a_report_of_clean_pictures(place, capfd, monkeypatch):
    monkeypatch.chdir(place)
    piece = ("surface", "0.safetensors", "--dim", 1, "--grid", 3, "--no-test", *SMALL, "--out", "cut")
    assert run(capfd, *piece).code == 0
    heights = []
    for clean in ((), ("--clean",)):
        assert run(capfd, "report", "cut", "--out", f"page{len(heights)}.html", *clean).code == 0
        page = (place / f"page{len(heights)}.html").read_text()
        heights.append(int(page.partition("<img")[2].partition('height="')[2].partition('"')[0]))
    assert heights[1] < heights[0]


@pytest.mark.parametrize("name", ["surface", "spectrum", "samples", "compare", "reparam", "report", "demo"])
def test_every_command_that_draws_has_it(name, capfd):
    words = " ".join(run(capfd, name, "--help").out.replace("│", " ").replace("<bool>", " ").split())
    assert "--clean Figures for a paper, without title and caption." in words


def test_a_command_that_draws_nothing_does_not(capfd):
    assert "no such option: --clean" in run(capfd, "sharpness", "0.safetensors", "--clean").error.lower()
