"""How OpenMP's threads should wait for one another: `python -m benchmarks.waiting_threads`.

A product of each network with one thread, and with two that wait awake (GNU OpenMP's own 300,000 turns of a loop), asleep at
once (OMP_WAIT_POLICY=PASSIVE), or awake for a moment, as the command line has it: on the machine as it is, and beside a program
that computes with two threads of its own. GNU OpenMP reads its settings when it is loaded, so every row is a process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import landscape as ls
from benchmarks.cases import Case
from benchmarks.record import ROOT, machine, write

RESULT = ROOT / "benchmarks" / "results" / "waiting_threads.json"
SIZES = {"resnet20": 32, "vit": 32, "gpt": 64, "mlp": 1024}
# Threads and variables of the environment; the last line is what `landscape.cli` sets.
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one thread": (1, {}),
    "two, awake": (2, {}),
    "two, asleep": (2, {"OMP_WAIT_POLICY": "PASSIVE"}),
    "two, awake for a moment": (2, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}),
}
LIMIT = 120.0  # seconds of a process
OTHER = """
import torch
torch.set_num_threads(2)
x, w = torch.randn(64, 16, 32, 32), torch.randn(16, 16, 3, 3)
while True:
    torch.nn.functional.conv2d(x, w, padding=1)
"""


def products(threads: int, rounds: int) -> dict[str, float]:
    """Median seconds of a product of each network."""
    torch.set_num_threads(threads)
    found = {}
    for name, samples in SIZES.items():
        case = Case.of(name).first(samples)
        objective = ls.Objective(case.model, case.loss, case.batches())
        v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(0))
        objective.hvp(v)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            objective.hvp(v)
            times.append(time.perf_counter() - started)
        found[name] = statistics.median(times)
    return found


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """With another program that computes, or without."""
    other = subprocess.Popen([sys.executable, "-c", OTHER], env=clean({})) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def clean(settings: dict[str, str]) -> dict[str, str]:
    """The environment with these settings of OpenMP and no others."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    return kept | settings


def measure(rounds: int) -> list[dict[str, Any]]:
    """One row for each setting, alone and beside another program; "seconds" is None for one that took too long."""
    rows = []
    for busy in (False, True):
        for name, (threads, settings) in SETTINGS.items():
            words = [sys.executable, "-m", "benchmarks.waiting_threads", "--one", str(threads), "--rounds", str(rounds)]
            with beside(busy):
                try:
                    done = subprocess.run(words, env=clean(settings), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
                    found = json.loads(done.stdout)
                except subprocess.TimeoutExpired:
                    found = None
            rows.append({"setting": name, "threads": threads, "variables": settings, "beside": busy, "seconds": found})
            print(f"{name:24} {'beside another' if busy else 'alone':15} {told(found)}", flush=True)
    return rows


def told(seconds: dict[str, float] | None) -> str:
    """Times on one line."""
    if seconds is None:
        return f"more than {LIMIT:.0f} s in all"
    return ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in seconds.items())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting_threads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="products of each network (9)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(products(asked.one, asked.rounds)))
        return
    write(
        {"schema": 1, "machine": machine(), "samples": SIZES, "rounds": asked.rounds, "rows": measure(asked.rounds)}, asked.out
    )


if __name__ == "__main__":
    main()
