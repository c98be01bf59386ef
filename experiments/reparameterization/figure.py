"""figures/reparameterization.png, drawn from experiments/results/reparameterization.json alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, MARKERS, canvas, finish

CLEAN, NOISE = COLOURS[0], COLOURS[1]
SHOWN = {
    "lambda_max": "λ_max", "trace": "trace", "sam": "SAM", "keskar": "Keskar φ", "pac_bayes": "PAC-Bayes",
    "layer_relative_trace": "layer-relative trace", "relative_flatness": "relative flatness",
    "adaptive_trace": "adaptive trace",
    "adaptive_lambda_max": "adaptive λ_max", "keskar_relative": "Keskar φ without +1", "asam": "ASAM",
    "pac_bayes_magnitude": "PAC-Bayes, magnitude-aware", "path_norm": "path norm", "frobenius_product": "product of norms",
    "fisher_rao": "Fisher–Rao", "critical_sample_ratio": "critical samples",
}  # fmt: skip
CURVES = ("lambda_max", "trace", "sam", "layer_relative_trace", "adaptive_trace", "adaptive_lambda_max", "path_norm")
Document = dict[str, Any]


def draw() -> None:
    """Measures against alpha, the trace and its bound, what can be faked, and lines before and after."""
    document = read("reparameterization")
    figure, axes = canvas(2, 3, width=11.0, height=3.6)
    _against_alpha(axes[0, 0], document)
    _flattening(axes[0, 1], document)
    _lines(axes[1, 0], document, "none", "raw random direction")
    _lines(axes[1, 1], document, "filter", "filter-normalized direction")
    grid = axes[0, 2].get_gridspec()
    for ax in axes[:, 2]:
        ax.remove()
    _faked(figure.add_subplot(grid[:, 2]), document)
    how, found = document["how"], document["verdict"]
    finish(
        figure,
        "reparameterization",
        title="The same function, as sharp as one likes: what rescaling does to clean networks and to ones that memorized",
        caption=f"{len(how['seeds'])} seeds, perceptrons on digits; BatchNorm and CIFAR-10 are in the results. Top left: "
        f"geometric "
        "means over seeds, clean; what does not move lies under the line at 1. "
        "Top middle: a line for each seed, layer 1 times α and layer 2 divided by it; "
        "dots: the bound 2 √(tr H₁₁ tr H₂₂) + rest; dashed: clean as trained. Right: for each seed the value as trained (mark) "
        "and what factors up to 10, and those of the smallest trace, reach (bar). "
        "Bottom: the networks of the first seed; a line under another is equal to it. "
        f"Dinh et al. 2017: {found['verdict']}, {claims_held(found)}.",
    )


def _runs(document: Document, condition: str) -> list[dict[str, Any]]:
    """The perceptrons on digits."""
    kept = []
    for run in document["runs"]:
        item = run["item"]
        if (item["data"], item["network"], item["condition"]) == ("digits", "mlp", condition):
            kept.append(run)
    return kept


def _against_alpha(ax: Axes, document: Document) -> None:
    runs = _runs(document, "clean")
    for i, name in enumerate(CURVES):
        found: dict[float, list[float]] = {1.0: [1.0] * len(runs)}
        for run in runs:
            for move in run["moves"]:
                if move["family"] == "layer" and move["values"].get(name):
                    found.setdefault(move["alpha"], []).append(move["values"][name] / run["values"][name])
        alphas = sorted(found)
        means = [float(np.exp(np.mean(np.log(found[a])))) for a in alphas]
        ax.plot(alphas, means, color=COLOURS[i % 8], marker=MARKERS[i], ms=4, lw=1.1, label=SHOWN[name])
    ax.set(xscale="log", yscale="log", xlabel="α, factor of the first layer", ylabel="measure / as trained")
    ax.set_title("one layer times α, the next divided by α", fontsize=9)
    ax.legend(frameon=False, fontsize=6.5, labelspacing=0.3)


def _flattening(ax: Axes, document: Document) -> None:
    alphas = np.geomspace(0.1, 10, 81)
    for condition, colour in (("clean", CLEAN), ("random-labels", NOISE)):
        for i, run in enumerate(_runs(document, condition)):
            own = run["flattening"]
            trace = own["multiplied"] / alphas**2 + own["divided"] * alphas**2 + own["rest"]
            ax.plot(alphas, trace, color=colour, lw=0.9, label=condition.replace("-", " ") if i == 0 else None)
            ax.plot(own["alpha"], own["bound"], "o", color=colour, ms=4, mec="white", mew=0.5)
            if condition == "clean":
                ax.axhline(own["trained"], color=colour, lw=0.5, ls="--")
    ax.set(xscale="log", yscale="log", xlabel="α, factor of the first layer", ylabel="trace (loss / weight²)")
    ax.set_title("digits: flattening is bounded", fontsize=9)
    ax.legend(frameon=False, fontsize=7)


def _lines(ax: Axes, document: Document, norm: str, title: str) -> None:
    dashes = {"trained": ("-", 2.6, 0.35), "layer": ("--", 1.2, 1.0), "node": (":", 1.4, 1.0)}
    for line in (line for line in document["surfaces"] if line["item"]["seed"] == document["how"]["seeds"][0]):
        colour = CLEAN if line["item"]["condition"] == "clean" else NOISE
        for curve in line["curves"]:
            if curve["norm"] == norm:
                style, width, alpha = dashes[curve["version"]]
                values = [np.nan if v is None else v for v in curve["loss"]]
                ax.plot(curve["at"], values, color=colour, ls=style, lw=width, alpha=alpha)
    words = {"trained": "as trained", "layer": "one layer × 10", "node": "neurons × up to 10"}
    handles = [Line2D([], [], color=GREY, ls=dashes[k][0], lw=dashes[k][1], label=words[k]) for k in dashes]
    handles += [Line2D([], [], color=c, lw=1.2, label=w) for c, w in ((CLEAN, "clean"), (NOISE, "random labels"))]
    ax.legend(handles=handles, frameon=False, fontsize=6.5, loc="upper center", labelspacing=0.3)
    ax.set(yscale="log", xlabel="step along the direction", ylabel="loss")
    ax.set_title(f"digits: {title}", fontsize=9)


def _faked(ax: Axes, document: Document) -> None:
    """Every measure over its value for the memorizing network of the same seed, as trained and as far as rescaling takes it."""
    rows = {r["measure"]: r for r in document["table"] if r["network"] == "digits" and r["measure"] in SHOWN}
    names = sorted(rows, key=lambda n: (rows[n]["proven"], list(SHOWN).index(n)))
    for place, name in enumerate(names):
        row = rows[name]
        if not any(noise["value"] for noise in row["noise"]):
            ax.text(1.0, place, "  0 for all that memorized", va="center", fontsize=6.5, color=GREY)
        for i, (clean, noise) in enumerate(zip(row["clean"], row["noise"], strict=True)):
            if not noise["value"]:
                continue
            for side, colour, shift in ((clean, CLEAN, -0.17), (noise, NOISE, 0.17)):
                y = place + shift + 0.055 * (i - (row["seeds"] - 1) / 2)
                low, value, high = (side[k] / noise["value"] for k in ("low", "value", "high"))
                if value > 0:
                    ax.plot([max(low, 1e-4), high], [y, y], color=colour, lw=0.9, alpha=0.8)
                    ax.plot(value, y, "o", color=colour, ms=2.6, mec="white", mew=0.2)
        if place and row["proven"] != rows[names[place - 1]]["proven"]:
            ax.axhline(place - 0.5, color="#444444", lw=0.8)
            at, words = ax.get_yaxis_transform(), "below: proven to survive rescaling"
            ax.text(1.0, place - 0.47, words, fontsize=6.5, color=GREY, va="top", ha="right", transform=at)
    ax.axvline(1.0, color="black", lw=0.8, ls="--")
    ax.set_yticks(range(len(names)), [SHOWN[n] for n in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set(xscale="log", xlabel="value / memorizing network as trained")
    ax.set_title("digits: clean (blue), random labels (orange)", loc="right", fontsize=8.5)
    ax.tick_params(labelsize=7)
    ax.xaxis.label.set_size(8.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#e8e8e8", lw=0.6)
