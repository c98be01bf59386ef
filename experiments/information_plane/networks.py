"""The networks of the information plane: the twelve-bit task and digits, several seeds trained side by side.

The networks are tiny, so that a step of one costs as much as a step of ten: the seeds of a kind, with true and with random
labels, are one stack of matrices. Every network draws its weights, labels and batches from its own generator, and Adam works on
each weight alone, so that no network depends on its neighbours.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from landscape.tasks import read_data

LABELS = ("true", "random")
# Hidden layers as in the papers: 10-7-5-4-3 for the twelve bits (Shwartz-Ziv and Tishby), and for images a wide layer and
# three of 20 units (Saxe et al.: 1024-20-20-20 for MNIST).
WIDTHS = {"bits": (12, 10, 7, 5, 4, 3, 2), "digits": (64, 100, 20, 20, 20, 10)}


def twelve_bits() -> tuple[Tensor, Tensor]:
    """All 4,096 patterns of twelve bits and a binary label that no rotation of a sphere changes.

    The bits say which of the twelve vertices v_i of an icosahedron are marked. y = 1 if |sum_i x_i v_i|^2 > 2.5: the power of
    the marks in the spherical harmonics of degree 1. p(y = 1) = 0.497.

    Shwartz-Ziv and Tishby have twelve bits on a sphere too, and a threshold of a function of the spherical harmonics' power
    spectrum for which p(y = 1) is about 0.5, smoothed to a probability with 0.99 bits. Their labels are a file; their function
    is not given. This one is deterministic and of degree 1 alone.
    """
    golden = (1 + 5**0.5) / 2
    pairs = itertools.product((-1.0, 1.0), (-golden, golden))
    vertices = np.array([v for a, b in pairs for v in ((0, a, b), (a, b, 0), (b, 0, a))])
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    x = np.array(list(itertools.product((0, 1), repeat=12)), dtype=float)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(((x @ vertices) ** 2).sum(1) > 2.5).long()


def data(task: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels, rows of the training set: 80 % of the twelve bits, drawn by the seed; of digits their own split."""
    if task == "bits":
        x, y = twelve_bits()
        return x, y, torch.randperm(len(x), generator=_generator(seed, 0))[: round(0.8 * len(x))]
    found = read_data("digits")
    x = torch.cat([found.train_x, found.test_x]).flatten(1)
    return x, torch.cat([found.train_y, found.test_y]), torch.arange(len(found.train_y))


@dataclass(frozen=True)
class Snapshot:
    """The networks after an epoch.

    Attributes:
        epoch: number of epochs trained.
        layers: activations of the hidden layers for all inputs, each (networks, N, units).
        train, test: accuracy of each network, on its own labels.
    """

    epoch: int
    layers: list[Tensor]
    train: list[float]
    test: list[float]


def logarithmic(epochs: int, count: int) -> list[int]:
    """0 and about `count` epochs to the last one, evenly spaced in the logarithm."""
    return sorted({0, *(round(epochs ** (i / (count - 1))) for i in range(count))})


def labels_of(task: str, seeds: Sequence[int]) -> Tensor:
    """The labels of every network, (networks, N): the seeds' true labels, then those permuted by the seed."""
    known = [data(task, s)[1] for s in seeds]
    drawn = [y[torch.randperm(len(y), generator=_generator(s, 1))] for y, s in zip(known, seeds, strict=True)]
    return torch.stack([*known, *drawn])


def trained(
    task: str, activation: str, seeds: Sequence[int], *, epochs: int, batch: int, lr: float, at: Sequence[int]
) -> Iterator[Snapshot]:
    """Train a network for each seed and kind of labels, and yield them at some epochs.

    Adam on the cross-entropy, as in both papers' code. Weights are normal, cut at two standard deviations of 1 / sqrt(inputs),
    for rectifiers sqrt(2 / inputs); biases are 0, for rectifiers 0.1: in layers of three units those that start at 0 often die.
    """
    function: Callable[[Tensor], Tensor] = torch.tanh if activation == "tanh" else torch.relu
    parts = [data(task, s) for s in seeds] * len(LABELS)
    x, y = parts[0][0], labels_of(task, seeds)
    rows = torch.stack([part[2] for part in parts])
    draws = [_generator(s, 2 + k) for k in range(len(LABELS)) for s in seeds]
    weights, biases = _initial(WIDTHS[task], activation, draws)
    optimizer = torch.optim.Adam([*weights, *biases], lr=lr)
    each = torch.arange(len(draws))[:, None]

    def forward(h: Tensor) -> list[Tensor]:
        out = []
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(b, h, w)
            h = function(h) if i < len(weights) - 1 else h
            out.append(h)
        return out

    for epoch in range(epochs + 1):
        if epoch in at:
            with torch.no_grad():
                *layers, logits = forward(x.expand(len(draws), -1, -1))
            hit = logits.argmax(-1) == y
            seen = torch.zeros_like(hit).scatter_(1, rows, True)
            yield Snapshot(epoch, layers, *(_share(hit, part) for part in (seen, ~seen)))
        order = torch.stack([r[torch.randperm(len(r), generator=g)] for r, g in zip(rows, draws, strict=True)])
        for picked in order.split(batch, dim=1):
            out = forward(x[picked])[-1]
            loss = nn.functional.cross_entropy(out.flatten(0, 1), y[each, picked].flatten()) * len(draws)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _initial(widths: Sequence[int], activation: str, draws: Sequence[torch.Generator]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (networks, in, out) and biases (networks, 1, out) of each layer."""
    gain, bias = (1.0, 0.0) if activation == "tanh" else (2.0**0.5, 0.1)
    weights, biases = [], []
    for a, b in itertools.pairwise(widths):
        each = [nn.init.trunc_normal_(torch.empty(a, b), 0, 1, -2, 2, generator=g) for g in draws]
        weights.append((torch.stack(each) * gain / a**0.5).requires_grad_())
        biases.append(torch.full((len(draws), 1, b), bias).requires_grad_())
    return weights, biases


def _share(hit: Tensor, part: Tensor) -> list[float]:
    """The share of hits of every network in its part of the rows."""
    return ((hit & part).sum(1) / part.sum(1)).tolist()


def _generator(seed: int, purpose: int) -> torch.Generator:
    """A generator of its own for every seed and purpose."""
    return torch.Generator().manual_seed(1_000_003 * purpose + seed)
