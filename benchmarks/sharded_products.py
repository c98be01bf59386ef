"""Exact products of a sharded network beside differences of gradients: `python -m benchmarks.sharded_products`.

Time: products of one GPT on gloo processes, one batch each, in turns, so that a busy minute falls on both. Memory: the peak
of two products beyond what the network, the point and the vector take, for chains of layers of two depths on two and three
processes. Two of them give the constants, the others are predicted.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import landscape as ls
from benchmarks import sharded_plan
from benchmarks.record import ROOT, machine, memory_status, write
from landscape.sharded.finite_differences import DifferenceProducts

RESULT = ROOT / "benchmarks" / "results" / "sharded_products.json"
GPT = (256, 6)  # width and depth
CHAINS = ((1024, 6, 2), (1024, 18, 2), (1024, 18, 3), (512, 24, 2))  # width, depth, processes
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc: larger pieces go back to the system when they are freed


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded_products", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="products of each kind that are timed (9)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", nargs=4, metavar=("METHOD", "WIDTH", "DEPTH", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def memory(method: str, width: int, depth: int) -> dict[str, Any]:
    """Peak bytes of two products, in the process that takes most, beyond what stands before them."""
    import torch.distributed as dist

    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 16)
    small = _chain(32, 2)
    _products(small, method)(small.theta[None])
    objective = _chain(width, depth)
    objective.gradient()
    products, v = _products(objective, method), objective.weights.random(0, "gaussian")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_status("VmRSS")
    products(products(v[None]))
    took = torch.tensor(float(memory_status("VmHWM") - before))
    dist.all_reduce(took, dist.ReduceOp.MAX)
    return {"took": float(took), "part": 4 * objective.dim / dist.get_world_size(), "layer": 4 * width**2}


def _chain(width: int, depth: int) -> ls.ShardedObjective:
    """Layers of equal sizes, each wrapped, without weights around them; two samples a process."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    mesh, n = init_device_mesh("cpu", (dist.get_world_size(),)), 2 * dist.get_world_size()
    net = nn.Sequential(*(nn.Sequential(nn.Linear(width, width, bias=False), nn.Tanh()) for _ in range(depth)))
    for layer in net:
        nn.init.orthogonal_(layer[0].weight, 1.5)  # gradients that do not vanish with the depth
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    x = torch.randn(n, width)
    return ls.ShardedObjective(net, nn.MSELoss(), [(x[i : i + 2], x[i : i + 2]) for i in range(0, n, 2)])


def _products(objective: ls.ShardedObjective, method: str) -> Any:
    """Products of a kind, unchecked."""
    if method == "exact":
        return objective.exact_products()
    return DifferenceProducts(objective.gradient, objective.theta, objective.weights, 0.1)


def timed(rounds: int) -> dict[str, Any]:
    """Seconds of products in turns, by the clock and by the processor; how far differences are from exact."""
    import torch.distributed as dist

    objective = sharded_plan._objective(*GPT)
    weights, v = objective.weights, objective.weights.random(0, "gaussian")
    exact, differences = objective.exact_products(), DifferenceProducts(objective.gradient, objective.theta, objective.weights)
    image = exact(v[None])[0]
    kinds = {
        "exact": lambda: exact(v[None]), "exact, first": lambda: objective.exact_products()(v[None]),
        "differences": lambda: differences(v[None]),
    }  # fmt: skip
    clock: dict[str, list[float]] = {kind: [] for kind in kinds}
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, product in kinds.items():
            dist.barrier()
            started, before = time.perf_counter(), time.process_time()
            product()
            dist.barrier()
            clock[kind].append(time.perf_counter() - started)
            used[kind].append(time.process_time() - before)
    found, error, _ = differences.with_error(v)
    size = weights.norm(image)
    return {
        "weights": objective.dim, "seconds": clock, "processor": used,
        "apart": weights.norm(found - image) / size, "stated": error / size,
    }  # fmt: skip


def work(asked: argparse.Namespace) -> None:
    """The part of one process under torchrun."""
    import torch.distributed as dist

    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    warnings.filterwarnings("ignore", message=".*_register_pre_backward_hook.*")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    method, width, depth, path = asked.work
    found = timed(asked.rounds) if method == "time" else memory(method, int(width), int(depth))
    if dist.get_rank() == 0:
        Path(path).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def run(method: str, width: int, depth: int, processes: int, rounds: int = 9) -> dict[str, Any]:
    """One run under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        words = ["--work", method, str(width), str(depth), str(path), "--rounds", str(rounds)]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.sharded_products", *words]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def measure(rounds: int) -> dict[str, Any]:
    """All runs, ratios of medians, and the constants of the memory."""
    load, taken = os.getloadavg()[0], run("time", *GPT, 2, rounds)
    medians = {by: {kind: statistics.median(of) for kind, of in taken[by].items()} for by in ("seconds", "processor")}
    ratios = {
        kind: {by: found[kind] / found["differences"] for by, found in medians.items()} for kind in ("exact", "exact, first")
    }
    held = {}
    for method in ("exact", "differences"):
        rows = [run(method, *chain) for chain in CHAINS]
        (parts, layers), took = zip(*((row["part"], row["layer"]) for row in rows[:2]), strict=True), [r["took"] for r in rows]
        vectors, whole = np.linalg.solve(np.column_stack((parts, layers)), took[:2]).tolist()
        predicted = [vectors * row["part"] + whole * row["layer"] for row in rows]
        held[method] = {
            "rows": rows, "parts": vectors, "layers": whole,
            "measured / predicted": [t / p for t, p in zip(took[2:], predicted[2:], strict=True)],
        }  # fmt: skip
    return {
        "schema": 1, "landscape": ls.__version__, "torch": torch.__version__, "machine": machine(), "load before": load,
        "load after": os.getloadavg()[0], "time": taken, "ratios to differences": ratios, "memory": held,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    if asked.work is not None:
        work(asked)
        return
    document = measure(asked.rounds)
    print(json.dumps({"ratios": document["ratios to differences"], "memory": document["memory"]}, indent=1))
    write(asked.out, document)


if __name__ == "__main__":
    main()
