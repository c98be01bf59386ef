"""figures/memorization.png, drawn from experiments/results/memorization.json alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, MARKERS, band, canvas, finish
from experiments.common.statistics import difference
from experiments.memorization.claims import FITTED, Runs

LABELS = ("clean", "labels 20%", "labels 40%", "labels 60%", "labels 80%", "random labels")
PIXELS = ("shuffled pixels", "random pixels", "gaussian")
NAMES = {
    ("digits", "mlp"): "digits, perceptron",
    ("cifar10", "mlp"): "CIFAR-10, perceptron",
    ("cifar10", "c1"): "CIFAR-10, C1",
    ("cifar10", "resnet"): "CIFAR-10, ResNet",
}
Rows = list[dict[str, Any]]


def draw() -> None:
    """Time to fit, test accuracy, regularizers, depth."""
    document = read("memorization")
    rows = document["table"]
    figure, axes = canvas(3, 2, width=9.6, height=3.0)
    _time(axes[0, 0], rows, document["runs"])
    _test(axes[0, 1], rows)
    _regularizers(axes[1, 0], rows, "random labels", "train_accuracy", "Random labels with regularizers: training accuracy")
    axes[1, 0].axhline(100 * FITTED, color="black", lw=0.8, ls="--")
    _regularizers(axes[1, 1], rows, "clean", "test_accuracy", "True labels with regularizers: test accuracy")
    _depth(
        axes[2, 0], [r for r in rows if r["network"] == "mlp"], "hidden layers", "Depth of perceptrons, labels partly redrawn"
    )
    _depth(axes[2, 1], [r for r in rows if r["network"] == "resnet"], "layers", "Depth of ResNets, labels partly redrawn")
    how, found = document["how"], document["verdict"]
    finish(
        figure,
        "memorization",
        title="Do networks fit labels and images without any rule, and at what price?",
        caption=f"Means over {len(how['seeds'])} seeds with 95 % bootstrap intervals; {found['scale'].partition('; ')[2]}. "
        "Trained to a loss of 0.01, or with a regularizer to the end of their epochs, if that comes first; dashed: 99 %, which "
        "counts as fitted. "
        f"Zhang et al. 2017: {found['verdict']}, {claims_held(found)}.",
    )


def _networks(rows: Rows, part: str) -> list[tuple[str, str]]:
    """The networks of a part, in the order of the table."""
    return list(dict.fromkeys((r["data"], r["network"]) for r in rows if r["part"] == part))


def _fit(rows: Rows, network: tuple[str, str], conditions: tuple[str, ...]) -> Rows:
    """The rows of a network's conditions."""
    known = {r["condition"]: r for r in rows if r["part"] == "fit" and (r["data"], r["network"]) == network}
    return [known[c] for c in conditions]


def _time(ax: Axes, rows: Rows, runs: Rows) -> None:
    """Epochs until 99 % of the training set is fitted, over those for true labels, paired by seed."""
    known = Runs(runs)
    for i, (data, network) in enumerate(_networks(rows, "fit")):
        kind = {"part": "fit", "data": data, "network": network}
        for start, conditions in ((0, LABELS[1:]), (len(LABELS) - 1, PIXELS)):
            # A condition in which a run never fitted has no time, and no mark.
            there = [c for c in conditions if not known.censored(**kind, condition=c)]
            places = [start + conditions.index(c) + 0.1 * (i - 1) for c in there]
            clean = np.log(known.of("epochs_to_fit", **kind, condition="clean"))
            ratios = [difference(np.log(known.of("epochs_to_fit", **kind, condition=c)), clean).exp().to_json() for c in there]
            style: dict[str, Any] = {} if start == 0 else {"ls": "none"}
            band(ax, places, ratios, i, NAMES[data, network] if start == 0 else "_", **style)
    ax.axhline(1, color="#bbbbbb", lw=0.8)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.axvline(len(LABELS) - 1.5, color="#bbbbbb", lw=0.8)
    ax.set_xticks(range(8), ["20 %", "40 %", "60 %", "80 %", "100 %", "shuffled", "random", "Gaussian"], fontsize=7)
    ax.set_xlabel("labels redrawn; right of the line pixels, with true labels")
    ax.set_ylabel("epochs to 99 % training accuracy\n/ those of the same seed, true labels")
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(0.2, 0.62))
    ax.set_title("Time to fit", loc="left", fontsize=9)


