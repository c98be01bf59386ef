"""How the cost of a product and of ten eigenpairs grows with weights, samples and processes: `python -m benchmarks.scaling`.

Every process has one thread, so that two of them have twice the hardware of one and nothing else changes. Runs with 1, 2, ...
processes take turns, so that a busy minute of the machine falls on all of them; the figure shows medians. Each run is a
program of its own under torchrun, and says itself what a product took once all its processes stood at the start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

import landscape as ls
from benchmarks.record import ROOT, machine
from landscape.machine.torchrun import joined, local_gpu
from landscape.report import save
from landscape.report.style import CATEGORIES, GREY, MARKERS, house, log_axis, new_figure, settle

RESULT, FIGURE = ROOT / "benchmarks" / "results" / "scaling.json", ROOT / "figures" / "scaling.png"
_PAIRS = 10
Rows = list[dict[str, Any]]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32], help="channels of the first layer (8 16 32)")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 128, 256, 512], help="(64 128 256 512)")
    parser.add_argument("--width", type=int, default=16, help="of the network whose samples vary (16)")
    parser.add_argument("--size", type=int, default=128, help="samples of the networks whose weights vary (128)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="(1 2)")
    parser.add_argument("--rounds", type=int, default=2, help="runs with each number of processes (2)")
    parser.add_argument("--products", type=int, default=9, help="timed in each run (9)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def network(width: int) -> nn.Module:
    """Three convolutions and a linear layer for 16 x 16 images: nearly all of its cost is in products of matrices."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip


def measured(options: argparse.Namespace) -> Rows:
    """In every process: all networks and sizes, one after another."""
    device = f"cuda:{local_gpu()}" if options.device == "cuda" else options.device
    rows: Rows = []
    with joined() as group:
        for width, samples in jobs(options):
            generator = torch.Generator().manual_seed(1)
            x = torch.randn(samples, 3, 16, 16, generator=generator)
            y = torch.randint(0, 10, (samples,), generator=generator)
            objective = ls.Objective(network(width), nn.CrossEntropyLoss(), (x, y), device=device)
            v = torch.randn(objective.dim, generator=generator).to(objective.theta)
            objective.hvp(v)  # chooses the way, and builds what later products share
            seconds = []
            for _ in range(options.products):
                group.everyone(None)
                seconds.append(_seconds(lambda o=objective, v=v: o.hvp(v)))
            group.everyone(None)
            found: list[Any] = []
            whole = _seconds(lambda o=objective, f=found: f.append(ls.eigenpairs(o, k=_PAIRS)))
            rows.append(
                {
                    "processes": group.size, "width": width, "weights": objective.dim, "samples": samples,
                    "product": seconds, "eigenpairs": whole, "products_of_eigenpairs": found[0].matvecs,
                    "converged": bool(found[0].converged.all()),
                }
            )  # fmt: skip
    return rows


