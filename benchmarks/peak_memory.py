"""Peak memory of whole processes, beside peers and within `--memory`: `python -m benchmarks.peak_memory`.

Beside peers: the first eigenvalue and the trace of ResNet-20 on 5,085 images, by us, PyHessian and hessian-eigenthings; a peak
stands after the first products, so all make few. Every run is a process of its own, whose peak is read from the system:
interpreter, libraries, data and all. Within a budget: what a process takes beyond the libraries that it has imported for the
usual measures, for every network of the benchmark and several budgets. No second is measured.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import landscape as ls
from benchmarks.cases import BATCH, Case
from benchmarks.networks import NETWORKS, trained
from benchmarks.peers import versions
from benchmarks.record import OURS, ROOT, machine, memory_status, peak_memory, write
from landscape.machine.memory import parsed
from landscape.machine.sizes import said

RESULT = ROOT / "benchmarks" / "results" / "peak_memory.json"
SAMPLES = 5_085
BUDGETS, FEW = ("256MiB", "512MiB", "1GiB", "2GiB"), 128
PRODUCTS = 4  # for each of the two numbers
WHOLE = ", all samples at once"
USUAL = f"{OURS}, usual measures"
PARTS = ("beside peers", "within a budget")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak_memory", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, help="in all runs; default: 5,085 beside peers, 128 within budgets")
    parser.add_argument("--rounds", type=int, default=1, help="runs of every tool beside peers (1)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=4, metavar=("TOOL", "NETWORK", "SAMPLES", "MEMORY"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def data_of(name: str, samples: int) -> Case:
    """A network on its own samples, repeated where more are asked than there are: memory depends on their shape."""
    case = Case.of(name)
    rows = torch.arange(samples) % case.samples
    return replace(case, x=case.x[rows], y=case.y[rows])


def ours(case: Case, memory: str) -> None:
    """Lanczos and Hutchinson."""
    objective = _objective(case, memory)
    ls.eigenpairs(objective, 1, max_matvecs=PRODUCTS)
    ls.trace(objective, probes=PRODUCTS)


def usual_measures(case: Case, memory: str) -> None:
    """What `landscape sharpness` computes."""
    ls.sharpness(_objective(case, memory))


def eigenthings(case: Case, memory: str) -> None:
    """Lanczos and Hutchinson, the data in batches."""
    from hessian_eigenthings.algorithms import lanczos, trace
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators import HessianOperator

    operator = HessianOperator(case.model, _batches(case), supervised_loss(case.loss))
    lanczos(operator, k=1, max_iter=PRODUCTS, seed=0)
    trace(operator, num_matvecs=PRODUCTS, method="hutchinson", seed=0)


def pyhessian(case: Case, memory: str) -> None:
    """Power iteration and Hutchinson, the data in batches."""
    import pyhessian

    found = pyhessian.hessian(case.model, case.loss, dataloader=_batches(case), cuda=False)
    found.eigenvalues(maxIter=PRODUCTS, top_n=1)
    found.trace(maxIter=PRODUCTS)


def pyhessian_whole(case: Case, memory: str) -> None:
    """The same with all samples as one batch, which keeps its graph: the faster of its two ways."""
    import pyhessian

    found = pyhessian.hessian(case.model, case.loss, data=(case.x, case.y), cuda=False)
    found.eigenvalues(maxIter=PRODUCTS, top_n=1)
    found.trace(maxIter=PRODUCTS)


PEERS: dict[str, Callable[[Case, str], None]] = {
    "hessian-eigenthings": eigenthings,
    "PyHessian": pyhessian,
    f"PyHessian{WHOLE}": pyhessian_whole,
}
TOOLS: dict[str, Callable[[Case, str], None]] = {OURS: ours, USUAL: usual_measures, **PEERS}


def _objective(case: Case, memory: str) -> ls.Objective:
    """With the budget that `--memory` has, or what is taken without it."""
    return ls.Objective(case.model, case.loss, (case.x, case.y), memory=None if memory == "default" else parsed(memory))


def _batches(case: Case) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(case.x.split(BATCH), case.y.split(BATCH), strict=True))


def one(tool: str, network: str, samples: int, memory: str) -> dict[str, int]:
    """One run: bytes with the libraries alone, and at the most."""
    libraries = memory_status("VmRSS")
    TOOLS[tool](data_of(network, samples), memory)
    return {"libraries": libraries, "peak": peak_memory()}


def run(tool: str, network: str, samples: int, memory: str = "default") -> dict[str, Any]:
    """`one` in a process of its own; {"failure": ...} with its last line if it fails."""
    words = ["--one", tool, network, str(samples), memory]
    done = subprocess.run([sys.executable, "-m", "benchmarks.peak_memory", *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Both tables: beside peers, where ResNet-20 is asked for, and within budgets."""
    beside, within = [], []
    if "resnet20" in asked.networks and PARTS[0] in asked.parts:
        samples = asked.samples or SAMPLES
        for tool, memory in ((OURS, "default"), (OURS, "1GiB"), (OURS, "512MiB"), *((peer, "default") for peer in PEERS)):
            found = [run(tool, "resnet20", samples, memory) for _ in range(asked.rounds)]
            beside.append(_row("resnet20", tool, memory, samples, found))
    for name in asked.networks if PARTS[1] in asked.parts else ():
        samples = asked.samples or min(FEW, len(trained(name)[1]))
        for memory in BUDGETS:
            within.append(_row(name, USUAL, memory, samples, [run(USUAL, name, samples, memory)]))
    return {"schema": 1, "landscape": ls.__version__, "machine": machine(), "versions": versions(), "rounds": asked.rounds,
            "beside peers": beside, "within a budget": within}  # fmt: skip


def _row(network: str, tool: str, memory: str, samples: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest of some runs, or the failure of one; said on one line."""
    row: dict[str, Any] = {"network": network, "tool": tool, "memory": memory, "samples": samples}
    failure = next((f["failure"] for f in found if "failure" in f), None)
    if failure is None:
        largest = max(found, key=lambda f: f["peak"])
        row |= largest | {"peaks": [f["peak"] for f in found], "beyond libraries": largest["peak"] - largest["libraries"]}
        if memory != "default":
            row["share of budget"] = row["beyond libraries"] / parsed(memory)
        told = f"peak {said(row['peak'])}, beyond libraries {said(row['beyond libraries'])}"
    else:
        row["failure"] = told = failure
    print(f"{network:9} {tool:28} {memory:8} {told}", flush=True)
    return row


def memory_table(document: dict[str, Any]) -> str:
    """Both tables as one: peaks of processes, and what of it is beyond the libraries."""
    lines = [
        "| network | samples | tool | `--memory` | peak | beyond libraries | of the budget |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in (row for part in PARTS for row in document[part]):
        memory = "–" if r["memory"] == "default" else r["memory"]
        share = f"{r['share of budget']:.0%}" if "share of budget" in r else "–"
        sizes = (
            [said(r["peak"]), said(r["beyond libraries"]), share]
            if "peak" in r
            else [r["failure"].partition(": ")[0], "–", "–"]
        )
        lines.append(f"| {' | '.join([r['network'], format(r['samples'], ','), r['tool'], memory, *sizes])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    if asked.one is not None:
        tool, network, samples, memory = asked.one
        print(json.dumps(one(tool, network, int(samples), memory)))
        return
    write(measure(asked), asked.out)
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
