"""`--params` and `--per-batch` from the command line to the files."""

import csv
import json

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
