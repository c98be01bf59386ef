"""Where the time goes and how far it is from the floor: `python -m benchmarks.profile`.

The floor of any of this work is its products of matrices at the rate that this machine reaches on one large product of
matrices, in the same process. What is above it is shown by kind: what the kernels of products take beyond that rate,
element-wise work, copies, and the steps of Python and of the dispatcher between them.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import landscape as ls
from benchmarks.cases import Case
from benchmarks.networks import NETWORKS
from benchmarks.parts import SIZES
from benchmarks.parts.hvp import gradient
from benchmarks.record import ROOT, machine
from benchmarks.reference import fast_attention
from benchmarks.timing import alternate

RESULT = ROOT / "benchmarks" / "results" / "profile.md"
_SIDE = 2048  # of the large matrices
# Kernels that multiply matrices; all other operators are element-wise work, but for copies and what allocates.
_PRODUCTS = ("convolution", "mm", "linear", "attention", "einsum")
_COPIES = ("copy_", "clone", "contiguous", "cat", "empty", "fill_", "zero_", "resize_", "_to_copy")


def matmul_rate(rounds: int = 9) -> float:
    """Floating-point operations a second of one large product of matrices in float32, the median of some."""
    a, b = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    return 2 * _SIDE**3 / _seconds(lambda: a @ b, rounds)


def profiled(name: str, title: str, work: Callable[[], object], rate: float, rounds: int) -> str:
    """One line of the table."""
    seconds = _seconds(work, rounds)
    with FlopCounterMode(display=False) as counter:
        work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()
        work()
        watched = time.perf_counter() - started
    spent = {"products": 0.0, "copies": 0.0, "others": 0.0}
    for event in seen.key_averages():
        if event.key.startswith("aten::"):
            own = event.key.removeprefix("aten::")
            kind = "products" if any(w in own for w in _PRODUCTS) else "copies" if own in _COPIES else "others"
            spent[kind] += event.self_cpu_time_total / 1e6
    shares = {kind: part / watched for kind, part in spent.items()}
    work_done = counter.get_total_flops()
    shown = [f"{share:.0%}" for share in (*shares.values(), max(1 - sum(shares.values()), 0.0))]
    return (
        f"| {name}: {title} | {1000 * seconds:.3g} ms | {work_done / 1e9:.3g} | {work_done / seconds / 1e9:.0f} "
        f"| {work_done / rate / seconds:.0%} | {' | '.join(shown)} |"
    )


def lines(network: str, samples: int, rate: float, rounds: int) -> list[str]:
    """Gradient, product and point of one network."""
    case = Case.of(network).first(samples)
    objective = ls.Objective(case.model, case.loss, case.batches())
    v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(0))
    name = f"{case.title}, {case.samples} samples"
    with fast_attention():
        first = profiled(name, "gradient, unmodified", gradient(case), rate, rounds)
    return [
        first,
        profiled(name, f"one more product ({objective.method.name})", lambda: objective.hvp(v), rate, rounds),
        profiled(name, "loss and accuracy at a point", objective.evaluate, rate, rounds),
    ]


def _seconds(work: Callable[[], object], rounds: int) -> float:
    """The median of some rounds after a first one."""
    return alternate({"": work}, repeats=rounds, budget=math.inf)[""].median


def main() -> None:
    """The table, printed and written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--samples", type=int, help="default: as the benchmark of products")
    parser.add_argument("--rounds", type=int, default=9, help="timed (9)")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    rate, m = matmul_rate(), machine()
    head = [
        "| | median | GFLOP | GFLOP/s | of the machine's | kernels of products | copies | other operators | steps between |",
        "|---" * 9 + "|",
    ]
    rows = [x for n in asked.networks for x in lines(n, asked.samples or SIZES["hvp"][n], rate, asked.rounds)]
    about = f"{m['threads']} threads of {m['processor']}; a product of {_SIDE} × {_SIDE} matrices: {rate / 1e9:.0f} GFLOP/s."
    text = "\n".join([*head, *rows, "", f"{about} `python -m benchmarks.profile`"]) + "\n"
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text)
    print(text + f"wrote {asked.out}")


if __name__ == "__main__":
    main()
