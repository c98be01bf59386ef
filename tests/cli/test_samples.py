"""`landscape samples` on a network with wrong labels that is trained here."""

import csv
import json

import numpy as np
import pytest
import torch
from in_process import landscape
from sklearn.metrics import roc_auc_score

from landscape import load
from landscape.cli.commands.samples import read_mask
from landscape.tasks import Recipe, train

FEW = 150


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoint of a short run on digits of which a fifth have a redrawn label."""
    folder = tmp_path_factory.mktemp("noisy")
    recipe = Recipe(
        network_options={"widths": [16]},
        samples=FEW,
        corruption="labels",
        corruption_level=0.2,
        lr=0.1,
        epochs=4,
        dtype="float64",
    )
    return train(recipe, out=folder / "noisy.safetensors", keep_every=1)


def test_ranking_csv_json_and_pictures(run, tmp_path):
    out = tmp_path / "out"
    arguments = ("--trajectory", run.trajectory, "--top", 5, "--probes", 2, "--dtype", "float64", "--out", out)
    done = landscape("samples", run.path, *arguments, "--json")
    document = json.loads(done.out)
    task = load(run.path)
    wrong = task.extras["wrong_labels"].numpy()
    losses = torch.nn.functional.cross_entropy(task.model(task.train[0].double()), task.train[1], reduction="none")
    assert document["scores"]["loss"] == pytest.approx(losses.tolist(), rel=1e-9)
    assert document["by"] == "cumulative_loss"
    assert document["checkpoints"] == 5
    assert document["targets"] == task.train[1].tolist()
    assert document["wrong"] == wrong.tolist()
    for name, values in document["scores"].items():
        assert document["detection"][name]["auroc"] == pytest.approx(roc_auc_score(wrong, values)), name
    with open(out / "samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows[:5]] == document["top"]
    for row in rows:
        i = int(row["sample"])
        assert (row["wrong"] == "True") == wrong[i]
        assert all(float(row[name]) == values[i] for name, values in document["scores"].items())
    pictures = {f"{name}.{kind}" for name in ("scores", "samples", "shares") for kind in ("png", "pdf")}
    assert {p.name for p in out.iterdir()} == {"run.json", "samples.csv", "samples.json"} | pictures
    text = landscape("samples", run.path, *arguments).out
    assert "cumulative_loss *" in text
    assert "AUROC for the wrong labels" in text


def test_known_wrong_samples_from_a_file(run, tmp_path):
    (tmp_path / "wrong.txt").write_text("3\n40\n41\n")
    options = ("--wrong", tmp_path / "wrong.txt", "--samples", 60, "--scores", "loss", "--out", tmp_path / "out", "--json")
    document = json.loads(landscape("samples", run.path, *options).out)
    assert np.flatnonzero(document["wrong"]).tolist() == [3, 40, 41]
    assert document["detection"]["loss"]["wrong"] == 3


@pytest.mark.parametrize("name", ["mask.csv", "mask.npy", "numbers.npy", "indices.npy"])
def test_every_form_of_a_file_names_the_same_samples(name, tmp_path):
    mask = np.isin(np.arange(60), [3, 40, 41])
    if name == "mask.csv":
        (tmp_path / name).write_text(",".join(map(str, mask.astype(int))))
    else:
        np.save(tmp_path / name, {"mask": mask, "numbers": mask.astype(int), "indices": np.flatnonzero(mask)}[name[:-4]])
    assert read_mask(tmp_path / name, 60).tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("3 3", (), "expected a 0 or 1 for each of 60 samples"),
        ("3 60", (), "or different indices below 60"),
        ("a", (), "expected indices or a 0 or 1 for each sample"),
        ("", (), "found 0 numbers that are neither"),
        (None, ("--scores", "forgetting"), "expected the checkpoints of training for forgetting"),
        (None, ("--scores", "sharpness"), "expected a score, found 'sharpness'"),
        (None, ("--by", "forgetting"), "expected to rank by one of the scores, found 'forgetting'"),
        (None, ("--step", "-1"), "expected a positive step, found -1"),
    ],
)
def test_mistakes(run, text, options, message, tmp_path):
    if text is not None:
        (tmp_path / "wrong.txt").write_text(text)
        options = (*options, "--wrong", tmp_path / "wrong.txt")
    done = landscape("samples", run.path, "--samples", 60, "--out", tmp_path / "out", *options, code=2)
    assert message in done.error
    assert not (tmp_path / "out").exists()
