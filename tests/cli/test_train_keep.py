"""`landscape train --keep-every`, and what other commands make of the folder."""

import json

import pytest
from in_process import landscape


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("kept") / "a.safetensors"
    arguments = ("train", "digits-mlp", "--epochs", 3, "-M", "widths=[8]", "--out", out, "--keep-every", 2, "--json")
    return out, json.loads(landscape(*arguments).out), arguments


def test_the_folder_is_told_and_complete(run):
    out, document, arguments = run
    folder = out.with_name("a-trajectory")
    assert document["trajectory"] == str(folder)
    assert sorted(p.name for p in folder.iterdir()) == [f"epoch-{e:04d}.safetensors" for e in (0, 2, 3)]
    assert json.loads(landscape(*arguments).out) == document  # finished: the same again
    other = landscape(*arguments[:-3], "--keep-every", 1, code=2)
    assert "error: expected the trajectory of the finished run" in other.err


def test_each_file_can_be_inspected_and_the_folder_gives_axes(run, tmp_path):
    out, document, _ = run
    folder = document["trajectory"]
    found = json.loads(landscape("inspect", f"{folder}/epoch-0002.safetensors", "--json").out)
    assert "epoch" in json.dumps(found)
    surface = landscape(
        "surface", out, "--directions", f"pca:{folder}", "--grid", 3, "--samples", 50, "--json", "--out", tmp_path / "s"
    )
    axes = json.loads(surface.out)["axes"]
    assert [a.split(",")[0] for a in axes] == ["trajectory component 1", "trajectory component 2"]
