"""What a trace to an accuracy costs beside the peers, by network, samples and accuracy: `python -m benchmarks.trace_accuracy`.

A peer's trace of 1,024 images to 1 % takes hours here, so its time is counted: the products that its best estimator needs, from
the spread that its samples have on the benchmark's own number of samples (`benchmarks.peers.plan`), times the seconds of one
of its products, measured beside ours in this run on at most 128 samples and scaled to their number: processor seconds of one
thread, on which other programs have little effect. Where Hutch++ and XTrace need more vectors than were looked at (160 of a
kind, 24 for 5 %), they count as needing just these, and the ratio is a lower bound, unless Hutchinson's number is smaller. Ours
is the whole call on a new Objective, with the checks that come before its first product and the choice of its method: the
median of three runs of one seed, or the first if it is long. The ratio is to the fastest peer. Results are kept by processor,
in `results/trace_accuracy`.
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
from benchmarks.peers import CURVATURE
from benchmarks.peers.plan import Plan, planned
from benchmarks.peers.session import Session
from benchmarks.record import OURS, ROOT, file_name, machine, processor, write

FOLDER = ROOT / "benchmarks" / "results" / "trace_accuracy"
# Seconds of a call above which it is not repeated.
_LONG = 15.0
# Vectors of each kind that the peers' needs are found from; and where fewer suffice.
_WIDE, _NARROW, _ROUGH = 160, 24, 0.05


def seconds(work: Callable[[], Any], rounds: int = 3) -> tuple[float, Any]:
    """Median processor seconds of a few rounds, and what the last one returned; other programs do not count."""
    times, found = list[float](), None
    while len(times) < rounds and (not times or times[-1] < _LONG):
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
        accuracy: planned(
            small.hvp,
            small.dim,
            accuracy,
            width=_NARROW if accuracy >= _ROUGH else _WIDE,
            generator=torch.Generator().manual_seed(7),
        )
        for accuracy in accuracies
    }
    few = whole.first(BATCH)
    each = products(few)
    for n in dict.fromkeys(len(whole.first(n or own.samples).x) for n in samples):
        case = whole.first(n)
        objective = ls.Objective(case.model, case.loss, case.batches())
        checks, _ = seconds(objective.preflight, 1)
        forward, _ = seconds(objective.value)
        for accuracy in accuracies:
            ours, found = seconds(
                lambda c=case, a=accuracy: ls.trace(
                    ls.Objective(c.model, c.loss, c.batches()), relative_error=a, generator=torch.Generator().manual_seed(0)
                )
            )
            plan = plans[accuracy]
            theirs = {name: s * case.samples / few.samples * needed(name, plan)[1] for name, s in each.items()}
            best = min(theirs, key=lambda name: theirs[name])
            way, count, least = needed(best, plan)
            low, high = found.interval() or (found.value, found.value)
            rows.append({
                "network": name, "title": whole.title, "trained": not fresh, "samples": case.samples, "accuracy": accuracy,
                "value": found.value, "half_width": (high - low) / 2 / abs(found.value), "how": found.reason,
                "converged": found.converged, "seconds": ours, "forward": forward, "checks": checks, "peer": best, "way": way,
                "products": count, "at_least": least, "peers_seconds": theirs, "ratio": theirs[best] / ours,
            })  # fmt: skip
            r = rows[-1]
            print(
                f"{name:9}{'' if r['trained'] else ' fresh'} N={case.samples:5} ±{accuracy:.0%}: {ours:.3g} s"
                f" ({ours / forward:.2g} forward passes), {'at least ' * least}{r['ratio']:.3g} x as fast as {best},"
                f" {way}, {count}; {r['how']}",
                flush=True,
            )
    return rows


def products(case: Case) -> dict[str, float]:
    """Seconds of one product of every peer that is there."""
    v, found = torch.randn(4, case.weights, generator=torch.Generator().manual_seed(0)), {}
    for tool in CURVATURE:
        if tool.name == OURS or tool.version is None:
            continue
        with at_work():
            session: Session = tool.open()(case)
            session.ready()
            took, _ = seconds(lambda s=session: s.many(v))
        found[tool.name] = took / len(v)
    return found


def needed(peer: str, plan: Plan) -> tuple[str, int, bool]:
    """The estimator of a peer that takes fewest products, how many, and whether it may need more."""
    width = plan.products // 3
    counts = {"hutchinson": (plan.hutchinson, False)}
    if peer in ("curvlinops", "hessian-eigenthings"):
        counts["hutch++"] = (plan.hutchpp or 3 * width, plan.hutchpp is None)
    if peer in ("curvlinops", "matfree"):
        counts["xtrace"] = (plan.xtrace or 2 * width, plan.xtrace is None)
    best = min(counts, key=lambda c: counts[c])
    return best, *counts[best]


def accuracy_table(documents: list[dict[str, Any]]) -> str:
    """Every network, number of samples and accuracy on every processor."""
    lines = [
        "| processor | network | samples | accuracy | ours | fastest peer | ratio | how |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for document in documents:
        for r in document["rows"]:
            bound = "≥ " if r["at_least"] else ""
            products = f"{bound}{r['products']:,} products: {bound}{r['peers_seconds'][r['peer']]:.2g} s"
            reached = "" if r["converged"] else f", not reached: ±{r['half_width']:.1%}"
            lines.append(
                f"| {document['machine']['processor']} | {r['title']}{'' if r['trained'] else ', untrained'} |"
                f" {r['samples']:,} |"
                f" ±{r['accuracy']:.0%}{reached} | {r['seconds']:.2g} s | {r['peer']}, {r['way']}, {products}"
                f" | {bound}{r['ratio']:.2g} | {r['how']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_accuracy")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--samples", nargs="+", type=int, default=[0, 1024], help="0 for the benchmark's own number")
    parser.add_argument("--accuracies", nargs="+", type=float, default=[0.05, 0.01])
    parser.add_argument("--fresh", action="store_true", help="networks as initialised")
    parser.add_argument("--out", type=Path, default=FOLDER / f"{file_name(processor())}.json")
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
