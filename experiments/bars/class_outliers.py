"""Outliers of a classifier's Hessian, one for each class but one, then a gap.

Sagun et al. 2017 (arXiv:1706.04454), Gur-Ari et al. 2018 (arXiv:1812.04754) and Papyan 2019 (arXiv:1901.08244): the spectrum
of a trained classifier of C classes has about C (or C - 1) eigenvalues outside the bulk. A perceptron on digits has few enough
weights to form the Hessian: all eigenvalues, in float64. The number of outliers was defined before any was seen as the i
between 1 and 3 C with the largest ratio of consecutive eigenvalues, lambda_i / lambda_(i+1).
"""

from dataclasses import replace

import numpy as np
import torch

import landscape as ls
from experiments.bars.bar import Bar, alone
from experiments.common import statistics
from experiments.common.document import Claim
from experiments.common.networks import DIGITS
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.tasks import Recipe

CLASSES, WIDTH, KEPT = 10, 32, 60


def outliers(values: np.ndarray, classes: int = CLASSES) -> tuple[int, float]:
    """The number of outliers, as defined above, and the ratio behind the last of them; `values` in decreasing order."""
    top = values[: 3 * classes + 1]
    if not (top > 0).all():
        raise ValueError(f"expected {3 * classes + 1} positive eigenvalues, found {int((values > 0).sum())}")
    ratios = top[:-1] / top[1:]
    return int(ratios.argmax()) + 1, float(ratios.max())


def items(options: Options) -> list[Item]:
    """One network for every seed."""
    recipe = replace(DIGITS, network_options={"widths": [WIDTH]})
    return [{"bar": "class outliers", "seed": seed, "recipe": replace(recipe, seed=seed).to_json()} for seed in options.seeds]


def one(item: Item, place: Place) -> Item:
    """All eigenvalues of one trained network's Hessian, and the largest by Lanczos."""
    objective = place.task(Recipe.from_json(item["recipe"])).objective(dtype="float64")
    matrix = objective.hvp(torch.eye(objective.dim, dtype=torch.float64)).numpy()
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    pairs = ls.eigenpairs(objective, CLASSES + 2)
    count, ratio = outliers(values)
    at = objective.evaluate()
    assert at.accuracy is not None
    return {
        "outliers": count,
        "ratio": ratio,
        "ratio after 9": float(values[CLASSES - 2] / values[CLASSES - 1]),
        "ratio after 10": float(values[CLASSES - 1] / values[CLASSES]),
        "eigenvalues": values[:KEPT].tolist(),
        "lambda_min": float(values[-1]),
        "error": float(np.abs(pairs.values / values[: len(pairs.values)] - 1).max()),
        "weights": objective.dim,
        "loss": at.loss.value,
        "accuracy": at.accuracy.value,
    }


def bar(done: list[Item], options: Options) -> Bar:
    """Whether there are C - 1 or C outliers, and whether Lanczos finds them."""
    counts = [d["outliers"] for d in done]
    ratios = statistics.mean([d["ratio"] for d in done])
    error = max(d["error"] for d in done)
    right = [c in (CLASSES - 1, CLASSES) for c in counts]
    claims = [
        Claim(
            "a trained classifier of ten classes has nine outliers (or ten), then a gap",
            "C - 1 = 9 or C = 10",
            f"{', '.join(map(str, counts))} in {len(counts)} networks; the ratio at the gap is {ratios}",
            all(right),
            statistics.exceptions(len(counts), "networks with another number"),
            numbers={"outliers": counts, "ratio": ratios.to_json()},
        ),
        Claim(
            "Lanczos finds the eigenvalues of the dense Hessian",
            "the same eigenvalues",
            f"largest relative error of the first {CLASSES + 2}: {error:.1e} against LAPACK in float64 (bound 1e-6)",
            error <= 1e-6,
            numbers={"error": error},
            question=True,
        ),
    ]
    departures = [
        f"Class outliers: a perceptron 64-{WIDTH}-10 on digits at a training loss of 0.01, small enough for the dense Hessian; "
        "the papers have larger networks and images, and count by eye.",
    ]
    return Bar(claims, {}, departures)


if __name__ == "__main__":
    alone("class_outliers")
