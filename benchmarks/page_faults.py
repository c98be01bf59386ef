"""Why a product's time grows faster than the weights: page faults of one more product, `python -m benchmarks.page_faults`.

Blocks above 32 MiB, the most that glibc keeps in its heap, are mapped anew for every tensor and unmapped after it, so that each
of their pages is cleared and mapped by the kernel when it is first written. Every size is a process of its own, with PyTorch's
usual allocation, and with huge pages (THP_MEM_ALLOC_ENABLE=1).
"""

import argparse
import json
import os
import resource
import subprocess
import sys

import torch
from torch import nn

import landscape as ls
from benchmarks.growth import CLASSES, INPUTS, network, width_of
from benchmarks.record import ROOT

ROUNDS = 3


def measured(width: int, samples: int) -> dict[str, float]:
    """Of one more product: page faults, and processor seconds of the process and of the kernel for it."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, INPUTS, generator=g), torch.randint(0, CLASSES, (samples,), generator=g)
    objective = ls.Objective(network(width), nn.CrossEntropyLoss(), (x, y))
    v = torch.randn(objective.dim, generator=g)
    objective.hvp(v)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(ROUNDS):
        objective.hvp(v)
    after = resource.getrusage(resource.RUSAGE_SELF)
    own, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    return {"weights": objective.dim, "faults": faults / ROUNDS, "own": own / ROUNDS, "kernel": kernel / ROUNDS}


def main() -> None:
    """A line for each size and way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_faults", description=__doc__)
    parser.add_argument("--weights", type=float, nargs="+", default=[1e7, 1e8], help="(1e7 1e8)")
    parser.add_argument("--samples", type=int, default=32, help="(32)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # width of this process
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measured(options.one, options.samples)))
        return
    for weights in options.weights:
        for huge in ("0", "1"):
            command = [sys.executable, "-m", "benchmarks.page_faults", "--samples", str(options.samples)]
            said = subprocess.run(
                [*command, "--one", str(width_of(weights))], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"THP_MEM_ALLOC_ENABLE": huge},
            ).stdout  # fmt: skip
            r = json.loads(said.splitlines()[-1])
            print(
                f"{r['weights']:>11,} weights{', huge pages' if huge == '1' else ''}: {r['faults']:,.0f} page faults, "
                f"{r['own']:.3f} s of its own and {r['kernel']:.3f} s of the kernel's for a product",
                flush=True,
            )


if __name__ == "__main__":
    main()
