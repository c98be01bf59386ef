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
    assert re.findall(r'<section id="([\w-]+)"', page) == [
        "training",
        "spectrum",
        "samples",
        "information",
        "provenance",
        "reading",
    ]
    text = re.sub(r"<[^>]+>", "", page)
    scores = json.loads((written / "ranked" / "samples.json").read_text())
    assert f"{scores['scores']['loss'][scores['top'][0]]:.4g}" in text
    history = json.loads((written / "net-watch.json").read_text())
    assert f"{history['checks'][-1]['measures']['lambda_max']['value']:.5g}" in text
    assert "3 mini-batches of 16 of 48 samples" in text
    assert "H(Y)" in text


def test_a_spectrum_of_some_weights_says_so(written, tmp_path):
    """In headings, captions, tables and the provenance; beside one of all weights, which it does not replace."""
    net, few = written / "net.safetensors", ("-k", 1, "--probes", 2, "--steps", 5, "--per-layer")
    landscape("spectrum", net, *FEW, *few, "--out", tmp_path / "all")
    landscape("spectrum", net, *FEW, *few, "--params", "fc2.*", "--per-batch", "--minibatches", 3, "--out", tmp_path / "part")
    done = landscape("report", tmp_path / "all", tmp_path / "part", "--out", tmp_path / "r.html", "--json")
    holds = json.loads(done.out)["holds"]
    assert [holds[name] for name in ("eigenpairs", "densities", "blocks", "minibatches")] == [2, 2, 2, 1]
    assert "records" not in holds
    record = json.loads((tmp_path / "part" / "spectrum.json").read_text())["provenance"]
    words = f"{record['weights']} of {record['weights'] + record['held_weights']} weights (fc2.*)"
    text = re.sub(r"<[^>]+>", "", (tmp_path / "r.html").read_text())
    headings = [line for line in text.splitlines() if line.endswith(words) and line.startswith("net.safetensors (")]
    assert len(headings) == 2  # spectrum, layers
    assert f"spectrum of {headings[0]}" in text
    done = landscape("spectrum", net, *FEW, "-k", 2, "--probes", 2, "--steps", 5, "--out", tmp_path / "ends")
    assert re.findall(r"(?:yes|NO) +(largest|smallest)", done.out + done.err) == ["largest", "largest", "smallest", "smallest"]
    assert "smallest" in re.findall(r"<td>(\w+)</td></tr>", (tmp_path / "r.html").read_text())
    assert "add up to the trace of the Hessian;" not in text


def test_what_is_not_shown_is_named(written, tmp_path):
    done = landscape("report", written, written / "nothing", "--out", tmp_path / "r.html")
    assert "looked-at is not in the report: landscape inspect writes nothing that a report shows" in done.err.replace("\n", " ")
    assert "nothing is not in the report: no command of landscape wrote a result there" in done.err.replace("\n", " ")