def jobs(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Width and samples of every measurement."""
    return list(dict.fromkeys([(w, options.size) for w in options.widths] + [(options.width, n) for n in options.samples]))


def _seconds(work: Any) -> float:
    """What it takes; a GPU is waited for."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run(options: argparse.Namespace, processes: int, words: list[str]) -> Rows:
    """One run of its own: plain Python for one process, torchrun for more."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, *launcher, "-m", "benchmarks.scaling", *words, "--work", str(path)]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(path.read_text())


def summed(rows: Rows) -> Rows:
    """The runs of each measurement put together: medians."""
    out = []
    for key in dict.fromkeys((r["processes"], r["weights"], r["samples"]) for r in rows):
        same = [r for r in rows if (r["processes"], r["weights"], r["samples"]) == key]
        product = float(np.median([s for r in same for s in r["product"]]))
        out.append(
            {
                "processes": key[0], "weights": key[1], "samples": key[2], "runs": len(same),
                "product": product, "eigenpairs": float(np.median([r["eigenpairs"] for r in same])),
                "products_of_eigenpairs": same[0]["products_of_eigenpairs"], "converged": all(r["converged"] for r in same),
            }
        )  # fmt: skip
    return out


@house
def draw(document: dict[str, Any], path: Path) -> None:
    """Three panels: seconds over weights, seconds over samples, and how many times faster more processes are."""
    rows: Rows = document["rows"]
    figure = new_figure(9.6, 3.7)
    axes = [figure.add_subplot(1, 3, i) for i in (1, 2, 3)]
    fixed = document["size"], document["weights"]
    lines = _growth(axes[0], [r for r in rows if r["samples"] == fixed[0]], "weights", f"Weights, {fixed[0]} samples")
    _growth(axes[1], [r for r in rows if r["weights"] == fixed[1]], "samples", f"Samples, {fixed[1]:,} weights")
    lines += _speed(axes[2], rows)
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines) // 2 + len(lines) % 2, handlelength=3.2)
    settle(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path, formats=("png",))


def _growth(ax: Axes, rows: Rows, what: str, title: str) -> list[Any]:
    """Seconds of a product and of ten eigenpairs, a line for each number of processes."""
    lines = []
    for i, processes in enumerate(dict.fromkeys(r["processes"] for r in rows)):
        mine = sorted((r for r in rows if r["processes"] == processes), key=lambda r: r[what])
        for quantity, style, name in (("eigenpairs", "-", "ten eigenpairs"), ("product", "--", "one product")):
            label = f"{name}, {processes} process{'es' * (processes > 1)}"
            x, y = [r[what] for r in mine], [r[quantity] for r in mine]
            lines += ax.plot(x, y, style, color=CATEGORIES[i], marker=MARKERS[i], label=label, markersize=4)
    seconds = [r[q] for r in rows for q in ("product", "eigenpairs")]
    log_axis(ax, "x", min(r[what] for r in rows) / 1.3, max(r[what] for r in rows) * 1.3)
    log_axis(ax, "y", min(seconds) / 2, max(seconds) * 2)
    ax.set_xlabel(what)
    ax.set_ylabel("seconds")
    ax.set_title(title)
    return lines


def _speed(ax: Axes, rows: Rows) -> list[Any]:
    """Times as fast as one process, at the job that takes longest."""
    one = {(r["weights"], r["samples"]): r for r in rows if r["processes"] == 1}
    counts = sorted({r["processes"] for r in rows})
    largest = max(one, key=lambda key: one[key]["product"], default=None)
    if largest is None:
        return []
    lines = []
    for i, (quantity, name) in enumerate((("eigenpairs", "ten eigenpairs, speed"), ("product", "one product, speed"))):
        there = {r["processes"]: r for r in rows if (r["weights"], r["samples"]) == largest}
        y = [one[largest][quantity] / there[n][quantity] for n in counts if n in there]
        lines += ax.plot([n for n in counts if n in there], y, color=CATEGORIES[2 + i], marker=MARKERS[2 + i], label=name)
    lines += ax.plot(counts, counts, ":", color=GREY, label="as many times as processes")
    ax.set_xticks(counts)
    ax.set_ylim(0, None)
    ax.set_xlabel("processes, one thread each")
    ax.set_ylabel("times as fast as one")
    ax.set_title(f"{largest[0]:,} weights, {largest[1]} samples")
    return lines


def main(words: list[str] | None = None) -> None:
    """All runs, the JSON and the figure; or, inside a run, its rows."""
    words = sys.argv[1:] if words is None else words
    options = arguments(words)
    if options.work is not None:
        torch.set_num_threads(1)
        rows = measured(options)
        if int(os.environ.get("RANK", "0")) == 0:
            options.work.write_text(json.dumps(rows))
        return
    started, before, rows = time.perf_counter(), machine(), []
    for _ in range(options.rounds):
        for processes in options.processes:
            rows += run(options, processes, words)
    weights = sum(p.numel() for p in network(options.width).parameters())
    document = {"machine": before | {"threads": 1}, "size": options.size, "weights": weights, "rows": summed(rows)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    draw(document, options.figure)
    for r in document["rows"]:
        print(
            f"{r['processes']} process{'es' * (r['processes'] > 1):2} {r['weights']:>9,} weights {r['samples']:>6} samples: "
            f"product {1000 * r['product']:8.1f} ms, ten eigenpairs {r['eigenpairs']:7.2f} s "
            f"({r['products_of_eigenpairs']} products)"
        )
    print(f"{time.perf_counter() - started:.0f} s; wrote {options.out} and {options.figure}")


if __name__ == "__main__":
    main()
