"""Networks whose symmetries hide in how they are written: each is found, or said to be not known; none is invented.

The null space of the dense Jacobian, at random weights in float64, is what there is.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tangents import coordinates, tangents
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from landscape.symmetry import find_symmetries

TOKENS, WIDTH, HEADS, H = 4, 6, 2, 3
SEQUENCE, VECTOR = (TOKENS, WIDTH), (5,)
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]  # a network, and the shape of one input


class Net(nn.Module):
    """A network written as one function of itself and its input."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def heads(z: Tensor) -> Tensor:
    return z.view(*z.shape[:2], HEADS, -1).transpose(1, 2)


def joined(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2)


def attention(weigh: Callable[..., Tensor], bias: bool = True, **parts: Any) -> Net:
    """Queries, keys, values (B, heads, T, H) -> what `weigh` makes of them, through an output layer."""

    def compute(m: Any, x: Tensor) -> Tensor:
        return m.o(joined(weigh(m, *(heads(layer(x)) for layer in (m.q, m.k, m.v)))))

    layers = {name: nn.Linear(WIDTH, WIDTH, bias=bias) for name in "qkv"}
    return Net(compute, **layers, o=nn.Linear(WIDTH, 4), **parts)


def softmax_of(scores: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda m, q, k, v: scores(m, q, k).softmax(-1) @ v


def one_head_a_call(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True)
    return torch.stack([(a @ b.mT).softmax(-1) @ c for a, b, c in parts], 1)


def scaled_twice(m: Any, q: Tensor, k: Tensor) -> Tensor:
    return (q * 0.7) @ (k * 0.7).mT


def turned(x: Tensor) -> Tensor:
    """Half of the channels, by an angle that grows with the position."""
    a, rest = x[..., :2], x[..., 2:]
    angle = torch.arange(1.0, x.shape[-2] + 1, dtype=x.dtype)[:, None].expand(-1, 2)
    return torch.cat((a * angle.cos() + torch.cat((-a[..., 1:], a[..., :1]), -1) * angle.sin(), rest), -1)


def in_one_head(scores: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda m, q, k, v: heads(scores(joined(q), joined(k)).softmax(-1) @ joined(v))


def by_table(m: Any, q: Tensor, k: Tensor) -> Tensor:
    position = torch.arange(TOKENS)
    return q @ k.mT + m.table[position[:, None] - position + TOKENS - 1].permute(2, 0, 1)


def exchanged(x: Tensor) -> Tensor:
    """Like a rotary embedding, but for the sign."""
    angle = torch.arange(1.0, x.shape[-2] + 1, dtype=x.dtype)[:, None] / torch.arange(1.0, 4.0, dtype=x.dtype).repeat(2)
    return x * angle.cos() + torch.cat(x.chunk(2, -1)[::-1], -1) * angle.sin()


def beside(learned: Tensor, given: Tensor) -> Tensor:
    return torch.cat([learned.expand(len(given), -1, -1, -1), given], 2)


def with_sink(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.cat([q @ k.mT, m.sink.expand(len(q), -1, TOKENS, -1)], -1)
    return scores.softmax(-1)[..., :-1] @ v


def multi_query() -> Net:
    def compute(m: Any, x: Tensor) -> Tensor:
        weights = torch.einsum("bhqd,bkd->bhqk", heads(m.q(x)), m.k(x)).softmax(-1)
        return m.o(joined(torch.einsum("bhqk,bkd->bhqd", weights, m.v(x))))

    return Net(compute, q=nn.Linear(WIDTH, WIDTH), k=nn.Linear(WIDTH, H), v=nn.Linear(WIDTH, H), o=nn.Linear(WIDTH, 4))


def one_tensor() -> Net:
    """Queries, keys and values of all heads in one parameter, and so their biases."""

    def compute(m: Any, x: Tensor) -> Tensor:
        q, k, v = torch.einsum("btd,nhdk->nbhtk", x, m.w) + m.b[:, None, :, None]
        return torch.einsum("bhtk,hko->bto", (q @ k.mT).softmax(-1) @ v, m.o)

    return Net(compute, w=drawn(3, HEADS, WIDTH, 2), b=drawn(3, HEADS, 2), o=drawn(HEADS, 2, 4))


def between(middle: Callable[[Any, Tensor], Tensor], width: int = 4, **parts: Any) -> Net:
    """A linear map, something, a linear map."""
    return Net(lambda m, x: m.h(middle(m, m.a(x))), a=nn.Linear(5, 4), h=nn.Linear(width, 3), **parts)


def before_gelu(inside: Callable[[Any, Tensor], Tensor], width: int = 5, **parts: Any) -> Net:
    """Something without a nonlinearity, a linear map, a GELU and an output layer."""
    return Net(lambda m, x: m.h(F.gelu(m.b(inside(m, x)))), b=nn.Linear(width, 4), h=nn.Linear(4, 3), **parts)


FOUND: dict[str, Case] = {
    "heads in calls of their own": (lambda: attention(one_head_a_call), SEQUENCE),
    "numbers on queries and keys": (lambda: attention(softmax_of(scaled_twice)), SEQUENCE),
    "scores of keys and queries, transposed": (lambda: attention(softmax_of(lambda m, q, k: (k @ q.mT).mT)), SEQUENCE),
    "keys shared by heads in one product": (multi_query, SEQUENCE),
    "one tensor of all projections": (one_tensor, SEQUENCE),
    "a vector a head beside the queries": (
        lambda: attention(softmax_of(lambda m, q, k: (q + m.u) @ k.mT), bias=False, u=drawn(HEADS, 1, H)), SEQUENCE,
    ),
    "a learned bias of the scores": (
        lambda: attention(softmax_of(lambda m, q, k: q @ k.mT + m.relative), relative=drawn(HEADS, TOKENS, TOKENS)), SEQUENCE,
    ),
    "a table of relative positions": (lambda: attention(softmax_of(by_table), table=drawn(2 * TOKENS - 1, HEADS)), SEQUENCE),
    "some channels turned": (lambda: attention(in_one_head(lambda q, k: turned(q) @ turned(k).mT)), SEQUENCE),
    "a mask by minus infinity": (
        lambda: attention(softmax_of(lambda m, q, k: (q @ k.mT).masked_fill(torch.ones(4, 4).triu(1) > 0, float("-inf")))),
        SEQUENCE,
    ),
    "a rectifier by comparison": (lambda: between(lambda m, z: z * (z > 0)), VECTOR),
    "a leaky rectifier by choice": (lambda: between(lambda m, z: torch.where(z > 0, z, 0.1 * z)), VECTOR),
    "both biases of an LSTM": (lambda: Net(lambda m, x: m.h(m.r(x)[0]), r=nn.LSTM(6, 3), h=nn.Linear(3, 2)), SEQUENCE),
    "both biases of a GRU": (lambda: Net(lambda m, x: m.h(m.r(x)[0]), r=nn.GRU(6, 3), h=nn.Linear(3, 2)), SEQUENCE),
    "a layer that nothing reads": (lambda: between(lambda m, z: F.gelu(z), idle=nn.Linear(3, 2)), VECTOR),
}  # fmt: skip

SAID: dict[str, Case] = {
    "weights divided by their sum": (
        lambda: attention(lambda m, q, k, v: (lambda a: (a @ v) / a.sum(-1, keepdim=True))((q @ k.mT).abs())), SEQUENCE,
    ),
    "a softmax over queries": (lambda: attention(lambda m, q, k, v: (k @ q.mT).softmax(-2).mT @ v), SEQUENCE),
    "products without a softmax": (lambda: attention(lambda m, q, k, v: (q @ k.mT) @ v), SEQUENCE),
    "a number a head": (
        lambda: attention(lambda m, q, k, v: (q @ k.mT).softmax(-1) @ v * m.gate, gate=drawn(HEADS, 1, 1)), SEQUENCE,
    ),
    "learned keys and values beside the others": (
        lambda: attention(
            lambda m, q, k, v: (q @ beside(m.key, k).mT).softmax(-1) @ beside(m.value, v),
            key=drawn(1, HEADS, 1, H), value=drawn(1, HEADS, 1, H),
        ), SEQUENCE,
    ),
    "channels that are turned without a sign": (
        lambda: attention(in_one_head(lambda q, k: exchanged(q) @ exchanged(k).mT)), SEQUENCE,
    ),
    "a learned number": (lambda: Net(lambda m, x: m.a(x) * m.t, a=nn.Linear(5, 4), t=drawn(1)), VECTOR),
    "a learned temperature": (lambda: Net(lambda m, x: m.a(x) / m.t, a=nn.Linear(5, 4), t=drawn(1)), VECTOR),
    "values divided by their sum": (lambda: between(lambda m, z: z / z.abs().sum(-1, keepdim=True)), VECTOR),
    "a softmax into a linear map": (lambda: between(lambda m, z: z.softmax(-1)), VECTOR),
    "a gain of one plus a weight": (
        lambda: between(lambda m, z: F.rms_norm(z, (4,), eps=1e-20) * (1 + m.w), w=drawn(4)), VECTOR,
    ),
    "a modulation of one plus a linear map": (
        lambda: Net(
            lambda m, x: m.h(torch.relu(m.a(x) * (1 + m.g(torch.sin(x))) + m.b(torch.sin(x)))),
            a=nn.Linear(5, 4), g=nn.Linear(5, 4), b=nn.Linear(5, 4), h=nn.Linear(4, 3),
        ), VECTOR,
    ),
    "a number that is added": (lambda: before_gelu(lambda m, x: m.a(x) + 1.0, a=nn.Linear(5, 5)), VECTOR),
    "a fixed vector that is added": (
        lambda: before_gelu(lambda m, x: m.a(x) + torch.arange(5, dtype=x.dtype), a=nn.Linear(5, 5)), VECTOR,
    ),
    "an input beside its linear map, added": (lambda: before_gelu(lambda m, x: m.a(x) + x, a=nn.Linear(5, 5)), VECTOR),
    "an input beside its linear map": (
        lambda: before_gelu(lambda m, x: torch.cat([m.a(x), x], 1), width=7, a=nn.Linear(5, 2)), VECTOR,
    ),
    "two linear maps of one value": (
        lambda: before_gelu(
            lambda m, x: torch.cat([m.a(x), m.c(x.flip(1))], 1), width=4, a=nn.Linear(5, 2), c=nn.Linear(5, 2)
        ), VECTOR,
    ),
    "a linear map without a bias between biases": (
        lambda: before_gelu(lambda m, x: m.c(m.a(x)), a=nn.Linear(5, 5), c=nn.Linear(5, 5, bias=False)), VECTOR,
    ),
    "a mean over places": (
        lambda: Net(lambda m, x: m.h(F.adaptive_avg_pool2d(m.a(x), 1).flatten(1)), a=nn.Conv2d(2, 4, 3), h=nn.Linear(4, 4)),
        (2, 4, 4),
    ),
    "each channel alone": (
        lambda: Net(
            lambda m, x: m.h(F.gelu(m.b(m.a(x))).flatten(1)),
            a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(3, 3, 3, groups=3), h=nn.Linear(12, 3),
        ), (2, 4, 4),
    ),
    "a parameter times activations": (
        lambda: Net(lambda m, x: m.h(torch.relu(m.w @ m.a(x))), w=drawn(4, 4), a=nn.Linear(6, 3), h=nn.Linear(3, 3)), SEQUENCE,
    ),
    "a constant of keys that several calls share": (
        lambda: Net(
            lambda m, x: (lambda f: f(f(x)))(lambda z: z + F.scaled_dot_product_attention(z.sin(), m.k(z), z.cos())),
            k=nn.Linear(WIDTH, WIDTH),
        ), SEQUENCE,
    ),
}  # fmt: skip


def spaces(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[int, int, Any]:
    """The dimensions of the null space and of what is found in it, and the symmetries; fails if any is invented."""
    torch.manual_seed(0)
    model = build().double().eval()
    for p in model.parameters():
        p.data.normal_(float(p.ndim == 1), 0.5)
    x = torch.randn(120, *shape, dtype=torch.float64)
    symmetries = find_symmetries(model, x[:2])
    values = {n: dict(model.named_parameters())[n].detach() for n in coordinates(model)}
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        parts = jacrev(lambda own: functional_call(model, own, (x,)).flatten(), chunk_size=200)(values)
    j = torch.cat([parts[n].reshape(len(parts[n]), -1) for n in values], 1)
    found = tangents(model, symmetries)
    if len(found):
        assert (j @ found.T).norm(dim=0).max() < 1e-9 * j.norm()
    singular = torch.linalg.svdvals(torch.linalg.qr(j, mode="r")[1])
    rank = int(torch.linalg.matrix_rank(found, rtol=1e-9)) if len(found) else 0
    return int((singular <= 1e-12 * singular[0]).sum()), rank, symmetries


def assert_all_found(case: Case) -> None:
    """The moves that are found are all that there are, and nothing is left unread."""
    there, found, symmetries = spaces(*case)
    assert found == there > 0
    assert symmetries.all_unread == ()


def assert_rest_said(case: Case) -> None:
    """There are more moves than are found, and the places that are not read are named, in print too."""
    there, found, symmetries = spaces(*case)
    assert found < there
    assert symmetries.all_unread
    assert all(place in str(symmetries) for place in symmetries.all_unread)


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found(name: str) -> None:
    assert_all_found(FOUND[name])


@pytest.mark.parametrize("name", SAID)
def test_it_is_said(name: str) -> None:
    assert_rest_said(SAID[name])


UNUSUAL = {
    "a softmax over queries": lambda: attention(lambda m, q, k, v: (q @ k.mT).softmax(-2) @ v),
    "a softmax that is transposed": lambda: attention(lambda m, q, k, v: (q @ k.mT).softmax(-1).mT @ v),
    "a softmax times a number": lambda: attention(lambda m, q, k, v: ((q @ k.mT).softmax(-1) * 2.0) @ v),
    "a negative softmax": lambda: attention(lambda m, q, k, v: -(q @ k.mT).softmax(-1) @ v),
    "a softmax plus a number": lambda: attention(lambda m, q, k, v: ((q @ k.mT).softmax(-1) + 1.0) @ v),
    "a sink beside the scores": lambda: attention(with_sink, sink=drawn(1, HEADS, 1, 1)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_nothing_is_invented(name: str) -> None:
    """`spaces` fails if a direction that is found moves the outputs."""
    assert spaces(UNUSUAL[name], SEQUENCE)[1] > 0
