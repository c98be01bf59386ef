"""An attention network with grouped queries, its pairs written down by hand, and its orbits moved by plain matrix algebra."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.objective import Objective
from landscape.symmetry.mixing.mixtures import Mixing, Rows

WIDTH, HEADS, CHANNELS, HIDDEN, CLASSES = 5, 2, 3, 4, 3


class GroupedAttention(nn.Module):
    """LayerNorm, two query heads that share one key and one value head, a residual stream, a rectified layer."""

    def __init__(self, tokens: int | None = None, per_token: bool = False) -> None:
        super().__init__()
        self.embed = None if tokens is None else nn.Embedding(tokens, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, n * CHANNELS) for n in (HEADS, 1, 1))
        self.o = nn.Linear(HEADS * CHANNELS, WIDTH)
        self.a, self.b = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.per_token = per_token

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.embed is None else self.embed(x)
        h = self.norm(x)
        q = self.q(h).unflatten(-1, (HEADS, CHANNELS)).transpose(1, 2)
        weights = (q @ self.k(h)[:, None].transpose(-1, -2) / CHANNELS**0.5).softmax(-1)
        x = x + self.o((weights @ self.v(h)[:, None]).transpose(1, 2).flatten(2))
        y = self.b(F.relu(self.a(x)))
        return y if self.per_token else y.mean(1)


def made(seed: int = 0, **options: object) -> GroupedAttention:
    """The network in float64; biases and gains are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GroupedAttention(**options).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return model


def classified(model: nn.Module, n: int = 12, length: int = 4) -> Objective:
    """The loss of a network of real inputs on random data."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, length, WIDTH, generator=generator, dtype=torch.float64)
    return Objective(model, nn.CrossEntropyLoss(), (x, torch.randint(CLASSES, (n,), generator=generator)), dtype="float64")


def columns(heads: int) -> Iterator[Tensor]:
    """For each head of a projection (heads * h, WIDTH): the flat positions of its rows, one for each input."""
    positions = torch.arange(heads * CHANNELS * WIDTH).reshape(heads, CHANNELS, WIDTH)
    yield from positions.transpose(1, 2)


def pairs() -> tuple[Mixing, Mixing]:
    """Queries and keys; values and output projection."""
    biases = torch.arange(HEADS * CHANNELS).reshape(HEADS, 1, CHANNELS)
    outputs = torch.arange(WIDTH * HEADS * CHANNELS).reshape(WIDTH, HEADS, CHANNELS)
    keys = (Rows("k.weight", next(columns(1)), False), Rows("k.bias", biases[0], False))
    queries = [Rows("q.weight", at, True) for at in columns(HEADS)] + [Rows("q.bias", at, True) for at in biases]
    values = (Rows("v.weight", next(columns(1)), False), Rows("v.bias", biases[0], False))
    projected = [Rows("o.weight", outputs[:, head], True) for head in range(HEADS)]
    return (
        Mixing("q and k", CHANNELS, "general", (*keys, *queries)),
        Mixing("v and o", CHANNELS, "general", (*values, *projected)),
    )


def conditioned(seed: int, condition: float = 10.0, size: int = CHANNELS) -> Tensor:
    """A random matrix of this condition number and of no particular scale."""
    u, _, v = torch.linalg.svd(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return u @ torch.diag(torch.logspace(0.2, 0.2 - np.log10(condition), size, dtype=torch.float64)) @ v


def mixed(model: GroupedAttention, first: Tensor, second: Tensor) -> GroupedAttention:
    """Keys times `first`, queries of every head against it; values times `second`, the output projection against it."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for layer, matrix in ((other.k, first), (other.v, second)):
            layer.weight.copy_(matrix @ layer.weight)
            layer.bias.copy_(matrix @ layer.bias)
        against = torch.linalg.inv(first).T
        other.q.weight.copy_((against @ other.q.weight.unflatten(0, (HEADS, CHANNELS))).flatten(0, 1))
        other.q.bias.copy_((other.q.bias.unflatten(0, (HEADS, CHANNELS)) @ against.T).flatten())
        other.o.weight.copy_((other.o.weight.unflatten(1, (HEADS, CHANNELS)) @ torch.linalg.inv(second)).flatten(1))
    return other


def rescaled(model: GroupedAttention, seed: int = 3) -> GroupedAttention:
    """Every output of the LayerNorm and every rectified neuron by a factor of its own, what reads it divided by it."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    s, t = (torch.exp(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (WIDTH, HIDDEN))
    with torch.no_grad():
        for p in (other.norm.weight, other.norm.bias):
            p.mul_(s)
        for layer in (other.q, other.k, other.v):
            layer.weight.div_(s)
        other.a.weight.mul_(t[:, None])
        other.a.bias.mul_(t)
        other.b.weight.div_(t)
    return other


def moved(model: GroupedAttention) -> dict[str, GroupedAttention]:
    """The network elsewhere on its orbits; the function is the same."""
    first, second = conditioned(3), conditioned(4)
    return {
        "pair": mixed(model, first, second),
        "node": rescaled(model),
        "both": mixed(rescaled(model), first, second),
    }
