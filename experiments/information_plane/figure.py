"""figures/information_plane.png, drawn from experiments/results/information_plane.json alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, MARKERS, canvas, finish

TASKS = {"bits": "twelve bits", "digits": "digits"}
ACTIVATIONS = {"tanh": "tanh", "relu": "rectifiers"}
ESTIMATES = {
    "binned": "30 bins over the layer's range",
    "binned, fixed range": "30 bins, fixed range",
    "kde 0.001": "kernel upper bound, noise 0.001",
    "kde 0.1": "kernel upper bound, noise 0.1",
    "knn": "nearest neighbours, noise 0.001",
}
SHOWN = "binned, fixed range"
COLUMNS = [(task, activation) for task in TASKS for activation in ACTIVATIONS]


def draw() -> None:
    """Above, the information plane by the papers' bins; below, the falls of I(T; X) by all estimates, two kinds of labels."""
    document = read("information_plane")
    figure, axes = canvas(3, 4, width=11.0, height=2.75, sharey="row")
    runs = {(r["item"]["task"], r["item"]["activation"]): r for r in document["runs"]}
    last = max(r["epochs"][-1] for r in runs.values())
    norm = LogNorm(1, last + 1)
    for column, key in enumerate(COLUMNS):
        _plane(axes[0, column], runs[key], norm, document["entropy"][key[0]])
        for row, labels in ((1, "true"), (2, "random")):
            rows = [r for r in document["table"] if (r["task"], r["activation"], r["labels"]) == (*key, labels)]
            fits = [n["train_accuracy"][-1] for n in runs[key]["networks"] if n["labels"] == labels]
            _falls(axes[row, column], rows, judged=labels == "true" or min(fits) >= 0.99)
            title = f"{'ABCD'[column]}{row}: fall, {labels} labels"
            title += f" (train {np.mean(fits):.0%})" if labels == "random" else ""
            axes[row, column].set_title(title, loc="left", fontsize=9)
        axes[0, column].set_title(
            f"{'ABCD'[column]}: {TASKS[key[0]]}, {ACTIVATIONS[key[1]]}", loc="left", fontsize=9, fontweight="bold"
        )
    for row, text in enumerate(("I(T; Y) / H(Y)", "fall of I(T; X) (bits)", "fall of I(T; X) (bits)")):
        axes[row, 0].set_ylabel(text)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes[0, :], pad=0.01, aspect=16)
    bar.set_label("epoch + 1", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    handles, names = axes[1, 0].get_legend_handles_labels()
    axes[1, -1].legend(handles, names, fontsize=7, frameon=False, loc="upper right")
    how, found = document["how"], document["verdict"]
    seeds = len(how["seeds"])
    finish(
        figure,
        "information_plane",
        title="Do hidden layers first fit the labels and then compress the input?",
        caption=f"Above: mean over {seeds} seeds, true labels, {ESTIMATES[SHOWN]}; a line is a hidden layer, its number and a "
        "star where it ends. Below: largest I(T; X) of the training "
        f"minus that at the end, mean over {seeds} seeds with 95 % bootstrap intervals; filled: the layer compresses (interval "
        "and q beyond 0.2 bits, dotted); grey: within 5 % of log₂ N "
        "at every epoch, or random labels that some seed fits by less than 99 %: not judged. "
        f"Shwartz-Ziv and Tishby 2017, Saxe et al. 2018: {found['verdict']}, {claims_held(found)}.",
    )


def _plane(ax: Axes, run: dict[str, Any], norm: LogNorm, most: float) -> None:
    """I(T; Y) against I(T; X) of the hidden layers through training, true labels."""
    networks = [n for n in run["networks"] if n["labels"] == "true"]
    epochs = np.array(run["epochs"]) + 1
    left, ends = np.inf, []
    for i in range(len(networks[0]["layers"])):
        x, y = (np.mean([n["layers"][i][SHOWN][part] for n in networks], axis=0) for part in ("inputs", "labels"))
        ax.plot(x, y / most, color=GREY, lw=0.6, zorder=1)
        ax.scatter(x, y / most, c=epochs, norm=norm, cmap="viridis", s=12, zorder=2)
        ax.plot(x[-1:], y[-1:] / most, "*", color="#D55E00", ms=8, mec="white", mew=0.5, zorder=3)
        left, ends = min(left, float(x.min())), [*ends, (float(x[-1]), float(y[-1]) / most)]
    for end in dict.fromkeys((round(x, 0), round(y, 1)) for x, y in ends):
        near = [i for i, (x, y) in enumerate(ends) if (round(x, 0), round(y, 1)) == end]
        place = np.mean([ends[i] for i in near], axis=0)
        text = ", ".join(str(i + 1) for i in near)
        ax.annotate(text, place, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5)
    largest = float(np.log2(run["samples"]))
    ax.axvline(largest, color=GREY, lw=0.8, ls=":")
    ax.set(xlim=(left - 0.3, largest + 0.5), ylim=(-0.05, 1.18), xlabel="I(T; X) (bits), dotted: log₂ N")


def _falls(ax: Axes, rows: list[dict[str, Any]], judged: bool) -> None:
    """The fall of each hidden layer by every estimate."""
    for k, (name, words) in enumerate(ESTIMATES.items()):
        for row in (r for r in rows if r["estimate"] == name):
            fall, colour = row["fall"], "#b5b5b5" if row["saturated"] or not judged else COLOURS[k]
            place = row["layer"] + 0.13 * (k - (len(ESTIMATES) - 1) / 2)
            low, high = (fall[end] if fall[end] is not None else fall["value"] for end in ("low", "high"))
            error = [[max(fall["value"] - low, 0.0)], [max(high - fall["value"], 0.0)]]
            ax.errorbar(place, fall["value"], error, color=colour, lw=0, elinewidth=0.9, capsize=1.8)
            face = colour if row["compresses"] else "white"
            ax.plot(place, fall["value"], MARKERS[k], color=colour, mfc=face, ms=4.2, mew=0.9)
        ax.plot([], [], MARKERS[k], color=COLOURS[k], ms=4.2, ls="", label=words)
    ax.axhline(0.2, color=GREY, lw=0.8, ls=":")
    ax.set_xticks(sorted({r["layer"] for r in rows}))
    ax.set_xlabel("hidden layer, from the input")
