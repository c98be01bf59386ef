"""Learned numbers, learned values that no input moves, and comparisons: what they let pass is found or said."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_hidden_moves import (
    SEQUENCE,
    VECTOR,
    Case,
    Net,
    assert_all_found,
    assert_rest_said,
    attention,
    before_gelu,
    between,
    drawn,
)
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import Objective
from landscape.measures.registry import MEASURES
from landscape.measures.running.marks import mark_of
from landscape.symmetry import find_symmetries
from landscape.symmetry.families import MATRICES


def after_gelu(last: Callable[[Any, Tensor], Tensor], **parts: Any) -> Net:
    """Something behind a linear map and a GELU, before a linear map."""
    return between(lambda m, z: last(m, F.gelu(z)), **parts)


def after_gelu_of(last: Callable[[Any, Tensor, Tensor], Tensor], **parts: Any) -> Net:
    """The same, with the input beside it."""
    return Net(lambda m, x: last(m, x, F.gelu(m.a(x))), a=nn.Linear(5, 4), h=nn.Linear(4, 3), **parts)


def two_gated(rest: Callable[[Tensor], Tensor]) -> Net:
    """Two linear maps, one times a gate, the other times what the gate leaves."""

    def compute(m: Any, x: Tensor) -> Tensor:
        gate = m.s(x).sigmoid()
        return m.h(gate * m.a(x) + rest(gate) * m.c(x))

    return Net(compute, a=nn.Linear(5, 4), c=nn.Linear(5, 4), s=nn.Linear(5, 4), h=nn.Linear(4, 3))


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
    "a gated half": (lambda: Net(lambda m, x: m.h(F.glu(m.a(x))), a=nn.Linear(5, 8), h=nn.Linear(4, 3)), VECTOR),
    "the gated half of a rectifier": (
        lambda: Net(lambda m, x: m.h(F.glu(F.relu(m.a(x)))), a=nn.Linear(5, 8), h=nn.Linear(4, 3)), VECTOR,
    ),
    "a maximum with 0": (lambda: between(lambda m, z: torch.maximum(z, torch.zeros(4, dtype=z.dtype))), VECTOR),
    "attention by einsum with an ellipsis": (
        lambda: attention(
            lambda m, q, k, v: torch.einsum("...ij,...jd->...id", torch.einsum("...id,...jd->...ij", q, k).softmax(-1), v)
        ), SEQUENCE,
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
        lambda: Net(
            lambda m, x: m.h(F.rms_norm(m.a(x), (4,), eps=1e-20) * m.g), a=nn.Linear(6, 4), g=drawn(4, 1), h=nn.Linear(4, 4)
        ),
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
    "fixed numbers beside the input": (
        lambda: before_gelu(
            lambda m, x: torch.cat([x, torch.arange(3, dtype=x.dtype).expand(len(x), -1)], 1), width=8
        ), VECTOR,
    ),
    "zeros beside the input": (lambda: before_gelu(lambda m, x: F.pad(x, (0, 1)), width=6), VECTOR),
    "zeros beside a GELU": (lambda: between(lambda m, z: F.pad(F.gelu(z), (0, 1)), width=5), VECTOR),
    "ones beside channels of a convolution": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.a(F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0))).flatten(1)),
            a=nn.Conv2d(3, 2, 1), h=nn.Linear(32, 3),
        ), (2, 4, 4),
    ),
    "the difference of two learned numbers": (lambda: after_gelu(lambda m, z: z * (m.t - m.s), t=drawn(1), s=drawn(1)), VECTOR),
    "the largest of several scores": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.a(x))) * (m.r(x).argmax(-1, keepdim=True) == torch.arange(3)),
            a=nn.Linear(5, 4), h=nn.Linear(4, 3), r=nn.Linear(5, 3),
        ), VECTOR,
    ),
    "a comparison of two linear maps": (
        lambda: after_gelu_of(lambda m, x, z: m.h(z * (m.r(x) > m.s(x.sin()))), r=nn.Linear(5, 4), s=nn.Linear(5, 4)), VECTOR,
    ),
    "a gate and one minus it": (
        lambda: two_gated(lambda w: 1 - w), VECTOR,
    ),
    "a gate, and a number plus its negative": (lambda: two_gated(lambda w: -w + 1), VECTOR),
    "a gate, and a fixed vector minus it": (lambda: two_gated(lambda w: torch.ones(4, dtype=w.dtype) - w), VECTOR),
    "the largest over positions": (
        lambda: Net(lambda m, x: F.gelu(m.h(m.a(x).amax(1))), a=nn.Linear(6, 4), h=nn.Linear(4, 3)), SEQUENCE,
    ),
    "the largest of a vector": (
        lambda: Net(lambda m, x: F.gelu(m.h(m.a(x).amax(-1, True))), a=nn.Linear(5, 4), h=nn.Linear(1, 3)), VECTOR,
    ),
    "the larger of two linear maps": (
        lambda: Net(
            lambda m, x: F.gelu(m.h(torch.maximum(m.a(x), m.c(x)))), a=nn.Linear(5, 4), c=nn.Linear(5, 4), h=nn.Linear(4, 3)
        ), VECTOR,
    ),
    "rectified values by einsum with weights": (
        lambda: Net(
            lambda m, x: m.h(torch.einsum("bti,io->bto", torch.relu(m.a(x)), m.w)),
            a=nn.Linear(6, 5), w=drawn(5, 4), h=nn.Linear(4, 3),
        ), SEQUENCE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str) -> None:
    assert_all_found(FOUND[name])


@pytest.mark.parametrize("name", SAID)
def test_it_is_said(name: str) -> None:
    assert_rest_said(SAID[name])


def test_a_batchnorm_between_linear_maps_hides_matrices_alone() -> None:
    """BatchNorm's own factors and constants are found; that a matrix may pass it is said, of matrices only."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)).eval()
    x = torch.randn(6, 2, 2, 2)
    symmetries = find_symmetries(model, x)
    assert symmetries.unread == symmetries.unread_factors == symmetries.unread_constants == ()
    assert symmetries.all_unread == symmetries.unread_matrices
    assert [place.partition(" in ")[2] for place in symmetries.unread_matrices] == ["1 is between two linear maps"]
    objective = Objective(model, nn.CrossEntropyLoss(), (x, torch.zeros(6, 2, 2, dtype=torch.long)))
    assert set(mark_of(MEASURES["adaptive_trace"], objective)["unknown"]) == set(MATRICES)


class Pruned(nn.Module):
    """Some inputs, or hidden units, times a fixed 0."""

    mask: torch.Tensor

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place, self.a, self.h = place, nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x * self.mask if self.place == "input" else x)
        x = torch.tanh(x * self.mask if self.place == "before" else x)
        out: torch.Tensor = self.h(x * self.mask if self.place == "behind" else x)
        return out


@pytest.mark.parametrize("place", ["input", "before", "behind", "nowhere"])
def test_weights_that_a_fixed_zero_cuts_off_are_said(place: str) -> None:
    found = find_symmetries(Pruned(place), torch.randn(5, 4))
    assert any("by 0" in said for said in found.all_unread) == (place != "nowhere")
