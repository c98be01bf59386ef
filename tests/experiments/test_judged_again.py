"""Every verdict is what the code says of the runs in experiments/results/: nothing in a document was typed by hand."""

import json
import runpy
import sys

import pytest

import experiments.common.document as document
import experiments.common.drawing as drawing
from experiments.common.document import RESULTS, read
from experiments.studies import STUDIES

SLOW = {"which_measure"}


@pytest.mark.parametrize(
    "name", [pytest.param(study.name, marks=pytest.mark.slow) if study.name in SLOW else study.name for study in STUDIES]
)
def test_a_document_is_what_its_runs_say(name, monkeypatch, capsys):
    how, written = read(name)["how"], {}
    options = ["--judge", "--seeds", str(len(how["seeds"])), "--first-seed", str(how["seeds"][0])]
    if "--data" in how["script"]:
        options += ["--data", "images", "--samples", str(how["samples"]), "--width", str(how["width"])]
    monkeypatch.setattr(sys, "argv", [name, *options])
    monkeypatch.setattr(document, "write_file", lambda path, data: written.update({path.name: data}))
    monkeypatch.setattr(drawing, "save", lambda *arguments, **options: written.update({"figure": b""}))
    runpy.run_module(f"experiments.{name}", run_name="__main__")
    assert set(written) == {f"{name}.json", "figure"}
    found, kept = json.loads(written[f"{name}.json"]), json.loads((RESULTS / f"{name}.json").read_text())
    assert found["verdict"] == kept["verdict"]
    assert found == kept
