"""A command that failed by a mistake is in nobody's way: what is asked next runs, and the error says what was wrong."""

import json

import pytest
import torch
from in_process import landscape
from torch import nn

from landscape import Objective, interpolation, line, plane, train_curve
from landscape.errors import UsageError

TASK = """
import torch
from torch import nn
from landscape import Task

def contrast(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]) @ model(batch[1]).T, torch.arange(len(batch[0])))

def task():
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    return Task(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), LOSS, DATA)
"""


@pytest.fixture
def folder(tmp_path):
    """Two networks of one task, a wrong one, the task of (output, target) and one of (model, batch)."""
    for i, name in enumerate(("a", "b")):
        torch.manual_seed(i)
        torch.save(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).state_dict(), tmp_path / f"{name}.pt")
    torch.save(nn.Sequential(*(nn.Linear(9, 9) for _ in range(4))).state_dict(), tmp_path / "wrong.pt")
    plain = TASK.replace("LOSS", "nn.CrossEntropyLoss()").replace("DATA", "(x, torch.arange(40) % 4)")
    (tmp_path / "net.py").write_text(plain)
    (tmp_path / "con.py").write_text(TASK.replace("LOSS", "contrast").replace("DATA", "(x, x + 0.1)"))
    return tmp_path


def surface(folder, directions, code=0):
    arguments = ("--dim", 1) if "," not in directions else ()
    arguments += ("--task", "net.py", "--directions", directions, "--grid", 3, "--no-test")
    return landscape("surface", "a.pt", *arguments, cwd=folder, code=code)


def test_a_wrong_network_leaves_no_folder(folder):
    surface(folder, "to:wrong.pt,to:b.pt", code=5)
    assert not (folder / "a-surface").exists()


def test_a_folder_without_a_point_takes_another_run_and_one_with_points_does_not(folder):
    """Of a run that was stopped before its first point: its record, and what was chosen."""
    surface(folder, "to:b.pt")
    record = (folder / "a-surface" / "run.json").read_bytes()
    chosen = (folder / "a-surface" / "points" / "directions.safetensors").read_bytes()
    refused = surface(folder, "random", code=2).error
    assert "found another run there: it differs in directions (to:b.pt there, random asked), files (b.pt " in refused
    assert " there, none asked)" in refused
    assert "{" not in refused
    again = folder / "again"
    (again / "points" / "journal").mkdir(parents=True)
    (again / "run.json").write_bytes(record)
    (again / "points" / "directions.safetensors").write_bytes(chosen)
    arguments = ("--task", "net.py", "--dim", 1, "--directions", "random", "--grid", 3, "--no-test", "--out", "again")
    landscape("surface", "a.pt", *arguments, cwd=folder)
    assert json.loads((again / "run.json").read_text())["directions"] == "random"
    assert (again / "points" / "directions.safetensors").read_bytes() != chosen


def test_a_record_that_is_not_ours_is_kept(folder):
    (folder / "a-surface").mkdir()
    (folder / "a-surface" / "run.json").write_text('{"name": "of another program"}')
    surface(folder, "random,random", code=2)
    assert (folder / "a-surface" / "run.json").read_text() == '{"name": "of another program"}'


def test_disagreements_stand_below_the_error_under_a_heading(folder):
    lines = landscape("sharpness", "wrong.pt", "--task", "net.py", cwd=folder, code=5).err.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("error:"))
    assert lines[first + 1] == "the other disagreements (name, in the file, in the model):"
    assert all(line.startswith("  ") for line in lines[first + 2 :])
    assert not any("  missing" in line for line in lines[:first])


def test_a_loss_of_the_model_and_a_batch_tells_its_batches_and_claims_no_sampling_error(folder):
    arguments = ("a.pt", "--task", "con.py", "--directions", "random,random", "--grid", 3, "--no-test")
    whole = landscape("surface", *arguments, "--out", "whole", cwd=folder)
    assert "depends on the batches, here 1 of 40 samples" in whole.err
    line = next(line for line in whole.out.splitlines() if line.startswith("topology:"))
    assert "above the sampling error" not in line
    cut = landscape("sharpness", "a.pt", "--task", "con.py", "--batch-size", 16, "--measures", "lambda_max", cwd=folder)
    assert "here 3 of 8 to 16 samples" in cut.err
    assert whole.out.splitlines()[0] != cut.out.splitlines()[0]


def test_a_dictionary_of_weights_is_no_network():
    weights = nn.Linear(2, 2).state_dict()
    data = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(UsageError, match=r"as a module, found a dictionary of weights; load it into the network first"):
        Objective(weights, nn.CrossEntropyLoss(), data)
    with pytest.raises(UsageError, match=r"as a module, found str; pass the network itself"):
        Objective("model.pt", nn.CrossEntropyLoss(), data)


@pytest.mark.parametrize("function", [line, plane, interpolation, train_curve])
def test_a_misspelt_keyword_is_told_what_is_meant(function):
    wrong, meant = ("grids", "grid") if function is not train_curve else ("bend", "bends")
    with pytest.raises(
        TypeError, match=f"^{function.__name__} got an unexpected keyword argument '{wrong}'; did you mean {meant}"
    ):
        function(None, **{wrong: 5})
