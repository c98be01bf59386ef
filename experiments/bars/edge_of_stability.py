"""Gradient descent at the edge of stability (Cohen et al. 2021, arXiv:2103.00065; Cohen et al. 2024, arXiv:2410.24206).

With full-batch gradient descent of learning rate eta the largest eigenvalue of the Hessian rises to 2 / eta and stays there.
The set-up is the published command `opt:gd data:cifar10 arch:mlp --data.classes=4 --data.n=1000 --data.criterion=mse
--opt.lr=0.02 --steps=1000` of the second paper's code: two hidden layers of 256 GELU units, the first 250 training images of
each of the first four classes, half the squared distance to the one-hot class, 2 / eta = 100. Without images the same network
learns the first 1,000 digits with a learning rate of its own.

The images span fewer dimensions than they have pixels. In an orthonormal basis of their span gradient descent takes the same
steps and the Hessian has the same eigenvalues but zero, so the first layer is trained there, at a third of the cost.

Single steps oscillate across the valley. The images' runs are measured a second time at the midpoints of three successive
steps, (w_(t-1) + 2 w_t + w_(t+1)) / 4, in which the oscillation cancels; the published code offers the same. This was added
after the first runs had been seen, and changes nothing.

Within the published 1,000 steps half of what is seen is the first overshoot, which has to die away before the eigenvalue can be
seen to stay. So the images' runs go on to 3,000 steps, and what comes after the published ones is judged on its own. This, too,
was added after the first runs had been seen.
"""

from collections import deque
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import landscape as ls
from experiments.bars.bar import Bar, alone
from experiments.common import statistics
from experiments.common.document import Claim
from experiments.common.options import Options
from experiments.common.work import Item, Place
from landscape.tasks import read_data

WIDTH, SAMPLES = 256, 1000
# Learning rate, number of steps, steps between measurements, number of classes.
IMAGES: Item = {"data": "images", "lr": 0.02, "steps": 3000, "every": 40, "classes": 4}
DIGITS: Item = {"data": "digits", "lr": 0.2, "steps": 800, "every": 25, "classes": 10}
# Steps of the images' runs that are published; those at midpoints end there.
PUBLISHED = 1000
# Seeds of the images, at most: a run takes minutes.
MOST = 3
# The share of 2 / eta within which the eigenvalue has to stay, as published.
SHARE = 0.05


class HalfSquares(nn.Module):
    """1/2 ||output - target||^2, mean over the samples."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (output - target).square().sum(dim=-1).mean()


def samples(item: Item, place: Place) -> tuple[Tensor, Tensor]:
    """Inputs (SAMPLES, D) and one-hot targets."""
    data = read_data("digits" if item["data"] == "digits" else str(place.data))
    classes, labels = item["classes"], data.train_y
    if item["data"] == "digits":
        chosen = torch.arange(SAMPLES)
    else:
        chosen = torch.cat([(labels == c).nonzero()[: SAMPLES // classes, 0] for c in range(classes)])
    if len(chosen) < SAMPLES:
        raise SystemExit(
            f"expected {SAMPLES // classes} images of each of the first {classes} classes, found {len(chosen)} in all"
        )
    return data.prepare(data.train_x[chosen]).flatten(1), one_hot(labels[chosen], classes).float()


def in_their_span(x: Tensor, first: nn.Linear) -> tuple[Tensor, nn.Linear]:
    """The inputs and the layer that takes them, in an orthonormal basis of the inputs' span; the same outputs."""
    if len(x) >= x.shape[1]:
        return x, first
    basis = torch.linalg.qr(x.double().T).Q  # (D, N)
    layer = nn.Linear(len(x), first.out_features)
    with torch.no_grad():
        layer.weight.copy_(first.weight.double() @ basis)
        layer.bias.copy_(first.bias)
    return (x.double() @ basis).float(), layer


def items(options: Options) -> list[Item]:
    """A training run for every seed and kind of data."""
    kinds = [(DIGITS, options.seeds)] if options.data is None else [(IMAGES, options.seeds[:MOST]), (DIGITS, options.seeds)]
    steps = [kind | {"bar": "edge of stability", "seed": seed} for kind, seeds in kinds for seed in seeds]
    return steps + [item | {"steps": PUBLISHED, "at": "midpoints"} for item in steps if item["data"] == "images"]


def one(item: Item, place: Place) -> Item:
    """The largest eigenvalue through training, each started from the last eigenvector."""
    x, y = samples(item, place)
    with torch.random.fork_rng():
        torch.manual_seed(item["seed"])
        first, second, last = nn.Linear(x.shape[1], WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, item["classes"])
    x, first = in_their_span(x, first)
    network, loss = nn.Sequential(first, nn.GELU(), second, nn.GELU(), last), HalfSquares()
    weights, start = list(network.parameters()), None
    found: dict[str, list[Any]] = {"steps": [], "lambda_max": [], "residual": [], "losses": []}
    lag = int(item.get("at") == "midpoints")  # a midpoint is known one step later
    last_three: deque[Tensor] = deque(maxlen=3)
    for step in range(item["steps"] + 1):
        value = loss(network(x), y)
        last_three.append(parameters_to_vector(weights).detach())
        if step >= lag and (step - lag) % item["every"] == 0:
            measured = at_midpoint(network, last_three) if lag else network
            objective = ls.Objective(measured, loss, (x, y))
            pairs = ls.eigenpairs(objective, 1, tol=3e-3, start=start, generator=torch.Generator().manual_seed(item["seed"]))
            start = pairs.vectors
            for name, number in zip(found, (step - lag, pairs.values[0], pairs.residuals[0], value.detach()), strict=True):
                found[name].append(float(number))
        for weight, slope in zip(weights, torch.autograd.grad(value, weights), strict=True):
            with torch.no_grad():
                weight.sub_(slope, alpha=item["lr"])
    return found


