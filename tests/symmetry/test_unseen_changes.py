"""Changes of weights that nothing reads, masks, written-out zeros and rotary embeddings: found, or said to be not known."""

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
    drawn,
    in_one_head,
    spaces,
)
from torch import Tensor, nn
from torch.nn import functional as F


def into(width: int, inside: Callable[[Any, Tensor], Tensor], **parts: Any) -> Net:
    """Something, and a linear map of its `width` channels to two outputs."""
    return Net(lambda m, x: m.h(inside(m, x)), h=nn.Linear(width, 2), **parts)


def tokens(inside: Callable[[Any, Tensor], Tensor], bias: bool = True, **parts: Any) -> Net:
    """Three channels a token out of one linear map, through something, into a linear map."""
    return Net(lambda m, x: m.h(inside(m, x)), a=nn.Linear(6, 3, bias=bias), h=nn.Linear(3, 4, bias=bias), **parts)


def of_two(join: Callable[[Tensor, Tensor], Tensor], bias: bool = True) -> Net:
    """A linear map of two others, of two values."""
    layers = {name: nn.Linear(5, 3, bias=bias) for name in "ac"}
    return Net(lambda m, x: m.h(join(m.a(x), m.c(x.sin()))), **layers, h=nn.Linear(3, 4))


def rectified(kept: Callable[[Tensor, Tensor], Tensor]) -> Net:
    return Net(lambda m, x: m.h(kept(x[:, :4], F.relu(m.a(x)))), a=nn.Linear(5, 4), h=nn.Linear(4, 3))


def some(x: Tensor) -> Tensor:
    return x[..., :1] > 0


def by_two_angles(x: Tensor) -> Tensor:
    """Like a rotary embedding, but the two channels of a pair are turned by different angles."""
    angle = torch.arange(1.0, x.shape[-2] + 1, dtype=x.dtype)[:, None] / torch.arange(1.0, 4.0).repeat_interleave(2)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


def by_one_angle(x: Tensor) -> Tensor:
    angle = torch.arange(1.0, x.shape[-2] + 1, dtype=x.dtype)[:, None] / torch.arange(1.0, 4.0).repeat(2)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


FOUND: dict[str, Case] = {
    "a factor of a sum": (lambda: of_two(lambda a, c: torch.add(a, c, alpha=0.5), bias=False), VECTOR),
    "a sum with the factor minus one": (lambda: of_two(lambda a, c: torch.add(a, c, alpha=-1)), VECTOR),
    "tokens that are masked": (lambda: tokens(lambda m, x: m.a(x).masked_fill(some(x), 0.0), bias=False), SEQUENCE),
    "one of two linear maps a token": (
        lambda: tokens(lambda m, x: torch.where(some(x), m.a(x), m.c(x.sin())), bias=False, c=nn.Linear(6, 3, bias=False)),
        SEQUENCE,
    ),
    "a choice of zeros": (lambda: rectified(lambda x, z: torch.where(x > 0, z, torch.full_like(x, 0.0))), VECTOR),
    "a choice of a constant zero": (
        lambda: rectified(lambda x, z: torch.where(x > 0, z, torch.tensor(0.0, dtype=x.dtype))), VECTOR,
    ),
    "a table of more positions": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x) + m.p[:4])), a=nn.Linear(6, 5), p=drawn(6, 5), h=nn.Linear(5, 4)), SEQUENCE,
    ),
    "a rotary embedding": (lambda: attention(in_one_head(lambda q, k: by_one_angle(q) @ by_one_angle(k).mT)), SEQUENCE),
}  # fmt: skip

