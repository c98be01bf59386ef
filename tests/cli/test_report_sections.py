"""`landscape report` shows what every command wrote, and names the directories that hold nothing for it."""

import json
import re

import pytest
from in_process import landscape

FEW = ("--samples", 48)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What five commands wrote about a small network that was trained with a watch."""
    folder = tmp_path_factory.mktemp("results")
    net = folder / "net.safetensors"
    landscape("train", "digits-mlp", "-M", "widths=[8]", "--epochs", 1, "--batch", 24, "--watch-every", 1, *FEW, "--out", net)
    landscape(
        "spectrum", net, *FEW, "-k", 1, "--probes", 2, "--steps", 5, "--per-batch", "--minibatches", 3, "--out", folder / "s"
    )
    landscape("samples", net, *FEW, "--scores", "loss", "--by", "loss", "--top", 3, "--out", folder / "ranked")
    landscape("information", net, *FEW, "--estimator", "binned", "--out", folder / "bits")
    landscape("inspect", net, "--out", folder / "looked-at")
    (folder / "nothing").mkdir()
    return folder


def test_every_result_has_its_section(written, tmp_path):
    done = landscape("report", written, "--no-interactive", "--out", tmp_path / "new" / "r.html", "--json")
    holds = json.loads(done.out)["holds"]
    assert {name: n for name, n in holds.items() if n} == {
        "eigenpairs": 1, "densities": 1, "minibatches": 1, "watches": 1, "samples": 1, "information": 1,
    }  # fmt: skip
    page = (tmp_path / "new" / "r.html").read_text()
    assert re.findall(r'<section id="([\w-]+)"', page) == ["training", "spectrum", "samples", "information", "reading"]
    text = re.sub(r"<[^>]+>", "", page)
    scores = json.loads((written / "ranked" / "samples.json").read_text())
    assert f"{scores['scores']['loss'][scores['top'][0]]:.4g}" in text
    history = json.loads((written / "net-watch.json").read_text())
    assert f"{history['checks'][-1]['measures']['lambda_max']['value']:.5g}" in text
    assert "3 mini-batches of 16 of 48 samples" in text
    assert "H(Y)" in text


def test_what_is_not_shown_is_named(written, tmp_path):
    done = landscape("report", written, written / "nothing", "--out", tmp_path / "r.html")
    assert "looked-at is not in the report: landscape inspect writes nothing that a report shows" in done.err.replace("\n", " ")
    assert "nothing is not in the report: no command of landscape wrote a result there" in done.err.replace("\n", " ")
