"""What eigenvalues to an accuracy cost: lambda_max to 1e-2, ten to 1e-3: `python -m benchmarks.eigenvalue_accuracy`.

An accuracy is max |value - eigenvalue| / lambda_1. Ours is the whole call `eigenpairs(k=, value_tol=)` on a new Objective, with
the checks that come before its first product: it stops by a bound. No peer does. Each is charged the fewest products with which
it has that accuracy, found out for nothing against the eigenvalues to 1e-5, on the benchmark's own number of samples
(`benchmarks.peers.value_counts`), times the seconds of one of its products, measured beside ours in this run on at most 128
samples and scaled to their number: processor seconds of one thread, on which other programs have little effect. Their algebra
between products is left out. Results are kept by processor, in
`results/eigenvalue_accuracy`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import landscape as ls
from benchmarks.cases import BATCH, Case
from benchmarks.networks import NETWORKS
from benchmarks.parts import SIZES
from benchmarks.peers.value_counts import counts
from benchmarks.record import ROOT, file_name, machine, processor, write
from benchmarks.trace_accuracy import products, seconds

FOLDER = ROOT / "benchmarks" / "results" / "eigenvalue_accuracy"
ASKED = ((1, 1e-2), (10, 1e-3))


def compare(name: str, samples: list[int], fresh: bool) -> list[dict[str, Any]]:
    """Rows of one network, trained or as initialised."""
    whole = Case.of(name)
    if fresh:
        whole = replace(whole, model=NETWORKS[name][0]().eval())
    own = whole.first(SIZES["eigen"][name])
    small = ls.Objective(own.model, own.loss, own.batches())
    truth = ls.eigenpairs(small, max(k for k, _ in ASKED), tol=1e-5).values
    needed = {k: counts(small.hvp, small.dim, truth[:k], accuracy) for k, accuracy in ASKED}
    rows = []
    few = whole.first(BATCH)
    each = products(few)
    for n in dict.fromkeys(len(whole.first(n or own.samples).x) for n in samples):
        case = whole.first(n)
        objective = ls.Objective(case.model, case.loss, case.batches())
        checks, _ = seconds(objective.preflight, 1)
        forward, _ = seconds(objective.value)
        for k, accuracy in ASKED:
            ours, found = seconds(
                lambda c=case, k=k, a=accuracy: ls.eigenpairs(ls.Objective(c.model, c.loss, c.batches()), k, value_tol=a)
            )
            again = ls.eigenpairs(small, k, value_tol=accuracy)
            peers = {
                peer: {
                    "way": c.way, "products": c.products, "error": c.error, "at_least": c.at_least,
                    "seconds": c.products * each[peer] * case.samples / few.samples,
                }
                for peer, c in needed[k].items() if peer in each
            }  # fmt: skip
            for peer in peers.values():
                peer["ratio"] = peer["seconds"] / ours
            rows.append({
                "network": name, "title": whole.title, "trained": not fresh, "samples": case.samples, "values": k,
                "accuracy": accuracy, "lambda_max": float(found.values[0]), "seconds": ours, "forward": forward,
                "checks": checks, "products": found.matvecs, "bound": float(found.bounds.max() / found.values[0]),
                "converged": bool(found.converged.all()), "peers": peers,
                "error": float(np.abs(again.values - truth[:k]).max() / truth[0]),
            })  # fmt: skip
            beside = ", ".join(f"{p['ratio']:.3g} x {peer} ({p['products']})" for peer, p in peers.items())
            print(
                f"{name:9}{' fresh' if fresh else ''} N={case.samples:5} {k} to {accuracy:.0e}: {ours:.3g} s"
                f" ({ours / forward:.3g} forward passes, {found.matvecs} products), {beside}; error {rows[-1]['error']:.1e}",
                flush=True,
            )
    return rows


def value_table(documents: list[dict[str, Any]]) -> str:
    """Every network, number of samples and accuracy on every processor."""
    names = list(dict.fromkeys(p for d in documents for r in d["rows"] for p in r["peers"]))
    lines = [
        f"| processor | network | samples | asked | ours | {' | '.join(names)} |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for document in documents:
        for r in document["rows"]:
            asked = f"{'λ_max' if r['values'] == 1 else r['values']} to {r['accuracy']:.0e}".replace("e-0", "e-")
            reached = "" if r["converged"] else ", not reached"
            did = f"{r['seconds']:.2g} s, {r['products']} products; error {r['error']:.0e}"
            cells = []
            for name in names:
                p = r["peers"].get(name)
                bound = "≥ " if p and p["at_least"] else ""
                cells.append(f"{bound}{p['ratio']:.2g} ×; {bound}{p['products']:,} products" if p else "–")
            lines.append(
                f"| {document['machine']['processor']} | {r['title']}{'' if r['trained'] else ', untrained'} |"
                f" {r['samples']:,} | {asked}{reached} | {did} |"
                f" {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eigenvalue_accuracy")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--samples", nargs="+", type=int, default=[0, 1024], help="0 for the benchmark's own number")
    parser.add_argument("--fresh", action="store_true", help="networks as initialised")
    parser.add_argument("--out", type=Path, default=FOLDER / f"{file_name(processor())}.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    document = json.loads(asked.out.read_text()) if asked.out.exists() else {"schema": 1, "machine": machine(), "rows": []}
    keys = ("network", "trained", "samples", "values")
    for name in asked.networks:
        rows = compare(name, asked.samples, asked.fresh)
        again = {tuple(r[k] for k in keys) for r in rows}
        document["rows"] = [r for r in document["rows"] if tuple(r[k] for k in keys) not in again] + rows
        write(document, asked.out)


if __name__ == "__main__":
    main()
