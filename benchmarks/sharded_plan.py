"""What `ls.ShardedObjective` takes by formula, checked and carried to 70 billion weights: `python -m benchmarks.sharded_plan`.

GPTs of three sizes run on two gloo processes. Two of them give the constants of the formulas; the third, the largest, is
predicted. Collectives and their bytes are counted. The peak memory of each size is that of a run of its own, a Lanczos run with
a full basis. For the seconds all three networks are in one run and take turns, product by product, so that a busy minute of the
machine falls on all.

P weights over n processes; the root (embedding, head, norm) has E of them, each of L blocks P_b; the Krylov basis has m
vectors; b bytes a weight; every process has one batch.

    all-gathers             2 (2 L + 1)    two gradients: forward and, but for the root, backward
    reduce-scatters         2 (L + 1)
    all-reduces             4              of one number
    bytes into a process    2 b ((2 (P - E) + E) + P) (n - 1) / n
    bytes held              b (m + 1 + v) P / n + 2 b (E + P_b) + c    v vectors and c bytes from two sizes
    seconds                 p P + q (L + 1)                            p and q from two sizes
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import landscape as ls
from benchmarks.networks import initialised
from benchmarks.record import ROOT, machine, memory_status, write
from benchmarks.vocabulary import GPT

RESULT, PAGE = ROOT / "benchmarks" / "results" / "sharded_plan.json", ROOT / "docs" / "concepts" / "sharded-plan.md"
PROCESSES, BASIS, WORDS, TOKENS, HEADS = 2, 24, 2_000, 64, 4
# Width and depth; the last is predicted from the others.
SIZES = ((192, 5), (256, 6), (320, 8))
# Published shapes (Touvron et al. 2023, arXiv:2307.09288): width, width of the MLP, depth, keys and values by width, words.
PUBLISHED = {"7B": (4096, 11008, 32, 4096, 32_000), "70B": (8192, 28672, 80, 1024, 32_000)}
# What the table assumes and nothing here measures: a GPU's memory, its arithmetic and the links between, all bytes at once.
GPU = {"memory": 80e9, "flops": 25e12, "bytes a second": 25e9, "tokens of a batch": 2048}
# Products of a largest eigenvalue, as `eigenpairs` bounds them, and of a trace with 16 probes.
PRODUCTS = {"largest eigenvalue": 100, "trace": 20}


class Shape(NamedTuple):
    """Weights of all, of the root, of the largest block; and the number of blocks."""

    all: int
    root: int
    block: int
    depth: int


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded_plan", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="products of each network that are timed (9)")
    parser.add_argument("--shrink", type=int, default=1, help="divide widths by this, to see that all runs")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--table", action="store_true", help="only write the page anew, from the result that is there")
    parser.add_argument("--work", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


class Counted(TorchDispatchMode):
    """Counts collectives, and the bytes of their whole tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d" and "wait" not in func.__name__:
            name = func.__name__.partition(".")[0].strip("_")
            self.calls[name] += 1
            self.bytes[name] += max(t.nbytes for t in torch.utils._pytree.tree_leaves(args) if isinstance(t, torch.Tensor))
        return func(*args, **(kwargs or {}))


def shape_of(width: int, depth: int) -> Shape:
    """The shape of one of our networks."""
    with torch.device("meta"):
        net = GPT(WORDS, TOKENS, width, depth, HEADS)
    block = sum(p.numel() for p in net.blocks[0].parameters())
    whole = sum(p.numel() for p in net.parameters())
    return Shape(whole, whole - depth * block, block, depth)


def published(width: int, inner: int, depth: int, keys: int, words: int) -> Shape:
    """The shape of a Llama 2: attention, three matrices of the MLP, two norms; embedding and head are apart."""
    block = 2 * width * width + 2 * width * keys + 3 * width * inner + 2 * width
    root = 2 * words * width + width
    return Shape(root + depth * block, root, block, depth)


def collectives(shape: Shape, processes: int, size: int = 4) -> dict[str, int]:
    """Calls of a product, and the bytes that come into a process."""
    moved = 2 * size * (2 * (shape.all - shape.root) + shape.root + shape.all)
    return {
        "allgather": 2 * (2 * shape.depth + 1), "reduce_scatter": 2 * (shape.depth + 1), "allreduce": 4,
        "bytes": int(moved * (processes - 1) / processes),
    }  # fmt: skip


def held(shape: Shape, processes: int, basis: int, v: float, c: float, size: int = 4) -> float:
    """Bytes in a process."""
    return size * (basis + 1 + v) * shape.all / processes + 2 * size * (shape.root + shape.block) + c


