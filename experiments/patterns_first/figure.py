"""figures/patterns_first.png, drawn from experiments/results/patterns_first.json alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, canvas, finish
from experiments.common.statistics import mean

NAMES = {"digits": "digits", "cifar10": "CIFAR-10"}
# Clean blue, wrong labels from light to dark orange, random labels black, Gaussian images green.
STYLES = {
    "clean": COLOURS[0], "labels 20%": "#f6c28b", "labels 40%": "#ee9b4a", "labels 60%": COLOURS[1], "labels 80%": "#8a3d00",
    "random labels": COLOURS[6], "gaussian": COLOURS[2],
}  # fmt: skip
LAYERS = {"fc1": "-", "fc2": "--", "fc3": ":"}
GRID = 24
Runs = list[dict[str, Any]]


def draw() -> None:
    """Accuracies, critical samples and the Gini coefficient for every data set; curvature for digits."""
    document = read("patterns_first")
    runs: Runs = document["runs"]
    data = list(dict.fromkeys(r["item"]["data"] for r in runs))
    figure, axes = canvas(len(data) + 1, 3, width=10.5, height=2.8)
    for row, name in zip(axes, data, strict=False):
        here = [r for r in runs if r["item"]["data"] == name and r["item"]["kind"] == "stochastic"]
        _accuracies(row[0], here, name)
        _critical(row[1], here, name)
        _gini(row[2], here, name)
    digits = [r for r in runs if r["item"]["data"] == "digits"]
    stochastic = [r for r in digits if r["item"]["kind"] == "stochastic"]
    _traces(axes[-1, 0], stochastic)
    _largest(axes[-1, 1], stochastic)
    _descent(axes[-1, 2], [r for r in digits if r["item"]["kind"] == "descent"])
    how, found = document["how"], document["verdict"]
    finish(
        figure,
        "patterns_first",
        title="Are patterns learned before noise is memorized?",
        caption=f"Lines are means over {len(how['seeds'])} seeds, bands their 95 % bootstrap intervals; they end where the "
        f"first seed has reached a loss of 0.01. {found['scale'].partition('; ')[2]}. Percentages are of redrawn labels. "
        "Curvature is that of the whole training loss. "
        f"Arpit et al. 2017: {found['verdict']}, {claims_held(found)}.",
    )


def _line(ax: Axes, runs: Runs, read_off: Callable[[dict[str, Any]], Sequence[tuple[float, Any]]], **style: Any) -> None:
    """Mean over runs and its interval along training, on epochs spaced evenly on a log scale."""
    found = [np.array([(e, v) for e, v in read_off(run) if e > 0 and v is not None], dtype=float).T for run in runs]
    grid = np.geomspace(max(f[0, 0] for f in found), min(f[0, -1] for f in found), GRID)
    values = np.array([np.interp(np.log(grid), np.log(f[0]), f[1]) for f in found])
    told = [mean(v) for v in values.T.tolist()]
    (line,) = ax.plot(grid, [t.value for t in told], **({"lw": 1.3} | style))
    if len(found) > 1:
        ax.fill_between(grid, [t.low for t in told], [t.high for t in told], color=line.get_color(), alpha=0.18, lw=0)


def _of(runs: Runs, condition: str) -> Runs:
    return [r for r in runs if r["item"]["condition"] == condition]


def _curve(name: str) -> Callable[[dict[str, Any]], Sequence[tuple[float, Any]]]:
    return lambda run: [(c["epoch"], c[name]) for c in run["curves"]]


def _measured(number: Callable[[dict[str, Any]], float]) -> Callable[[dict[str, Any]], Sequence[tuple[float, Any]]]:
    return lambda run: [(m["epoch"], number(m)) for m in run["measured"]]


def _accuracies(ax: Axes, runs: Runs, name: str) -> None:
    """Right labels, wrong labels and test set, at 40 % redrawn labels."""
    noisy = _of(runs, "labels 40%")
    for part, label, colour in (
        ("right", "right labels", COLOURS[0]), ("wrong", "wrong labels", COLOURS[1]), ("test", "test set", COLOURS[6]),
    ):  # fmt: skip
        _line(ax, noisy, _curve(part), color=colour, label=label, ls="--" if part == "test" else "-")
    ax.set_title(f"{NAMES[name]}, 40 % of labels redrawn", fontsize=9)
    ax.set(ylabel="accuracy", ylim=(0, 1.03))
    _finish(ax, loc="upper left" if name == "cifar10" else "lower right")


def _critical(ax: Axes, runs: Runs, name: str) -> None:
    for condition, colour in STYLES.items():
        _line(ax, _of(runs, condition), _measured(lambda m: m["csr"]), color=colour, label=condition)
    ax.set_title(f"{NAMES[name]}: critical samples", fontsize=9)
    ax.set(ylabel="critical sample ratio", ylim=(0, 0.85 if name == "digits" else 1.0))
    _finish(ax, loc="upper right", ncols=2 if name == "digits" else 1)


def _gini(ax: Axes, runs: Runs, name: str) -> None:
    for condition in ("clean", "random labels", "gaussian"):
        _line(ax, _of(runs, condition), _curve("gini"), color=STYLES[condition], label=condition)
    ax.set_title(f"{NAMES[name]}: inequality of loss sensitivity", fontsize=9)
    ax.set(ylabel="Gini coefficient")
    _finish(ax)


def _traces(ax: Axes, runs: Runs) -> None:
    """Trace of every layer's block, clean and at 40 %."""
    for condition in ("clean", "labels 40%"):
        for layer, dashes in LAYERS.items():
            number = _measured(lambda m, layer=layer: m["traces"][layer])
            _line(ax, _of(runs, condition), number, color=STYLES[condition], ls=dashes, label=f"{condition}, {layer}")
    ax.set_title("digits: trace of each layer", fontsize=9)
    ax.set(ylabel="trace (loss / weight²)", yscale="log")
    _finish(ax, ncols=2)


def _largest(ax: Axes, runs: Runs) -> None:
    """lambda_max of stochastic gradient descent; colours as for the critical samples."""
    for condition, colour in STYLES.items():
        _line(ax, _of(runs, condition), _measured(lambda m: m["lambda_max"]), color=colour)
    ax.axhline(2 / runs[0]["item"]["recipe"]["lr"], color="black", lw=0.8, ls="--", label="2 / learning rate")
    ax.set_title("digits: $\\lambda_{max}$, batches of 128; colours as above", fontsize=9)
    ax.set(ylabel="$\\lambda_{max}$ (loss / weight²)", yscale="log")
    _finish(ax)


def _descent(ax: Axes, runs: Runs) -> None:
    """lambda_max of full-batch gradient descent over 2 / lr, a line for every seed."""
    for condition in ("clean", "labels 40%"):
        for i, run in enumerate(_of(runs, condition)):
            ratio = np.array(run["lambda_max"]) / run["edge"]
            ax.plot(run["epochs"], ratio, color=STYLES[condition], lw=0.9, label=condition if i == 0 else None)
    ax.axhline(1.0, color="black", lw=0.8, ls="--")
    ax.set_title("digits: full batch, a line for each seed", fontsize=9)
    ax.set(ylabel="$\\lambda_{max}$ / (2 / learning rate)")
    _finish(ax)


def _finish(ax: Axes, loc: str = "best", ncols: int = 1) -> None:
    ax.set(xscale="log", xlabel="epoch")
    ax.xaxis.set_major_formatter("{x:g}")
    if ax.get_yscale() == "log":
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend(frameon=False, fontsize=6.5, loc=loc, ncols=ncols, handlelength=1.8, labelspacing=0.3)
