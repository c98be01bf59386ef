"""Networks sharded by `fully_shard` on gloo processes, against the dense Hessian; sharded_worker.py has what is checked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_worker import BASIS
from torch import nn

import landscape as ls
from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.vector_store import Alone, Place

HERE = Path(__file__).parent
SLACK = 96 << 20  # bytes that do not shrink with the number of processes: float64 pieces of the basis, a layer in whole


def run(worker: str, processes: int, out: Path) -> dict[str, Any]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*torchrun, HERE / worker, out], capture_output=True, text=True, timeout=900, cwd=HERE.parents[1],
                          env=os.environ | {"PYTHONPATH": str(HERE.parents[1])})  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(out.read_text())


@pytest.mark.slow  # processes that import torch.distributed
def test_everything_is_the_dense_answer_for_two_and_three_processes(tmp_path):
    two, three = (run("sharded_worker.py", n, tmp_path / f"{n}.json") for n in (2, 3))
    for kind, found in two.items():
        exact = "float64" in kind
        for name in ("value", "trace", "average"):  # seeded, whatever the number of processes
            assert found[name] == pytest.approx(three[kind][name], rel=1e-6 if exact else 3e-2, abs=1e-9 if exact else 1e-4)
        difference = torch.tensor(found["piece"]) - torch.tensor(three[kind]["piece"])
        assert float(difference.abs().max()) < (1e-10 if exact else 1e-4)
        for run_ in (found, three[kind]):
            # The figures of docs/memory-and-processes.md.
            assert run_["stated"] < (1e-9 if exact else 1e-4)
            assert 0.6 * run_["stated"] < run_["actual"] <= run_["stated"]
            passes = 2 * run_["steps"]  # two gradients; the root stays whole between forward and backward
            assert run_["hvp"]["_reduce_scatter_base_"] == passes * run_["modules"]
            assert run_["hvp"]["_allgather_base_"] == passes * (2 * run_["modules"] - 1)
            assert run_["hvp"]["allreduce_"] == 4  # two losses, a norm, and whether the product is finite


@pytest.mark.slow  # likewise
def test_the_basis_is_sharded(tmp_path):
    found = run("memory_worker.py", 3, tmp_path / "memory.json")
    assert found["took"] <= (BASIS + 10) * found["vector"] / 3 + SLACK
    assert (BASIS + 10) / 3 * found["vector"] + SLACK < BASIS * found["vector"], "an unsharded basis would not pass"


def test_processes_are_needed():
    with pytest.raises(UsageError, match=r"torch\.distributed to be initialized"):
        ls.ShardedObjective(nn.Linear(2, 1), nn.MSELoss(), (torch.ones(4, 2), torch.ones(4, 1)))


def test_a_basis_of_own_columns_is_that_of_complete_vectors():
    """One process that has all columns as its own: the same recurrence, to the bit."""
    diagonal = torch.arange(1.0, 31.0, dtype=torch.float64)
    found = []
    for place in (Place(), Place(group=Alone(), own=30)):
        basis = KrylovBasis(
            12, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu", place=place
        )  # fmt: skip
        basis.begin(None)
        for _ in range(11):
            basis.absorb(diagonal * basis.next_row[0])
        found.append(basis.projection.copy())
    assert (found[0] == found[1]).all()