def _test(ax: Axes, rows: Rows) -> None:
    """Test accuracy at the end."""
    for i, network in enumerate(_networks(rows, "fit")):
        for start, conditions in ((0, LABELS), (len(LABELS), PIXELS)):
            found = [_percent(r["test_accuracy"]) for r in _fit(rows, network, conditions)]
            places = [start + k + 0.1 * (i - 1) for k in range(len(conditions))]
            style: dict[str, Any] = {} if start == 0 else {"ls": "none"}
            band(ax, places, found, i, "_", **style)
    ax.axhline(10, color="black", lw=0.8, ls="--")
    ax.annotate("chance", (-0.3, 11.5), fontsize=7)
    ax.axvline(len(LABELS) - 0.5, color="#bbbbbb", lw=0.8)
    ax.set_xticks(range(9), ["0", "20", "40", "60", "80", "100", "shuffled", "random", "Gaussian"], fontsize=7)
    ax.set_xlabel("% of labels redrawn; right of the line pixels, with true labels")
    ax.set_ylabel("test accuracy, %")
    ax.set_title("Test accuracy at the end of training", loc="left", fontsize=9)


def _regularizers(ax: Axes, rows: Rows, condition: str, number: str, title: str) -> None:
    """An accuracy with each regularizer, in the colours of the networks."""
    kinds = list(dict.fromkeys(r["regularizer"] for r in rows if r["part"] == "regularizers"))
    for i, network in enumerate(_networks(rows, "regularizers")):
        known = {
            r["regularizer"]: r for r in rows
            if r["part"] == "regularizers" and (r["data"], r["network"]) == network and r["condition"] == condition
        }  # fmt: skip
        places = [k + 0.14 * (i - 1) for k, kind in enumerate(kinds) if kind in known]
        band(ax, places, [_percent(known[kind][number]) for kind in kinds if kind in known], i, "_", ls="none")
    ax.set_xticks(range(len(kinds)), kinds, fontsize=7.5)
    ax.set_ylabel("accuracy, %")
    ax.set_title(title, loc="left", fontsize=9)


def _depth(ax: Axes, rows: Rows, what: str, title: str) -> None:
    """Test accuracy against depth."""
    kinds = list(dict.fromkeys((r["data"], r["network"], r["level"]) for r in rows if r["part"] == "depth"))
    order = list(NAMES)
    for data, network, level in kinds:
        found = [r for r in rows if r["part"] == "depth" and (r["data"], r["network"], r["level"]) == (data, network, level)]
        i = order.index((data, network))
        shade = {0.2: 0.45, 0.4: 1.0, 0.6: 0.7}[level]
        style: dict[str, Any] = {"alpha": shade, "marker": MARKERS[i], "color": COLOURS[i]}
        style["ls"] = {0.2: ":", 0.4: "-", 0.6: "--"}[level]
        places, label = [r["depth"] for r in found], f"{NAMES[data, network]}, {level:.0%} redrawn"
        band(ax, places, [_percent(r["test_accuracy"]) for r in found], i, label, **style)
        ax.set_xticks(places)
    ax.set_xlabel(what)
    ax.set_ylabel("test accuracy, %")
    if kinds:
        ax.legend(fontsize=6.5, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.14))
    ax.set_title(title, loc="left", fontsize=9)


def _percent(interval: dict[str, Any]) -> dict[str, float]:
    """An interval times 100; ends that are not known are left at the value."""
    value = interval["value"]
    return {"value": 100 * value} | {k: 100 * (value if interval[k] is None else interval[k]) for k in ("low", "high")}
