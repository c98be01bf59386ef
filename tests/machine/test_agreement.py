"""Processes that were given different things are told so before they share work: which one, and what differs."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torchrun import ENVIRONMENT, ended, errors

from landscape.errors import UsageError
from landscape.machine.agreement import check_alike
from landscape.machine.distributed import Group, LostError


@dataclass(frozen=True)
class Gathered(Group):
    """A group whose members were given these."""

    members: tuple[Any, ...] = ()

    def everyone(self, value: Any) -> list[Any]:
        return list(self.members)


def gathered(*members: Any) -> Gathered:
    return Gathered(0, len(members), members)


def test_alike_is_silent():
    check_alike(gathered({"a": "1"}, {"a": "1"}), {"a": "1"})
    check_alike(Group(), {"a": "1"})


def test_one_of_three_is_named_with_all_that_differs():
    right, wrong = {"weights": "a" * 64, "data": "d", "loss": "l"}, {"weights": "b" * 64, "data": "e", "loss": "l"}
    with pytest.raises(UsageError) as caught:
        check_alike(gathered(wrong, right, right), right)
    assert "found process 0 with another weights (bbbbbbbbbbbb…, elsewhere aaaaaaaaaaaa…), data (e, elsewhere d); give" in str(
        caught.value
    )
    assert "process 1" not in str(caught.value)


def test_many_that_differ_are_counted():
    with pytest.raises(UsageError, match=r"found process 1 with .*; process 2 .*; process 3 [^;]*, and 2 more; give"):
        check_alike(gathered(*({"a": name} for name in "0123450000")), {"a": "0"})


def test_processes_at_another_step_are_lost():
    for other in (None, {"b": "1"}):
        with pytest.raises(LostError, match="found them at different ones"):
            check_alike(gathered({"a": "1"}, other), {"a": "1"})


TASK = """
import os, torch
from torch import nn
from landscape import Task
def task():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=g), torch.randint(0, 3, (12,), generator=g)
    if os.environ["RANK"] == "1" and os.environ["ODD"] == "data":
        y[5] = (y[5] + 1) % 3
    loss = nn.CrossEntropyLoss(label_smoothing=0.1 * (os.environ["RANK"] == "1" and os.environ["ODD"] == "loss"))
    return Task(nn.Linear(4, 3), loss, (x, y))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("agreement")
    generator = torch.Generator().manual_seed(0)
    for rank in (0, 1):
        state = {"weight": torch.randn(3, 4, generator=generator), "bias": torch.zeros(3)}
        torch.save(state, folder / f"{rank}.pt")
    (folder / "task.py").write_text(TASK)
    return folder


def refused(place: Path, script: str, odd: str) -> str:
    """The one line of two processes that each run this shell script."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    run = subprocess.Popen(
        [*torchrun, "bash", "-c", f"exec {sys.executable} -m landscape {script}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place, env=ENVIRONMENT | {"ODD": odd},
    )  # fmt: skip
    out, err = ended(run, 1)
    assert out == ""
    assert len(errors(err)) == 1, err
    assert "exitcode  : 2" in err
    return errors(err)[0]


def test_another_checkpoint_in_one_process(place):
    said = refused(place, "sharpness $RANK.pt --task task.py --measures trace", "nothing")
    assert said.startswith("error: expected the same input in all 2 processes, found process 1 with another checkpoint (")


@pytest.mark.slow  # each starts torchrun, 10 s and more
@pytest.mark.parametrize(
    ("script", "odd", "found"),
    [
        ("sharpness 0.pt --task task.py --measures trace", "data", "another data ("),
        ("spectrum 0.pt --task task.py", "loss", "another loss ("),
        ("spectrum 0.pt --task task.py --seed $RANK", "nothing", "another --seed (1, elsewhere 0)"),
        ("surface 0.pt --task task.py --grid 3 --out s", "data", "another data ("),
    ],
)
def test_other_data_code_or_options_in_one_process(place, script, odd, found):
    assert f"found process 1 with {found}" in refused(place, script, odd)


@pytest.mark.slow  # starts torchrun
def test_equal_bytes_under_other_names_are_alike(place):
    (place / "copy0.pt").write_bytes((place / "0.pt").read_bytes())
    (place / "copy1.pt").write_bytes((place / "0.pt").read_bytes())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    script = f"exec {sys.executable} -m landscape sharpness copy$RANK.pt --task task.py --measures trace --json"
    run = subprocess.Popen(
        [*torchrun, "bash", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place, env=ENVIRONMENT | {"ODD": "nothing"},
    )  # fmt: skip
    assert "trace" in ended(run)[0]