def _objective(width: int, depth: int) -> ls.ShardedObjective:
    """A network, sharded, with one sequence for each process."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = initialised(lambda: GPT(WORDS, TOKENS, width, depth, HEADS))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    text = torch.randint(0, WORDS, (dist.get_world_size(), TOKENS + 1), generator=torch.Generator().manual_seed(0))
    batches = [(row[None, :-1].contiguous(), row[None, 1:].contiguous()) for row in text]
    return ls.ShardedObjective(model, nn.CrossEntropyLoss(), batches, step=0.1)


def _peak_of_lanczos(width: int, depth: int) -> dict[str, Any]:
    """Peak of a Lanczos run with a full basis, beyond what the libraries take, the most of any process."""
    import torch.distributed as dist

    small = _objective(32, 1)
    small.hvp(small.theta)  # libraries are loaded
    del small
    before = memory_status("VmRSS")
    objective = _objective(width, depth)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the whole network
    found = objective.eigenpairs(basis_size=BASIS, tol=1e-9, max_matvecs=BASIS + 4)
    took = torch.tensor(float(memory_status("VmHWM") - before))
    dist.all_reduce(took, dist.ReduceOp.MAX)
    return {"peak": int(took), "weights": objective.dim, "products": found.matvecs}


def _products(sizes: list[tuple[int, int]], rounds: int) -> dict[str, Any]:
    """Collectives of a product of each network, and the seconds of products that take turns."""
    import torch.distributed as dist

    objectives = [_objective(*size) for size in sizes]
    vectors = [torch.randn_like(o.theta) for o in objectives]
    counts, times, work = [], [list[float]() for _ in sizes], [list[float]() for _ in sizes]
    for objective, v in zip(objectives, vectors, strict=True):
        objective.hvp(v)
        with Counted() as counted:
            objective.hvp(v)
        part = (dist.get_world_size() - 1) / dist.get_world_size()  # of a whole tensor, what the others have
        large = sum(n for name, n in counted.bytes.items() if name != "allreduce")
        counts.append({"calls": dict(counted.calls), "bytes in": int(large * part)})
    for _ in range(rounds):
        for i, (objective, v) in enumerate(zip(objectives, vectors, strict=True)):
            dist.barrier()
            started, used = time.perf_counter(), time.process_time()
            objective.hvp(v)
            dist.barrier()
            times[i].append(time.perf_counter() - started)
            work[i].append(time.process_time() - used)
    return {"counted": counts, "seconds": times, "processor": work}


def work(asked: argparse.Namespace) -> None:
    """The part of one process under torchrun."""
    import torch.distributed as dist

    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    kind, path = asked.work
    sizes = [(width // asked.shrink, depth) for width, depth in SIZES]
    found = _products(sizes, asked.rounds) if kind == "products" else _peak_of_lanczos(*sizes[int(kind)])
    if dist.get_rank() == 0:
        Path(path).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def run(kind: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One run under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        words = ["--work", kind, str(path), "--rounds", str(asked.rounds), "--shrink", str(asked.shrink)]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.sharded_plan", *words]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All runs, the constants from all sizes but the last, and the last one's prediction."""
    load = os.getloadavg()[0]
    shapes = [shape_of(width // asked.shrink, depth) for width, depth in SIZES]
    peaks = [run(str(i), asked) for i in range(len(SIZES))]
    products = run("products", asked)
    rows = []
    for shape, peak, counted, seconds, used in zip(
        shapes, peaks, products["counted"], products["seconds"], products["processor"], strict=True
    ):
        rows.append({
            "shape": shape._asdict(), "peak": peak["peak"], "counted": counted, "formula": collectives(shape, PROCESSES),
            "seconds": statistics.median(seconds), "processor": statistics.median(used), "all seconds": seconds,
        })  # fmt: skip
    known = range(len(SIZES) - 1)
    left = [rows[i]["peak"] - held(shapes[i], PROCESSES, BASIS, 0.0, 0.0) for i in known]
    v, c = np.linalg.solve([[4 * shapes[i].all / PROCESSES, 1.0] for i in known], left).tolist()
    last = shapes[-1]
    predicted = {"peak": held(last, PROCESSES, BASIS, v, c)}
    for kind in ("seconds", "processor"):
        system = [[shapes[i].all, shapes[i].depth + 1] for i in known]
        p, q = np.linalg.solve(system, [rows[i][kind] for i in known]).tolist()
        predicted[kind] = p * last.all + q * (last.depth + 1)
    return {
        "schema": 1, "landscape": ls.__version__, "torch": torch.__version__, "machine": machine(), "load before": load,
        "load after": os.getloadavg()[0], "processes": PROCESSES, "basis": BASIS, "tokens": TOKENS, "rows": rows,
        "vectors": v, "constant": c, "predicted": predicted,
        "predicted / measured": {kind: value / rows[-1][kind] for kind, value in predicted.items()},
        "table": table(v),
    }  # fmt: skip


def table(v: float) -> list[dict[str, Any]]:
    """Of each published shape: the least power of two of GPUs that hold it, bytes, collectives, hours."""
    out = []
    for name, numbers in PUBLISHED.items():
        shape, n = published(*numbers), 2
        while held(shape, n, BASIS, v, 0.0) > 0.75 * GPU["memory"]:  # a quarter is left for activations
            n *= 2
        calls = collectives(shape, n)
        tokens = n * GPU["tokens of a batch"]
        arithmetic = 2 * 6 * shape.all * tokens / n / GPU["flops"]
        moving = calls["bytes"] / GPU["bytes a second"]
        out.append({
            "model": name, "weights": shape.all, "processes": n, "held": held(shape, n, BASIS, v, 0.0), **calls,
            "tokens": tokens, "arithmetic": arithmetic, "moving": moving,
            "hours": {what: k * (arithmetic + moving) / 3600 for what, k in PRODUCTS.items()},
        })  # fmt: skip
    return out


def page(document: dict[str, Any]) -> str:
    """The page of the documentation."""
    rows, ratio = document["rows"], document["predicted / measured"]
    small, large = rows[0]["shape"]["all"] / 1e6, rows[-1]["shape"]["all"] / 1e6
    exact = all(
        _same(row["counted"]["calls"], row["formula"]) and row["counted"]["bytes in"] == row["formula"]["bytes"] for row in rows
    )
    assert exact, "the counted collectives are not those of the formula"
    head = ("weights", "processes", "bytes in each", "tokens", "collectives a product", "bytes into each", "seconds a product")
    head += tuple(f"{what} ({k} products)" for what, k in PRODUCTS.items())
    body = "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *map(_line, document["table"])])
    lead = __doc__.split("\n\n")
    formulas = lead[3]
    gpu, n, m, tokens = GPU, document["processes"], document["basis"], document["tokens"]
    return f"""# What 7 and 70 billion weights take

<!-- made by python -m benchmarks.sharded_plan -->
`ls.ShardedObjective` (see [memory and processes](../memory-and-processes.md)) has not run at these sizes. This is its cost by
formula.

{lead[2].strip()}

```text
{formulas.rstrip()}
```

Checked by `python -m benchmarks.sharded_plan` on {n} gloo processes, with GPTs of {small:.1f} to {large:.1f} million
weights, one batch of {tokens} tokens for each process and m = {m}:

- Collectives and their bytes are those of the formulas, at all three sizes.
- Memory: two sizes give v = {document["vectors"]:.1f}, with what of the activations grows with P here; the
  third takes {1 / ratio["peak"]:.2f} times the prediction.
- Seconds, predicted from the other two sizes: the third takes {1 / ratio["seconds"]:.2f} times the prediction by the clock, and
  {1 / ratio["processor"]:.2f} times by processor time. The load of the machine was {document["load before"]:.1f} before and
  {document["load after"]:.1f} after the runs, on {document["machine"]["cores"]} cores.

The same formulas for the shapes of Llama 2, in float32, with m = {m} and one sequence of
{gpu["tokens of a batch"]:,} tokens for each process. **Assumed, not measured:** {gpu["flops"] / 1e12:.0f}e12 operations
a second on each GPU and {gpu["bytes a second"] / 1e9:.0f}e9 bytes a second into it, neither hiding the other;
{gpu["memory"] / 1e9:.0f}e9 bytes of memory, of which a quarter is left for the activations of the training step. Those are
not counted, nor is c. A product takes 12 P operations a token and the bytes of the formula.

{body}

Collectives are all-gathers, reduce-scatters and all-reduces.

All this is for products by differences of gradients. An exact product (`method="auto"` takes them where it can) has on a graph
that is kept 2 L + 1 all-gathers, 2 L + 1 reduce-scatters and one all-reduce. Its bytes into a process are
b (5 (P - E) + 2 E) (n - 1) / n: of the blocks weights twice, the vector once and two sums, of the root the vector and a sum.
Its time and memory beside those of differences: [memory and
processes](../memory-and-processes.md#weights-that-do-not-fit-one-process).
"""


def _same(calls: dict[str, int], formula: dict[str, int]) -> bool:
    """Whether the counted calls are those of the formula."""
    return {
        name: sum(n for call, n in calls.items() if name in call) for name in ("allgather", "reduce_scatter", "allreduce")
    } == {name: formula[name] for name in ("allgather", "reduce_scatter", "allreduce")}


def _line(row: dict[str, Any]) -> str:
    """A row of the page's table."""
    calls = f"{row['allgather']}, {row['reduce_scatter']}, {row['allreduce']}"
    hours = " | ".join(f"{h:.2g} h" for h in row["hours"].values())
    seconds = f"{row['arithmetic'] + row['moving']:.0f} ({row['arithmetic']:.0f} arithmetic)"
    return (
        f"| {row['weights'] / 1e9:.2f}e9 | {row['processes']} | {row['held'] / 1e9:.0f}e9 | {row['tokens']:,} | {calls} | "
        f"{row['bytes'] / 1e9:.0f}e9 | {seconds} | {hours} |"
    )


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    if asked.work is not None:
        work(asked)
        return
    if asked.table:
        document = json.loads(asked.out.read_text())
        document["table"] = table(document["vectors"])
    else:
        document = measure(asked)
    write(document, asked.out)
    asked.page.write_text(page(document))
    print(f"predicted / measured: {document['predicted / measured']}; wrote {asked.out}, {asked.page}")


if __name__ == "__main__":
    main()
