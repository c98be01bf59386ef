"""What a trace to an accuracy costs beside curvlinops, by network, samples and accuracy: `python -m benchmarks.trace_accuracy`.

A peer's trace of 1,024 images to 1 % takes hours here, so its time is counted: the products that its best estimator needs, from
the spread that its samples have on the benchmark's own number of samples (`benchmarks.peers.plan`), times the seconds of one of
its products, measured beside ours in this run on at most 128 samples and scaled to their number: processor seconds of one
thread, on which other programs have little effect. Where more than 48 products of
Hutch++ and XTrace would be needed, Hutchinson's number stands. Ours is the whole call on a new Objective, with the checks that
come before its first product and the choice of its method: the median of three runs of one seed.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import landscape as ls
from benchmarks.cases import BATCH, Case
from benchmarks.networks import NETWORKS
from benchmarks.parts import SIZES
from benchmarks.parts.tools import at_work
from benchmarks.peers.linear_operators import Curvlinops
from benchmarks.peers.plan import planned
from benchmarks.record import ROOT, machine, write

OUT = ROOT / "benchmarks" / "results" / "trace_accuracy.json"


def seconds(work: Callable[[], Any], rounds: int = 3) -> tuple[float, Any]:
    """Median processor seconds of a few rounds, and what the last one returned; other programs do not count."""
    times, found = [], None
    for _ in range(rounds):
        started = time.process_time()
        found = work()
        times.append(time.process_time() - started)
    return float(np.median(times)), found


def compare(name: str, samples: list[int], accuracies: list[float], fresh: bool) -> list[dict[str, Any]]:
    """Rows of one network, trained or as initialised."""
    whole = Case.of(name)
    if fresh:
        whole = replace(whole, model=NETWORKS[name][0]().eval())
    own = whole.first(SIZES["trace"][name])
    small = ls.Objective(own.model, own.loss, own.batches())
    rows = []
    plans = {
        accuracy: planned(small.hvp, small.dim, accuracy, width=24, generator=torch.Generator().manual_seed(7))
        for accuracy in accuracies
    }
    for n in dict.fromkeys(len(whole.first(n or own.samples).x) for n in samples):
        case = whole.first(n)
        objective = ls.Objective(case.model, case.loss, case.batches())
        checks, _ = seconds(objective.preflight, 1)
        few = case.first(BATCH)
        peer = Curvlinops(few)
        v = torch.randn(2, case.weights, generator=torch.Generator().manual_seed(0))
        forward, _ = seconds(objective.value)
        for accuracy in accuracies:
            ours, found = seconds(
                lambda c=case, a=accuracy: ls.trace(
                    ls.Objective(c.model, c.loss, c.batches()), relative_error=a, generator=torch.Generator().manual_seed(0)
                )
            )
            with at_work():
                each, _ = seconds(lambda p=peer, v=v: p.many(v))
            plan = plans[accuracy]
            counts = {"hutchinson": plan.hutchinson, "hutch++": plan.hutchpp, "xtrace": plan.xtrace}
            best = min(counts, key=lambda c: counts[c] or np.inf)
            theirs = each / len(v) * case.samples / few.samples * float(counts[best] or 0)
            low, high = found.interval() or (found.value, found.value)
            rows.append({
                "network": name, "trained": not fresh, "samples": case.samples, "accuracy": accuracy, "value": found.value,
                "half_width": (high - low) / 2 / abs(found.value), "how": found.reason, "converged": found.converged,
                "seconds": ours, "forward": forward, "checks": checks, "peer": best, "products": counts[best],
                "peer_seconds": theirs, "ratio": theirs / ours,
            })  # fmt: skip
            r = rows[-1]
            print(
                f"{name:9}{'' if r['trained'] else ' fresh'} N={case.samples:5} ±{accuracy:.0%}: {ours:.3g} s"
                f" ({ours / forward:.2g} forward passes), {r['ratio']:.3g} x as fast as {best} with {counts[best]}; {r['how']}",
                flush=True,
            )
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_accuracy")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--samples", nargs="+", type=int, default=[0, 1024], help="0 for the benchmark's own number")
    parser.add_argument("--accuracies", nargs="+", type=float, default=[0.05, 0.01])
    parser.add_argument("--fresh", action="store_true", help="networks as initialised")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    document = json.loads(asked.out.read_text()) if asked.out.exists() else {"schema": 1, "machine": machine(), "rows": []}
    keys = ("network", "trained", "samples", "accuracy")
    for name in asked.networks:
        rows = compare(name, asked.samples, asked.accuracies, asked.fresh)
        again = {tuple(r[k] for k in keys) for r in rows}
        document["rows"] = [r for r in document["rows"] if tuple(r[k] for k in keys) not in again] + rows
        write(document, asked.out)


if __name__ == "__main__":
    main()
