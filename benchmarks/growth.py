"""How time and memory grow with the weights and with the samples, from 10^4 to 10^8 weights: `python -m benchmarks.growth`.

A ReLU perceptron with four equal hidden layers. Every size is a process of its own, so that its peak memory is its own; what
the process takes before it has a network is subtracted. In theory one more Hessian-vector product, a point of a surface and
λ_max (at an equal number of products) cost a constant plus a multiple of weights x samples, and memory a multiple of weights +
samples x width: slopes of at most 1 in the logarithms. The slope that is printed and drawn is that of the two largest sizes.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import nn

import landscape as ls
from benchmarks.record import ROOT, commit, machine, peak_memory, write
from landscape.report import save
from landscape.report.style import CATEGORIES, GREY, MARKERS, house, log_axis, new_figure, settle

RESULT, FIGURE = ROOT / "benchmarks" / "results" / "growth.json", ROOT / "figures" / "growth.png"
INPUTS, CLASSES, HIDDEN = 64, 10, 4
QUANTITIES = {"product": "one more product", "point": "a point of a surface", "lambda_max": "λ_max to 1e-2"}
Rows = list[dict[str, Any]]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--weights", type=float, nargs="+", default=[1e4, 1e5, 1e6, 1e7, 1e8], help="(1e4 to 1e8)")
    parser.add_argument("--size", type=int, default=32, help="samples of the networks whose weights vary (32)")
    parser.add_argument("--samples", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="(256 to 16384)")
    parser.add_argument("--network", type=float, default=1e5, help="weights of the network whose samples vary (1e5)")
    parser.add_argument("--rounds", type=int, default=5, help="timed repeats of a product and of a point (5)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)  # width and samples of this process
    return parser.parse_args(words)


def width_of(weights: float) -> int:
    """Neurons of each hidden layer, so that the network has about so many weights."""
    a, b = HIDDEN - 1, INPUTS + CLASSES + HIDDEN
    return max(4, round((math.sqrt(b * b + 4 * a * (weights - CLASSES)) - b) / (2 * a)))


def network(width: int) -> nn.Module:
    """Four hidden layers of this width."""
    torch.manual_seed(0)
    sizes = [INPUTS, *[width] * HIDDEN]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def measured(width: int, samples: int, rounds: int) -> dict[str, Any]:
    """Seconds of each quantity, and the peak memory in bytes beyond what the libraries take."""
    before = peak_memory()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, INPUTS, generator=g), torch.randint(0, CLASSES, (samples,), generator=g)
    objective = ls.Objective(network(width), nn.CrossEntropyLoss(), (x, y))
    v = torch.randn(objective.dim, generator=g)
    objective.hvp(v)  # checks, chooses the way, and builds what later products share
    found = {"product": _median(lambda: objective.hvp(v), rounds)}
    memory = peak_memory() - before
    objective.value()
    found["point"] = _median(objective.value, rounds)
    started = time.perf_counter()
    pair = ls.eigenpairs(objective, 1, tol=1e-2)
    found["lambda_max"] = time.perf_counter() - started
    return {
        "weights": objective.dim, "samples": samples, "bytes": memory, "bytes_lambda_max": peak_memory() - before, **found,
        "products": pair.matvecs, "converged": bool(pair.converged.all()),
    }  # fmt: skip


def _median(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def slope(rows: Rows, along: str, quantity: str) -> float:
    """Growth between the two largest sizes, in the logarithms of both."""
    (a, b) = sorted(rows, key=lambda r: r[along])[-2:]
    return math.log(b[quantity] / a[quantity]) / math.log(b[along] / a[along])


@house
def draw(document: dict[str, Any], path: Path) -> None:
    """Four panels: seconds and memory, over weights and over samples; the slope of each line stands at its name."""
    figure = new_figure(8.6, 6.0)
    for i, (along, rows) in enumerate(document["rows"].items()):
        ax = figure.add_subplot(2, 2, i + 1)
        fixed = f"{rows[0]['samples']} samples" if along == "weights" else f"{rows[0]['weights']:,} weights"
        _lines(ax, rows, along, QUANTITIES, "seconds", 1.0)
        ax.set_title(f"Time, {fixed}")
        ax = figure.add_subplot(2, 2, i + 3)
        _lines(ax, rows, along, {"bytes": "products", "bytes_lambda_max": "with λ_max"}, "GiB", 2.0**30)
        ax.set_title(f"Peak memory, {fixed}")
    settle(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path, formats=("png",))


def _lines(ax: Axes, rows: Rows, along: str, quantities: dict[str, str], unit: str, size: float) -> None:
    x = [r[along] for r in rows]
    values = [r[q] / size for r in rows for q in quantities]
    for i, (quantity, name) in enumerate(quantities.items()):
        label = f"{name}: slope {slope(rows, along, quantity):.2f}"
        ax.plot(x, [r[quantity] / size for r in rows], color=CATEGORIES[i], marker=MARKERS[i], markersize=4, label=label)
    last = rows[-1][next(iter(quantities))] / size
    ax.plot([x[0], x[-1]], [last * x[0] / x[-1], last], ":", color=GREY, label="slope 1")
    log_axis(ax, "x", min(x) / 1.3, max(x) * 1.3)
    log_axis(ax, "y", min(values) / 2, max(values) * 30)  # room for the legend
    ax.set_xlabel(along)
    ax.set_ylabel(unit)
    ax.legend(loc="upper left")


def main(words: list[str] | None = None) -> None:
    """All sizes, the JSON and the figure; or, in a size's own process, its row."""
    options = arguments(words)
    if options.one is not None:
        print(json.dumps(measured(*options.one, options.rounds)))
        return
    sizes = {
        "weights": [(width_of(w), options.size) for w in options.weights],
        "samples": [(width_of(options.network), n) for n in options.samples],
    }
    document: dict[str, Any] = {"schema": 1, "commit": commit(), "machine": machine(), "rows": {}}
    for along, jobs in sizes.items():
        rows: Rows = []
        for width, samples in jobs:
            command = [
                sys.executable,
                "-m",
                "benchmarks.growth",
                "--rounds",
                str(options.rounds),
                "--one",
                str(width),
                str(samples),
            ]
            said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(r := json.loads(said.splitlines()[-1]))
            print(
                f"{r['weights']:>11,} weights {r['samples']:>6} samples: product {r['product']:.3g} s, "
                f"point {r['point']:.3g} s, λ_max {r['lambda_max']:.3g} s with {r['products']} products, "
                f"{r['bytes'] / 2**30:.2f} GiB, with λ_max {r['bytes_lambda_max'] / 2**30:.2f} GiB",
                flush=True,
            )
        document["rows"][along] = rows
    document["slopes"] = {
        along: {q: round(slope(rows, along, q), 3) for q in (*QUANTITIES, "bytes", "bytes_lambda_max")}
        for along, rows in document["rows"].items()
    }
    write(document, options.out)
    draw(document, options.figure)
    print(f"slopes: {document['slopes']}; wrote {options.out} and {options.figure}")


if __name__ == "__main__":
    main()
