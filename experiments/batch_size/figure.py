"""figures/batch_size.png, drawn from experiments/results/batch_size.json alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from experiments.batch_size.plan import DECAY, EPOCHS, EPOCHS_DECAY, MAIN, SCALED, STEPS
from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, MARKERS, canvas, finish
from experiments.common.statistics import mean

Rows = list[dict[str, Any]]
SHOWN = (
    "keskar", "keskar_5e-4", "keskar_subspace", "keskar_subspace_5e-4", "lambda_max", "trace", "sam", "pac_bayes",
    "keskar_relative", "adaptive_trace", "weight_curvature", "fisher_rao", "first_order_adaptive_linf", "pac_bayes_magnitude",
    "path_norm",
)  # fmt: skip
NAMES = {
    "keskar": "φ 1e-3", "keskar_5e-4": "φ 5e-4", "keskar_subspace": "φ 1e-3, p = 100",
    "keskar_subspace_5e-4": "φ 5e-4, p = 100", "lambda_max": "λ max", "keskar_relative": 'φ without "+ 1"', "sam": "SAM",
    "pac_bayes": "PAC-Bayes", "weight_curvature": "wᵀHw", "fisher_rao": "Fisher–Rao", "adaptive_trace": "adaptive trace",
    "first_order_adaptive_linf": "first-order adaptive", "pac_bayes_magnitude": "PAC-Bayes ∝ |w|", "path_norm": "path norm",
}  # fmt: skip
APART = 0.14  # between the marks of two settings; those of six stay on their side of the lines between arms
ARMS = {
    MAIN: "equal\nlearning\nrate", SCALED: "scaled\nlearning\nrate", STEPS: "equal\nsteps", DECAY: "weight\ndecay",
    EPOCHS: "equal\nepochs", EPOCHS_DECAY: "equal\nepochs,\ndecay",
}  # fmt: skip


def draw() -> None:
    """Measures, test accuracy, lines between the minima, controls."""
    document = read("batch_size")
    rows = document["ratios"]
    settings = list(dict.fromkeys(r["setting"] for r in rows))
    figure, axes = canvas(4, 2, width=9.8, height=3.0)
    _measures(axes[0, 0], rows, settings)
    _test(axes[0, 1], rows, settings)
    _line(axes[1, 0], document["lines"], settings, "loss", "training loss", "Training loss on the line through both minima")
    _line(axes[1, 1], document["lines"], settings, "test_accuracy", "test error (%)", "Test error on the same line")
    _controls(axes[2, 0], rows, settings, "keskar", "φ at 1e-3, which rescaling moves")
    _controls(axes[2, 1], rows, settings, "adaptive_trace", "Adaptive trace, which rescaling does not move")
    _controls(axes[3, 0], rows, settings, "train_loss", "Training loss: where it is not 1, sharpness is not at one loss")
    _controls(axes[3, 1], rows, settings, "distance", "Distance from the start")
    how, found = document["how"], document["verdict"]
    finish(
        figure,
        "batch_size",
        title="Large batch (10 % of the data) against batch 16",
        caption=f"Ratios are geometric means over {len(how['seeds'])} seeds{_fewer(rows)}, paired, large over small batch, "
        "with 95 % bootstrap intervals; bands are such intervals for means. "
        "Open marks: all of the data as one batch. A mark is missing where an arm was not run, or a run did not come down to "
        "the loss. "
        f"Keskar et al. 2017: {found['verdict']}, {claims_held(found)}.",
    )


def _fewer(rows: Rows) -> str:
    """The settings that have fewer seeds than most."""
    seeds = {r["setting"]: r["ratio"]["n"] for r in rows if "ratio" in r}
    told = [f"{setting}: {n}" for setting, n in seeds.items() if n < max(seeds.values())]
    return f" ({'; '.join(told)})" if told else ""


def _measures(ax: Axes, rows: Rows, settings: Sequence[str]) -> None:
    """Ratio of every measure in the main arm."""
    shown = [s for s in settings if any(_is(r, setting=s, arm=MAIN, batch="10 %", kind="measure") for r in rows)]
    for i, setting in enumerate(settings):
        known = {r["quantity"]: r for r in rows if _is(r, setting=setting, arm=MAIN, batch="10 %")}
        places = [(k, known[n]["ratio"]) for k, n in enumerate(SHOWN) if n in known]
        _marks(ax, [k + APART * (i - (len(shown) - 1) / 2) for k, _ in places], [r for _, r in places], i, setting)
    ax.axhline(1, color=GREY, lw=0.8)
    ax.axvline(SHOWN.index("keskar_relative") - 0.5, color="#bbbbbb", lw=0.8)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xticks(
        range(len(SHOWN)), [NAMES.get(n, n) for n in SHOWN], rotation=50, ha="right", rotation_mode="anchor", fontsize=7
    )
    ax.set_ylabel("large / small batch")
    ax.set_title("Measures; right of the line, those that survive rescaling", loc="left", fontsize=9)
    ax.legend(fontsize=6.5, loc="upper right", framealpha=0.85, edgecolor="none", ncols=2)


def _test(ax: Axes, rows: Rows, settings: Sequence[str]) -> None:
    """Difference of test accuracy in every arm."""
    for i, setting in enumerate(settings):
        for batch, fill in (("10 %", COLOURS[i]), ("all", "white")):
            known = {r["arm"]: r for r in rows if _is(r, setting=setting, quantity="test accuracy", batch=batch)}
            shift = APART * (i - (len(settings) - 1) / 2) + (0.06 if batch == "all" else 0.0)
            places = [(k + shift, known[a]["difference"]) for k, a in enumerate(ARMS) if a in known]
            _marks(ax, [p for p, _ in places], [d for _, d in places], i, "_", mfc=fill)
    ax.axhline(0, color=GREY, lw=0.8)
    _arms(ax)
    ax.set_ylabel("test accuracy, large − small\n(points)")
    ax.set_title("Test accuracy", loc="left", fontsize=9)


def _line(ax: Axes, lines: Rows, settings: Sequence[str], name: str, label: str, title: str) -> None:
    """Means over seeds on the line between the minima."""
    for i, setting in enumerate(settings):
        own = [r for r in lines if _is(r["item"], setting=setting, batch="10 %")]
        if not own:
            continue
        at, values = own[0]["at"], np.array([r["values"][name] for r in own], dtype=float)
        # The mean of a loss that spans decades is that of its logarithm.
        values = 100 * (1 - values) if name == "test_accuracy" else np.log10(np.maximum(values, 1e-12))
        found = [mean(column.tolist()) for column in values.T]
        y, low, high = (np.array([getattr(f, k) for f in found]) for k in ("value", "low", "high"))
        if name != "test_accuracy":
            y, low, high = 10**y, 10**low, 10**high
            ax.set_yscale("log")
        ax.plot(at, y, color=COLOURS[i], lw=1.3, label=setting)
        ax.fill_between(at, low, high, color=COLOURS[i], alpha=0.2, lw=0)
    for place in (0, 1):
        ax.axvline(place, color="#bbbbbb", lw=0.8)
    ax.set_xlabel("position: 0 is the small-batch minimum, 1 the large-batch one")
    ax.set_ylabel(label)
    ax.set_title(title, loc="left", fontsize=9)
    ax.legend(fontsize=6.5, frameon=False)


def _controls(ax: Axes, rows: Rows, settings: Sequence[str], quantity: str, title: str) -> None:
    """Ratio of one measure in every arm."""
    for i, setting in enumerate(settings):
        for batch, fill in (("10 %", COLOURS[i]), ("all", "white")):
            known = {r["arm"]: r for r in rows if _is(r, setting=setting, quantity=quantity, batch=batch)}
            shift = APART * (i - (len(settings) - 1) / 2) + (0.06 if batch == "all" else 0.0)
            places = [(k + shift, known[a]["ratio"]) for k, a in enumerate(ARMS) if a in known]
            _marks(ax, [p for p, _ in places], [r for _, r in places], i, "_", mfc=fill)
    ax.axhline(1, color=GREY, lw=0.8)
    ax.set_yscale("log", base=2)
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(2, subs=(1.0, 1.5) if high < 8 * low else (1.0,)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _arms(ax)
    ax.set_ylabel("large / small batch")
    ax.set_title(title, loc="left", fontsize=9)


def _arms(ax: Axes) -> None:
    """Names of the arms below, and lines between them."""
    for k in range(1, len(ARMS)):
        ax.axvline(k - 0.5, color="#bbbbbb", lw=0.6)
    ax.set_xticks(range(len(ARMS)), list(ARMS.values()), fontsize=7)
    ax.grid(visible=False, axis="x")


def _marks(ax: Axes, x: Sequence[float], found: Rows, index: int, label: str, **style: Any) -> None:
    """Values with their intervals as bars."""
    y = [f["value"] for f in found]
    bars = [[max(f["value"] - f["low"], 0) for f in found], [max(f["high"] - f["value"], 0) for f in found]]
    look = {"color": COLOURS[index], "marker": MARKERS[index], "ms": 4, "ls": "none", "capsize": 1.5, "elinewidth": 0.9}
    ax.errorbar(x, y, yerr=bars, label=label, **(look | style))


def _is(row: dict[str, Any], **wanted: Any) -> bool:
    """Whether a row has these entries."""
    return all(row.get(k) == v for k, v in wanted.items())
