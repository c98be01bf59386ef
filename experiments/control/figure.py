"""figures/control.png, drawn from experiments/results/control.json alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, MARKERS, band, canvas, finish
from experiments.common.statistics import mean

NAMES = {"digits": "Digits, perceptron", "cifar10": "CIFAR-10, perceptron"}
Rows = list[dict[str, Any]]


def draw() -> None:
    """Test accuracy against memorized share, the areas of the trade-offs, and the baseline through training."""
    document = read("control")
    rows, found, how = document["table"], document["verdict"], document["how"]
    sets = list(document["areas"])
    controls = list(document["areas"][sets[0]])
    figure, axes = canvas(len(sets), 3, width=12.5, height=3.7, gridspec_kw={"width_ratios": (1.75, 1, 1)})
    for line, data in zip(axes, sets, strict=True):
        _tradeoff(line[0], [r for r in rows if r["data"] == data], controls)
        line[0].set_title(f"{NAMES[data]}: trade-off at the end of training", loc="left", fontsize=9)
        _areas(line[1], document["areas"][data], controls)
        _training(line[2], [r for r in document["runs"] if r["item"]["data"] == data and r["item"]["control"] == "none"])
    axes[0, 0].legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0.14, 0.0), title="larger marks: stronger")
    axes[0, 0].get_legend().get_title().set_fontsize(7)
    axes[0, 2].legend(fontsize=7, frameon=False, loc="best")
    finish(
        figure,
        "control",
        title="What limits the memorization of wrong labels, and what it costs in test accuracy (40 % of the labels redrawn)",
        caption=f"Left: means over {len(how['seeds'])} seeds with 95 % intervals; grey steps: the best that any"
        " setting reaches in the mean. Middle: of all pairs of a memorized share and a test accuracy above chance, the part "
        "that"
        " one of a control's strengths beats in both, with 95 % intervals. Right: mean of the baselines, range of the"
        " seeds; vertical lines: where early stopping ends them, by one half of the test set for the other."
        f" {found['scale']}. {found['verdict'].capitalize()}: {claims_held(found)}.",
    )


def _tradeoff(ax: Axes, rows: Rows, controls: Sequence[str]) -> None:
    """One mark for each setting; strengths of a control are connected from the baseline on."""
    base = next(r for r in rows if r["control"] == "none")
    _front(ax, rows)
    for i, control in enumerate(controls):
        own = [r for r in rows if r["control"] == control]
        # A batch smaller than the baseline's stands on its other side.
        before = [own[0]] if control == "batch size" else []
        path = [*before, base, *own[len(before) :]] if len(own) > 1 else own
        x, y = ([100 * r[f"{n}_mean"]["value"] for r in path] for n in ("memorized", "tested"))
        ax.plot(x, y, color=COLOURS[i], lw=0.9, alpha=0.55)
        strengths = ", ".join(f"{r['strength']:g}" for r in own if r["strength"] is not None)
        for k, r in enumerate(own):
            name = f"{control} {strengths}" if k == len(own) // 2 else "_"
            _mark(ax, r, COLOURS[i], MARKERS[i], name, ms=3.5 + 2 * k if len(own) > 1 else 6)
    _mark(ax, base, "black", "*", "baseline", ms=11, mfc="white")
    ax.set_xlabel("wrong labels that the network reproduces, %")
    ax.set_ylabel("accuracy on the clean test set, %")


def _mark(ax: Axes, row: dict[str, Any], colour: str, marker: str, name: str, **style: Any) -> None:
    """A setting with its intervals."""
    x, y = row["memorized_mean"], row["tested_mean"]
    ends = [[[100 * abs((i["value"] if i[k] is None else i[k]) - i["value"])] for k in ("low", "high")] for i in (x, y)]
    look: dict[str, Any] = {"color": colour, "marker": marker, "ls": "none", "elinewidth": 0.8, "label": name} | style
    ax.errorbar(100 * x["value"], 100 * y["value"], xerr=ends[0], yerr=ends[1], **look)


def _front(ax: Axes, rows: Rows) -> None:
    """The front of the means, as steps: what lies below and to the right of it is beaten."""
    points = sorted((100 * r["memorized_mean"]["value"], 100 * r["tested_mean"]["value"]) for r in rows)
    front: list[tuple[float, float]] = []
    for m, t in points:
        if not front or t > front[-1][1]:
            front.append((m, t))
    x, y = zip(*front, strict=True)
    ax.step([*x, 102], [*y, y[-1]], where="post", color="#bbbbbb", lw=2.5, zorder=0)


def _areas(ax: Axes, areas: dict[str, list[float]], controls: Sequence[str]) -> None:
    """The area that each control beats, and every seed's."""
    for i, control in enumerate(controls):
        found = {k: 100 * v for k, v in mean(areas[control]).to_json().items() if k != "n" and np.isfinite(v)}
        band(ax, [i], [{"low": None, "high": None} | found], i, "_", ls="none", ms=6)
        ax.scatter([i + 0.22] * len(areas[control]), [100 * a for a in areas[control]], s=6, color=COLOURS[i], alpha=0.5)
    ax.set_xticks(range(len(controls)), controls, rotation=35, ha="right", rotation_mode="anchor", fontsize=7.5)
    ax.set_ylabel("dominated area, %")
    ax.set_title("Whole trade-off (small dots: seeds)", loc="left", fontsize=9)


def _training(ax: Axes, runs: Rows) -> None:
    """The baseline through training."""
    for number, text, colour, style in (
        ("wrong_labels_fitted", "wrong labels reproduced", COLOURS[1], "--"),
        ("test_accuracy", "test accuracy", COLOURS[0], "-"),
    ):
        values = 100 * np.array([r["history"][number] for r in runs])
        epochs = runs[0]["history"]["epoch"]
        ax.plot(epochs, values.mean(axis=0), color=colour, ls=style, lw=1.3, label=text)
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, lw=0)
    for run in runs:
        for epoch in run["early_stopping"]["epochs"]:
            ax.axvline(epoch, color=GREY, lw=0.6, alpha=0.6, zorder=0)
    ax.set_ylim(0, 103)
    ax.set_xlabel("epochs")
    ax.set_ylabel("%")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title("The baseline through training", loc="left", fontsize=9)
