"""`--params` and `--per-batch` from the command line to the files."""

import csv
import importlib
import json
import os
import signal
import time

import pytest
import torch
from in_process import run
from torch import nn

TASK = """import torch
from landscape import Task

def task():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    return Task(model=net, loss=torch.nn.CrossEntropyLoss(), train=(torch.randn(30, 4), torch.arange(30) % 3))
"""


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def test_sharpness_and_spectrum_of_some_weights(network, capfd):
    named = (network / "net.pt", "--task", network / "task.py", "--params", "2.*", "--params", "!*.bias", "--json")
    done = run(capfd, "sharpness", *named, "--measures", "lambda_max")
    assert done.code == 0, done.err
    assert "15 of 43 weights (2.*, !*.bias)" in done.err
    result = json.loads(done.out)["results"][0]
    made = result["provenance"]
    assert (made["weights"], made["held_weights"], made["params"]) == (15, 28, ["2.*", "!*.bias"])
    batches = ("--per-batch", "--minibatch-size", 10, "--minibatches", 3, "--steps", 10, "-k", 1)
    done = run(capfd, "spectrum", *named, *batches, "--out", network / "out")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    top = result["measures"]["lambda_max"]["value"]
    assert document["eigenvalues"]["values"][0] == pytest.approx(top, rel=1e-4)
    assert document["minibatches"]["whole_largest"]["value"] == pytest.approx(top, rel=1e-3)
    rows = list(csv.DictReader((network / "out" / "minibatches.csv").read_text().splitlines()))
    assert [float(row["lambda_max"]) for row in rows] == document["minibatches"]["largest"]
    assert (network / "out" / "minibatches.png").stat().st_size > 1000


def test_a_pattern_without_a_match_is_one_line(network, capfd):
    done = run(capfd, "sharpness", network / "net.pt", "--task", network / "task.py", "--params", "3.*")
    assert done.code == 2
    assert "expected a pattern that matches a parameter, found '3.*'" in done.error


def test_what_is_done_of_the_mini_batches_is_kept_when_the_run_is_stopped(network, capfd, monkeypatch):
    named = (network / "net.pt", "--task", network / "task.py", "--json", "--out", network / "out")
    batches = ("--per-batch", "--minibatch-size", 10, "--steps", 10, "-k", 1)
    extremes = importlib.import_module("landscape.spectra.minibatch_extremes")
    solve, calls = extremes.eigenpairs, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:  # three mini-batches, and then the user's Ctrl-C
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return solve(*arguments, **options)

    monkeypatch.setattr(extremes, "eigenpairs", interrupted)
    done = run(capfd, "spectrum", *named, *batches, "--minibatches", 60)
    assert done.code == 130, done.err
    assert "interrupted after 3 of 60 mini-batches" in done.err
    assert "mean over mini-batches" in done.err + done.out
    document = json.loads(done.out)
    assert document["interrupted"] is True
    assert (
        document["minibatches"]["largest"]
        == json.loads((network / "out" / "spectrum.json").read_text())["minibatches"]["largest"]
    )
    rows = list(csv.DictReader((network / "out" / "minibatches.csv").read_text().splitlines()))
    assert [float(row["lambda_max"]) for row in rows] == document["minibatches"]["largest"]
    assert len(rows) == 3
    monkeypatch.setattr(extremes, "eigenpairs", solve)
    again = run(capfd, "spectrum", *named, *batches, "--minibatches", 60)
    assert again.code == 0, again.err
    assert json.loads(again.out)["minibatches"]["largest"][:3] == document["minibatches"]["largest"]