SAID: dict[str, Case] = {
    "a narrow reader behind a residual sum": (
        lambda: into(5, lambda m, x: x + m.b(F.gelu(m.a(x))), a=nn.Linear(5, 4), b=nn.Linear(4, 5)), VECTOR,
    ),
    "a narrow reader of a stream": (
        lambda: into(
            6, lambda m, x: (lambda z: z + m.b(F.gelu(m.a(z))))(m.e(x)),
            e=nn.Linear(5, 6), a=nn.Linear(6, 4), b=nn.Linear(4, 6),
        ), VECTOR,
    ),
    "a narrow reader of a stream that a nonlinearity reads": (
        lambda: into(6, lambda m, x: (lambda z: z + m.b(F.gelu(z)))(m.e(x)), e=nn.Linear(5, 6), b=nn.Linear(6, 6)), VECTOR,
    ),
    "a narrow convolution behind a residual sum": (
        lambda: Net(
            lambda m, x: m.o(x.repeat(1, 3, 1, 1) + m.b(F.gelu(m.a(x)))),
            a=nn.Conv2d(2, 4, 1), b=nn.Conv2d(4, 6, 1), o=nn.Conv2d(6, 2, 1),
        ), (2, 3, 3),
    ),
    "one learned query": (
        lambda: Net(
            lambda m, x: m.h((m.q @ m.k(x).mT).softmax(-1) @ m.v(x)).squeeze(1),
            q=drawn(1, 3), k=nn.Linear(6, 3), v=nn.Linear(6, 3), h=nn.Linear(3, 4),
        ), SEQUENCE,
    ),
    "a factor of a sum, with biases": (lambda: of_two(lambda a, c: torch.sub(a, c, alpha=0.5)), VECTOR),
    "a factor of a sum before a norm": (
        lambda: of_two(lambda a, c: F.rms_norm(torch.add(a, c, alpha=0.5), (3,), eps=1e-20)), VECTOR,
    ),
    "tokens that are replaced": (lambda: tokens(lambda m, x: torch.where(some(x), m.a(x), m.c), c=drawn(3)), SEQUENCE),
    "tokens that are replaced before a norm": (
        lambda: tokens(lambda m, x: F.rms_norm(torch.where(some(x), m.a(x), m.c), (3,), eps=1e-20), c=drawn(3)), SEQUENCE,
    ),
    "tokens that are one": (lambda: tokens(lambda m, x: m.a(x).masked_fill(some(x), 1.0)), SEQUENCE),
    "a choice for each channel": (
        lambda: into(6, lambda m, x: torch.where(x > 0, m.a(x), m.c(x)), a=nn.Linear(6, 6), c=nn.Linear(6, 6)), SEQUENCE,
    ),
    "a choice of a nonlinearity": (
        lambda: into(6, lambda m, x: torch.where(some(x), m.a(x), F.gelu(m.c(x))), a=nn.Linear(6, 6), c=nn.Linear(6, 6)),
        SEQUENCE,
    ),
    "the mean of a table": (
        lambda: Net(
            lambda m, x: F.gelu(m.h(m.t.mean(0) + m.a(x))), t=drawn(3, 4), a=nn.Linear(5, 4), h=nn.Linear(4, 3)
        ), VECTOR,
    ),
    "outputs of a linear map that are cut off": (
        lambda: Net(lambda m, x: m.h(m.a(x)[..., :3]), a=nn.Linear(5, 6), h=nn.Linear(3, 3)), VECTOR,
    ),
    "outputs of a nonlinearity that are cut off": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x))[..., :3]), a=nn.Linear(5, 6), h=nn.Linear(3, 3)), VECTOR,
    ),
    "one of two halves": (
        lambda: Net(lambda m, x: m.h(F.gelu(m.a(x)).chunk(2, -1)[0]), a=nn.Linear(5, 8), h=nn.Linear(4, 3)), VECTOR,
    ),
    "a rotary embedding by two angles": (
        lambda: attention(in_one_head(lambda q, k: by_two_angles(q) @ by_two_angles(k).mT)), SEQUENCE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str) -> None:
    assert_all_found(FOUND[name])


@pytest.mark.parametrize("name", SAID)
def test_it_is_said(name: str) -> None:
    assert_rest_said(SAID[name])


def test_parts_that_are_read_one_by_one_are_no_gap() -> None:
    """Both halves, or slices that overlap, leave nothing unread."""
    gated = Net(lambda m, x: m.h(torch.mul(*F.gelu(m.a(x)).chunk(2, -1))), a=nn.Linear(5, 8), h=nn.Linear(4, 3))
    slices = Net(
        lambda m, x: (lambda z: m.h(z[..., :5].sin() + z[..., 3:].cos()))(F.gelu(m.a(x))), a=nn.Linear(5, 8), h=nn.Linear(5, 3)
    )
    for net in (gated, slices):
        found = spaces(lambda net=net: net, VECTOR)[2]
        assert not any("leaves a part" in place for place in found.unread)