def at_midpoint(network: nn.Module, weights: deque[Tensor]) -> nn.Module:
    """A copy of the network at (w_(t-1) + 2 w_t + w_(t+1)) / 4, or at (w_0 + w_1) / 2 at the start."""
    copy = deepcopy(network)
    points = list(weights)
    middle = (points[-3] + 2 * points[-2] + points[-1]) / 4 if len(points) == 3 else (points[0] + points[1]) / 2
    vector_to_parameters(middle, copy.parameters())
    return copy


def relative(done: Item, after: float = -1, last: float = float("inf")) -> list[float]:
    """The eigenvalues over 2 / eta, of the steps later than `after`, `last` included."""
    edge = 2 / done["item"]["lr"]
    return [value / edge for step, value in zip(done["steps"], done["lambda_max"], strict=True) if after < step <= last]


def plateau(values: list[float]) -> list[float]:
    """The values from the first that reaches 1 on; empty if none does."""
    return values[next((i for i, value in enumerate(values) if value >= 1), len(values)) :]


def judged(runs: list[list[float]], edge: float, said: str) -> tuple[bool, str, list[str], dict[str, Any]]:
    """Whether the runs' mean value (over 2 / eta) is within 5 % of 1, in words, the power and the numbers."""
    means = statistics.mean([edge * sum(values) / len(values) for values in runs])
    near = sum(abs(value - 1) <= SHARE for values in runs for value in values) / sum(map(len, runs))
    numbers = {"mean": means.to_json(), "share within 5 %": near, "largest": edge * max(map(max, runs))}
    told = f"{said} {means}; {100 * near:.0f} % of the values within 5 %, largest {numbers['largest']:.4g}"
    seen = statistics.equality([[sum(values) / len(values) for values in runs]], SHARE, "%", unit=100)
    return means.low >= edge * (1 - SHARE) and means.high <= edge * (1 + SHARE), told, [seen] if seen else [], numbers


def bar(done: list[Item], options: Options) -> Bar:
    """Whether the eigenvalue reaches 2 / eta and its mean over the rest of training is within 5 % of it."""
    claims = []
    for kind, at in ((IMAGES, "steps"), (IMAGES, "midpoints"), (DIGITS, "steps")):
        runs = [d for d in done if d["item"]["data"] == kind["data"] and d["item"].get("at", "steps") == at]
        if not runs:
            continue
        reached, edge = [plateau(relative(d, last=PUBLISHED)) for d in runs], 2 / kind["lr"]
        number = sum(len(values) > 1 for values in reached)
        holds, told = False, f"reaches {edge:g} in {number} of {len(runs)} runs"
        seen = [statistics.exceptions(len(runs), "runs that do not reach it")]
        numbers: dict[str, Any] = {"reached": number, "edge": edge}
        if number == len(runs):
            holds, words, power, more = judged(reached, edge, "mean after that")
            told, seen, numbers = f"{told}; {words}", power + seen, numbers | more
        published = "100, within 2 to 5 %" if kind is IMAGES else f"2 / eta = {edge:g} by theory"
        claim = f"gradient descent on {SAMPLES:,} {kind['data']}: lambda_max rises to 2 / eta and stays, at {at}"
        claims.append(Claim(claim, published, told, holds, "; ".join(seen), numbers=numbers, question=kind is DIGITS))
        later = [relative(d, after=PUBLISHED) for d in runs]
        if all(later):
            holds, told, power, numbers = judged(later, edge, f"mean over steps {PUBLISHED:,} to {kind['steps']:,}")
            claim = (
                f"gradient descent on {SAMPLES:,} {kind['data']}: lambda_max stays at 2 / eta once the overshoot has died away"
            )
            claims.append(Claim(claim, published, told, holds, "; ".join(power), numbers=numbers | {"edge": edge}))
    departures = [
        f"Edge of stability: lambda_max is measured every {IMAGES['every']} steps (digits: {DIGITS['every']}); what is held "
        f"against 5 % is its mean from the first value that reaches 2 / eta to step {PUBLISHED:,}, first overshoot included. "
        f"The images are those of --data, in their order there, with at most {MOST} seeds; that they are measured at midpoints "
        f"too, and that the runs go on after the published {PUBLISHED:,} steps to {IMAGES['steps']:,}, was added after the "
        "first result had been seen.",
    ]
    return Bar(claims, {}, departures)


if __name__ == "__main__":
    alone("edge_of_stability")
