"""figures/bars.png, drawn from experiments/results/bars.json alone."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, canvas, finish

Runs = list[dict[str, Any]]
PUBLISHED = {"color": "black", "marker": "D", "ms": 5, "ls": "none", "zorder": 5}


def draw() -> None:
    """One panel for each bar that has a picture."""
    document = read("bars")
    bars, runs, how, found = (document[part] for part in ("bars", "runs", "how", "verdict"))
    figure, axes = canvas(2, 3, width=10.5, height=3.1)
    _diagonal(axes[0, 0], bars["diagonal_networks"])
    _spectrum(axes[0, 1], runs["synthetic_spectrum"])
    _classes(axes[0, 2], runs["class_outliers"])
    edge = runs["edge_of_stability"]
    _edge(axes[1, 0], [r for r in edge if r["item"]["data"] == "images"], "1,000 images")
    _edge(axes[1, 1], [r for r in edge if r["item"]["data"] == "digits"], "1,000 digits")
    _axes(axes[1, 2], runs["random_axes"])
    finish(
        figure,
        "bars",
        title="Published numbers and theory, and what the toolkit measures",
        caption=f"{len(how['seeds'])} seeds, of the images at most 3. Top left: bars are 95 % intervals of one experiment (a "
        f"data set and 50 networks "
        "on it); dots are the data sets. Top middle: the band is simultaneous, 95 %. Lines are runs, one for each seed. "
        f"{found['verdict'].capitalize()}: {claims_held(found)}.",
    )


def _diagonal(ax: Axes, data: dict[str, Any]) -> None:
    """Kendall's tau with its interval beside the published one."""
    names = {"adaptive": "adaptive", "inv": "geodesic, inv", "mix": "geodesic, mix"}
    for i, name in enumerate(names):
        row = data["taus"][name]
        ax.vlines(i, row["low"], row["high"], color=COLOURS[0], lw=5, alpha=0.35, label="ours" if i == 0 else None)
        ax.plot([i] * len(row["taus"]), row["taus"], "o", ms=3.5, color=COLOURS[0])
        ax.plot(i + 0.18, row["published"], **PUBLISHED, label="published" if i == 0 else None)
    ax.set_title("Diagonal networks", fontsize=9)
    ax.set(ylabel="Kendall's tau with the test loss", xticks=range(len(names)), xlim=(-0.5, 2.6))
    ax.set_xticklabels(list(names.values()))
    ax.axhline(0, color=GREY, lw=0.6)
    ax.set_ylim(-1, 0.7)
    ax.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)


def _spectrum(ax: Axes, runs: Runs) -> None:
    """Histogram of all eigenvalues, the density over it, and the outliers."""
    run = next(r for r in runs if "curves" in r)
    c = run["curves"]
    edges = np.linspace(0, 7, len(c["histogram"]) + 1)
    ax.stairs(c["histogram"], edges, fill=True, color="#d0d0d0", label="all eigenvalues")
    ax.fill_between(c["grid"], c["lower"], c["upper"], color=COLOURS[0], alpha=0.25, lw=0)
    ax.plot(c["grid"], c["density"], color=COLOURS[0], lw=1.1, label="density, 128 steps, 10 probes")
    ax.plot(run["outliers"], [2.5e-3] * 3, "v", color=COLOURS[1], ms=5, label="outliers found")
    ax.set_title("2,000 × 2,000 with three spikes", fontsize=9)
    ax.set(xlabel="eigenvalue", ylabel="density", yscale="log")
    ax.set(ylim=(1e-4, 20), xlim=(-0.2, 7))
    ax.legend(fontsize=7, frameon=False)


def _classes(ax: Axes, runs: Runs) -> None:
    """The largest eigenvalues by their rank, and where the gap was found."""
    for i, run in enumerate(runs):
        values = run["eigenvalues"][:31]
        ax.plot(range(1, len(values) + 1), values, "-", lw=0.8, color=COLOURS[0], label="eigenvalues" if i == 0 else None)
        n = run["outliers"]
        ax.plot(n, values[n - 1], "o", ms=5, color=COLOURS[1], label="the last outlier" if i == 0 else None)
    ax.axvspan(8.6, 10.4, color="#e4e4e4", lw=0, label="published: 9 or 10", zorder=0)
    ax.set_title("Classes of digits", fontsize=9)
    ax.set(xlabel="rank", ylabel="eigenvalue of the Hessian", yscale="log")
    ax.legend(fontsize=7, frameon=False)


def _edge(ax: Axes, runs: Runs, what: str) -> None:
    """The largest eigenvalue, over 2 / eta, through training."""
    ax.set_title(f"Edge of stability: {what}", fontsize=9)
    ax.set(xlabel="step of gradient descent", ylabel="lambda_max / (2 / eta)")
    if not runs:
        ax.text(0.5, 0.5, "not measured: no images", ha="center", va="center", color=GREY, transform=ax.transAxes)
        return
    told = set()
    for run in runs:
        relative = [value * run["item"]["lr"] / 2 for value in run["lambda_max"]]
        at = run["item"].get("at", "steps")
        label = None if at in told else f"at {at}"
        ax.plot(run["steps"], relative, lw=0.9, color=COLOURS[at == "midpoints"], alpha=0.8, label=label)
        told.add(at)
    ax.axhspan(0.95, 1.05, color="#dcdcdc", lw=0, zorder=0, label=f"2 / eta = {2 / runs[0]['item']['lr']:g}, 5 % around it")
    ax.legend(fontsize=7, frameon=False, loc="lower right")


def _axes(ax: Axes, runs: Runs) -> None:
    """Curvature along random axes of one saddle, its expectation, and the extreme eigenvalues."""
    run = next(r for r in runs if r["item"]["saddle"] == "perceptron" and "curvatures" in r)
    ax.hist(run["curvatures"], bins=30, color=COLOURS[0], alpha=0.5, label="random axes")
    ax.axvline(run["mean eigenvalue"], color="black", lw=1.2, label="tr H / P")
    ax.axvline(run["lambda_min"], color=COLOURS[1], lw=1.2, label=f"lambda_min = {run['lambda_min']:.2g}")
    ax.axvline(0, color=GREY, lw=0.6, ls=":")
    ax.set_title("A saddle on random axes", fontsize=9)
    ax.set(xlabel="curvature per squared length", ylabel="number of axes")
    ax.legend(fontsize=7, frameon=False)
