"""Learned numbers, learned values that no input moves, and comparisons: what they let pass is found, or said to be not known."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_hidden_moves import SEQUENCE, VECTOR, Net, between, drawn, spaces
from torch import Tensor, nn
from torch.nn import functional as F

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


def after_gelu(last: Callable[[Any, Tensor], Tensor], **parts: Any) -> Net:
    """Something behind a linear map and a GELU, before a linear map."""
    return between(lambda m, z: last(m, F.gelu(z)), **parts)


def after_gelu_of(last: Callable[[Any, Tensor, Tensor], Tensor], **parts: Any) -> Net:
    """The same, with the input beside it."""
    return Net(lambda m, x: last(m, x, F.gelu(m.a(x))), a=nn.Linear(5, 4), h=nn.Linear(4, 3), **parts)


def two_gelus(m: Any, x: Tensor) -> Tensor:
    return m.h(m.w[0] * F.gelu(m.a(x)) + m.w[1] * F.gelu(m.c(x)))


FOUND: dict[str, Case] = {
    "a learned number times a GELU": (lambda: after_gelu(lambda m, z: z * m.t, t=drawn(1)), VECTOR),
    "a learned number without axes": (lambda: after_gelu(lambda m, z: m.t * z, t=drawn()), VECTOR),
    "a GELU over a learned number": (lambda: after_gelu(lambda m, z: z / m.t, t=drawn(1)), VECTOR),
    "a GELU over a learned vector": (lambda: after_gelu(lambda m, z: z / m.t, t=drawn(4)), VECTOR),
    "a learned number times the input": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x * m.t))), a=nn.Linear(5, 4), h=nn.Linear(4, 3), t=drawn(1)), VECTOR,
    ),
    "two GELUs by two elements of a vector": (
        lambda: Net(two_gelus, a=nn.Linear(5, 4), c=nn.Linear(5, 4), w=drawn(2), h=nn.Linear(4, 3)), VECTOR,
    ),
}  # fmt: skip

SAID: dict[str, Case] = {
    "a learned number over activations": (
        lambda: Net(lambda m, x: F.gelu(m.h(m.t / m.a(x))), a=nn.Linear(5, 4, bias=False), h=nn.Linear(4, 3), t=drawn(1)),
        VECTOR,
    ),
    "a learned vector over activations": (
        lambda: Net(lambda m, x: F.gelu(m.h(m.t / m.a(x))), a=nn.Linear(5, 4, bias=False), h=nn.Linear(4, 3), t=drawn(4)),
        VECTOR,
    ),
    "a gate that is a function of weights alone": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x) * torch.sigmoid(m.t))), a=nn.Linear(5, 4), h=nn.Linear(4, 3), t=drawn(4)),
        VECTOR,
    ),
    "a positive gate behind a GELU": (lambda: after_gelu(lambda m, z: F.softplus(m.t) * z, t=drawn(4)), VECTOR),
    "a constant through a tanh": (
        lambda: between(lambda m, z: F.gelu(z + torch.tanh(m.t)), t=drawn(4)), VECTOR,
    ),
    "the square of weights": (lambda: between(lambda m, z: F.gelu(z * m.t.square()), t=drawn(4)), VECTOR),
    "a sigmoid of weights times a number": (lambda: between(lambda m, z: F.gelu(z + torch.tanh(2 * m.t)), t=drawn(4)), VECTOR),
    "a linear map of coordinates": (
        lambda: between(lambda m, z: F.gelu(z + m.c(torch.arange(5, dtype=z.dtype))), c=nn.Linear(5, 4)), VECTOR,
    ),
    "a linear map of coordinates, as a gate": (
        lambda: after_gelu(lambda m, z: z * F.gelu(m.c(torch.linspace(0, 1, 5, dtype=z.dtype))), c=nn.Linear(5, 4)), VECTOR,
    ),
    "a convolution of coordinates": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.a(x) + m.c(torch.ones(1, 2, 4, 4, dtype=x.dtype))).flatten(1)),
            a=nn.Conv2d(2, 2, 1), c=nn.Conv2d(2, 2, 1), h=nn.Linear(32, 3),
        ), (2, 4, 4),
    ),
    "a learned number added to a GELU": (lambda: after_gelu(lambda m, z: z + m.t, t=drawn(1)), VECTOR),
    "a learned number without axes, added to a GELU": (lambda: after_gelu(lambda m, z: m.t + z, t=drawn()), VECTOR),
    "a learned number without axes, added before a GELU": (lambda: between(lambda m, z: F.gelu(z + m.t), t=drawn()), VECTOR),
    "a learned number a position, added to a GELU": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x)) + m.t), a=nn.Linear(6, 5), h=nn.Linear(5, 3), t=drawn(4, 1)), SEQUENCE,
    ),
    "a gain a position, as many as channels": (
        lambda: Net(lambda m, x: m.h(F.rms_norm(m.a(x), (4,), eps=1e-20) * m.g), a=nn.Linear(6, 4), g=drawn(4, 1), h=nn.Linear(4, 4)),
        SEQUENCE,
    ),
    "a bias a position, as many as channels": (
        lambda: Net(lambda m, x: m.h(m.a(x) + m.g), a=nn.Linear(6, 4), g=drawn(4, 1), h=nn.Linear(4, 4)), SEQUENCE,
    ),
    "a LayerNorm over channels and places": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.c(F.layer_norm(m.a(x), (3, 2, 2), m.g, m.b, 1e-20))).flatten(1)),
            a=nn.Conv2d(2, 3, 3), c=nn.Conv2d(3, 3, 1), h=nn.Linear(12, 3), g=drawn(3, 2, 2), b=drawn(3, 2, 2),
        ), (2, 4, 4),
    ),
    "a LayerNorm over as many places as channels": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.c(F.layer_norm(m.a(x), (2, 2), m.g, m.b, 1e-20))).flatten(1)),
            a=nn.Conv2d(2, 4, 3), c=nn.Conv2d(4, 3, 1), h=nn.Linear(12, 3), g=drawn(2, 2), b=drawn(2, 2),
        ), (2, 4, 4),
    ),
    "the largest of several scores": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.a(x))) * (m.r(x).argmax(-1, keepdim=True) == torch.arange(3)),
            a=nn.Linear(5, 4), h=nn.Linear(4, 3), r=nn.Linear(5, 3),
        ), VECTOR,
    ),
    "a comparison of two linear maps": (
        lambda: after_gelu_of(lambda m, x, z: m.h(z * (m.r(x) > m.s(x.sin()))), r=nn.Linear(5, 4), s=nn.Linear(5, 4)), VECTOR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str) -> None:
    there, found, symmetries = spaces(*FOUND[name])
    assert found == there > 0
    assert symmetries.all_unread == ()


@pytest.mark.parametrize("name", SAID)
def test_it_is_said(name: str) -> None:
    there, found, symmetries = spaces(*SAID[name])
    assert found < there
    assert symmetries.all_unread
