"""figures/memorization_alarm.png, drawn from experiments/results/memorization_alarm.json alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

import landscape as ls
from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, canvas, finish
from experiments.memorization_alarm.claims import history, told
from experiments.memorization_alarm.runs import untold

# Clean blue, wrong labels from light to dark orange.
STYLES = {"clean": COLOURS[0], "labels 20%": "#f6c28b", "labels 40%": "#ee9b4a", "labels 80%": "#8a3d00"}
Runs = list[dict[str, Any]]


def draw() -> None:
    """The sums of single runs through training, the largest of every run, and how much was fitted when the alarm sounded."""
    document = read("memorization_alarm")
    runs, limit = document["runs"], document["threshold"]
    alarm = ls.MemorizationAlarm(threshold=limit)
    figure, axes = canvas(1, 3, width=10.5, height=3.0)
    _sums(axes[0, 0], runs, alarm)
    _largest(axes[0, 1], runs, alarm)
    _fitted(axes[0, 2], runs, alarm)
    found = document["verdict"]
    finish(
        figure,
        "memorization_alarm",
        title="An alarm for label memorization on the traces of hidden layers",
        caption=f"{found['scale']}. Left: three runs of each kind. Middle: every run; open: those that set the threshold. "
        "Right: share of the wrong labels that were fitted when it sounded. "
        f"Judged: {claims_held(found)}.",
    )


def _of(runs: Runs, condition: str, *parts: str) -> Runs:
    return [r for r in runs if r["item"]["condition"] == condition and r["item"]["part"] in parts]


def _sums(ax: Axes, runs: Runs, alarm: ls.MemorizationAlarm) -> None:
    for condition, colour in STYLES.items():
        for i, run in enumerate(_of(runs, condition, "judged", "noisy")[:3]):
            sums = alarm(history(run)).sums
            ax.plot(1 + untold(run["series"]["epochs"]), sums, color=colour, lw=1.1, label=condition if i == 0 else None)
    ax.axhline(alarm.threshold, color=GREY, ls="--", lw=1.0, label="threshold")
    ax.set_xscale("log")
    ax.set(xlabel="epoch + 1", ylabel="cumulative sum of log traces")
    ax.set_title("Through training", fontsize=9)
    ax.legend(fontsize=7, frameon=False, loc="upper left")


def _largest(ax: Axes, runs: Runs, alarm: ls.MemorizationAlarm) -> None:
    for i, (condition, colour) in enumerate(STYLES.items()):
        for part, face in (("chosen", "none"), ("judged", colour), ("noisy", colour)):
            values = [told(r, alarm)["largest"] for r in _of(runs, condition, part)]
            place = i + np.linspace(-0.3, 0.3, len(values)) if values else np.empty(0)
            ax.scatter(place, sorted(values), s=9, facecolors=face, edgecolors=colour, linewidths=0.7)
    ax.axhline(alarm.threshold, color=GREY, ls="--", lw=1.0)
    ax.set_xticks(range(len(STYLES)), STYLES)
    ax.set(ylabel="largest sum of a run")
    ax.set_title("Every run", fontsize=9)


def _fitted(ax: Axes, runs: Runs, alarm: ls.MemorizationAlarm) -> None:
    for i, (condition, colour) in enumerate(list(STYLES.items())[1:]):
        found = [told(r, alarm)["fitted"] for r in _of(runs, condition, "noisy")]
        values = sorted(100 * f for f in found if f is not None)
        ax.scatter(i + np.linspace(-0.3, 0.3, len(values)), values, s=9, color=colour)
    ax.axhline(50, color=GREY, ls=":", lw=1.0)
    ax.set_xticks(range(len(STYLES) - 1), list(STYLES)[1:])
    ax.set(ylabel="wrong labels fitted, %", ylim=(0, 100))
    ax.set_title("When it sounds", fontsize=9)
