"""`landscape train --keep-every`, and what other commands make of the folder."""

import json
import subprocess
import sys

import pytest


def landscape(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "landscape", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("kept") / "a.safetensors"
    arguments = ("train", "digits-mlp", "--epochs", 3, "-M", "widths=[8]", "--out", out, "--keep-every", 2, "--json")
    return out, json.loads(landscape(*arguments).stdout), arguments


def test_the_folder_is_told_and_complete(run):
    out, document, arguments = run
    folder = out.with_name("a-trajectory")
    assert document["trajectory"] == str(folder)
    assert sorted(p.name for p in folder.iterdir()) == [f"epoch-{e:04d}.safetensors" for e in (0, 2, 3)]
    assert json.loads(landscape(*arguments).stdout) == document  # finished: the same again
    other = landscape(*arguments[:-3], "--keep-every", 1, code=2)
    assert "error: expected the trajectory of the finished run" in other.stderr


def test_each_file_can_be_inspected_and_the_folder_gives_axes(run, tmp_path):
    out, document, _ = run
    folder = document["trajectory"]
    found = json.loads(landscape("inspect", f"{folder}/epoch-0002.safetensors", "--json").stdout)
    assert "epoch" in json.dumps(found)
    surface = landscape(
        "surface", out, "--directions", f"pca:{folder}", "--grid", 3, "--samples", 50, "--json", "--out", tmp_path / "s"
    )
    axes = json.loads(surface.stdout)["axes"]
    assert [a.split(",")[0] for a in axes] == ["trajectory component 1", "trajectory component 2"]
