"""What random planes show of a saddle (Böttcher and Wheeler 2022, arXiv:2208.13219).

The curvature along a random axis of independent normal numbers, per squared length, has the expectation tr H / P: the mean of
all eigenvalues. So a saddle with more positive than negative curvature looks like a minimum in a random plane. Two saddles are
measured: one of a known Hessian, L(w) = 1/2 sum_i h_i w_i^2 with h = 1 for 600 weights and -1 for 400, and a perceptron on
digits after one epoch of training, whose Hessian is formed.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor, nn

import landscape as ls
from experiments.bars.bar import Bar, alone
from experiments.common import statistics
from experiments.common.document import Claim
from experiments.common.networks import DIGITS
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.surfaces import random_direction
from landscape.tasks import Recipe

PLANES, WIDTH = 200, 8
MARGIN = 0.05  # of equivalence: all of the interval is so near to 1
UPWARDS, DOWNWARDS = 600, 400
RULE = f"Random axes: after the runs the rule became an interval within {MARGIN:.0%} of 1; before, it had to contain 1."


class Saddle(nn.Module):
    """(1, P) curvatures h -> (1,) 1/2 sum_i h_i w_i^2 at w = 0."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(weights))

    def forward(self, h: Tensor) -> Tensor:
        return 0.5 * h @ self.w.square()


def itself(output: Tensor, target: Tensor) -> Tensor:
    """The output as the loss."""
    return (output - target).mean()


def items(options: Options) -> list[Item]:
    """Both saddles for every seed."""
    own: Item = {"bar": "random axes", "planes": PLANES}
    known = [own | {"saddle": "known Hessian", "seed": seed} for seed in options.seeds]
    early = replace(DIGITS, network_options={"widths": [WIDTH]}, epochs=1, stop_loss=None)
    recipes = [replace(early, seed=seed).to_json() for seed in options.seeds]
    return known + [own | {"saddle": "perceptron", "seed": recipe["seed"], "recipe": recipe} for recipe in recipes]


def saddle(item: Item, place: Place) -> ls.Objective:
    """The loss at the saddle, in float64."""
    if item["saddle"] == "known Hessian":
        h = torch.cat((torch.ones(UPWARDS), -torch.ones(DOWNWARDS)))[None].double()
        return ls.Objective(Saddle(h.shape[1]), itself, (h, torch.zeros(1, dtype=torch.float64)), dtype="float64")
    return place.task(Recipe.from_json(item["recipe"])).objective(dtype="float64")


def one(item: Item, place: Place) -> Item:
    """Curvature along random axes, and the extreme curvatures of each random plane."""
    objective = saddle(item, place)
    seeds = range(2 * PLANES * item["seed"], 2 * PLANES * (item["seed"] + 1))
    axes = torch.stack([random_direction(objective, seed=seed, norm="none", zero=()).vector for seed in seeds])
    products = objective.hvp(axes)
    form, lengths = (axes @ products.T).numpy(), (axes @ axes.T).numpy()
    planes = [slice(2 * i, 2 * i + 2) for i in range(PLANES)]
    lowest = [float(eigh(form[p, p], lengths[p, p], eigvals_only=True)[0]) for p in planes]
    values = np.linalg.eigvalsh(objective.hvp(torch.eye(objective.dim, dtype=torch.float64)).numpy())
    ends = ls.eigenpairs(objective, 1, "both")
    return {
        "curvatures": (np.diag(form) / np.diag(lengths)).tolist(),
        "lowest of each plane": lowest,
        "mean eigenvalue": float(values.mean()),
        "lambda_min": float(values[0]),
        "lambda_max": float(values[-1]),
        "negative": float((values < 0).mean()),
        "error": float(np.abs(ends.values - values[[-1, 0]]).max() / np.abs(values).max()),
        "weights": objective.dim,
    }


def bar(done: list[Item], options: Options) -> Bar:
    """Whether the mean curvature is tr H / P, and how many planes of a saddle look like a minimum."""
    claims = []
    for kind in ("known Hessian", "perceptron"):
        runs = [d for d in done if d["item"]["saddle"] == kind]
        ratios = [float(np.mean(d["curvatures"])) / d["mean eigenvalue"] for d in runs]
        depths = [d["lambda_min"] / d["lambda_max"] for d in runs]
        ratio, low = statistics.mean(ratios), statistics.mean(depths)
        hidden = statistics.mean([float(np.mean(np.array(d["lowest of each plane"]) > 0)) for d in runs])
        planes = PLANES * len(runs)  # taken to be independent
        share = statistics.detectable_share(planes, statistics.hits_above(planes, 0.5))
        seen = f"a share of {100 * share:.0f} % of {planes} planes"
        if kind == "perceptron":  # the other has a known lambda_min
            seen += f", and a lambda_min of {-statistics.departure(depths, 0.0):.2g} of lambda_max"
        claims += [
            Claim(
                f"the curvature along random axes of a saddle ({kind}) is tr H / P in the mean",
                "tr H / P (ratio 1)",
                f"ratio {ratio} ({len(runs)} x {2 * PLANES} axes; within {MARGIN:.0%})",
                statistics.within(ratio, 1 - MARGIN, 1 + MARGIN),
                statistics.equality([ratios], MARGIN, "%", unit=100),
                numbers={"ratio": ratio.to_json()},
                question=True,
            ),
            Claim(
                f"in most random planes a saddle ({kind}) looks like a minimum",
                "a saddle can look like a minimum (no number)",
                f"{100 * hidden.value:.3g} % [{100 * hidden.low:.3g}, {100 * hidden.high:.3g}] of {PLANES} planes curve "
                f"upwards in all directions, while lambda_min is {low} of lambda_max",
                hidden.low > 0.5 and low.high < 0,
                seen,
                numbers={"planes": hidden.to_json(), "lambda_min over lambda_max": low.to_json()},
                question=True,
            ),
        ]
    return Bar(claims, {}, (RULE,))


if __name__ == "__main__":
    alone("random_axes")
