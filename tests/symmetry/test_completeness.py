"""Every continuous symmetry is found and none is invented, against the null space of dense Jacobians in float64."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from small_transformers import EPS, Attended, Encoder, Gpt, Llama, MultiHead, PreNorm
from symmetric_networks import BatchNormCnn, LowRank
from tangents import coordinates, tangents
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from landscape.symmetry import find_symmetries

ZERO, SMALL = 1e-12, 1e-9  # no singular value, in units of the largest, may lie between them


@dataclass(frozen=True)
class Case:
    """A network, and the shape of an input (of tokens below `words` if there are words).

    Attributes:
        overlooked: dimensions of the null space that are known not to be found.
        outputs: whether a constant in all outputs counts as no change.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int = 300
    words: int = 0
    overlooked: int = 0
    outputs: bool = False

    def __str__(self) -> str:
        return self.name

    def inputs(self, n: int) -> Tensor:
        """The same for the same n."""
        generator = torch.Generator().manual_seed(n)
        if self.words:
            return torch.randint(self.words, (n, *self.shape), generator=generator)
        return torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)


def at_random(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with random weights: nothing is special about the point."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype) + (p.ndim == 1))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith("running_mean"):
                buffer.normal_(generator=generator)
    return model.eval()


class ByHand(nn.BatchNorm2d):
    """A BatchNorm in eval mode that can be differentiated in its running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        mean, spread, gain, shift = (
            v[:, None, None] for v in (self.running_mean, (self.running_var + self.eps).sqrt(), self.weight, self.bias)
        )
        return (x - mean) / spread * gain + shift


def differentiable(model: nn.Module) -> nn.Module:
    """A copy whose BatchNorms are written by hand."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = ByHand
    return other


def jacobian(model: nn.Module, x: Tensor, centred: bool = False) -> Tensor:
    """(outputs, P): derivatives of all outputs in all coordinates; if centred, of outputs minus their mean over classes."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    values = {n: named[n].detach() for n in coordinates(model)}
    model = differentiable(model)

    def outputs(own: dict[str, Tensor]) -> Tensor:
        y = functional_call(model, own, (x,))
        return y - y.mean(-1, keepdim=True) if centred else y

    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        parts = jacrev(outputs, chunk_size=200)(values)
    return torch.cat([parts[n].reshape(-1, v.numel()) for n, v in values.items()], 1)


def nullity(j: Tensor) -> int:
    """Dimension of the null space; fails where zeros cannot be told from small numbers."""
    assert j.shape[0] > j.shape[1]
    singular = torch.linalg.svdvals(torch.linalg.qr(j, mode="r")[1])
    relative = singular / singular[0]
    assert not ((relative > ZERO) & (relative < SMALL)).any()
    return int((relative <= ZERO).sum())


def rank(vectors: Tensor) -> int:
    """Number of independent directions."""
    return int(torch.linalg.matrix_rank(vectors, rtol=SMALL)) if len(vectors) else 0


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 3))


def head_of(first: nn.Module, second: nn.Module, features: int) -> nn.Module:
    """Two layers with nothing between them, GELU, head."""
    return nn.Sequential(first, second, nn.GELU(), nn.Flatten(), nn.Linear(features, 2))


CASES = [
    Case("attention", Attended, (4, 6)),
    Case("attention without biases", lambda: Attended(bias=False), (4, 6)),
    Case("grouped queries", lambda: Attended(8, heads=4, shared=2), (4, 8)),
    Case("multi-head attention", MultiHead, (4, 6)),
    Case("stacked", lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)), (4,)),
    Case("mlp", mlp, (9,)),
    Case("mlp, logits", mlp, (9,), outputs=True),
    Case("layer norm", lambda: nn.Sequential(nn.Linear(9, 6), nn.LayerNorm(6, EPS), nn.Linear(6, 3)), (9,)),
    Case("rms norm", lambda: nn.Sequential(nn.Linear(9, 6), nn.RMSNorm(6, EPS), nn.Linear(6, 3)), (9,)),
    Case("layer norm, gelu", lambda: nn.Sequential(nn.Linear(9, 6), nn.LayerNorm(6, EPS), nn.GELU(), nn.Linear(6, 3)), (9,)),
    Case("pre-norm block", PreNorm, (4, 9)),
    Case("encoder layer, post-norm", lambda: Encoder(False), (4, 6)),
    Case("encoder layer, pre-norm", lambda: Encoder(True), (4, 6)),
    Case("llama", lambda: Llama(heads=4), (6,), 30, words=12),
    Case("llama, one head of keys", Llama, (6,), 30, words=12),
    Case("llama without rotary", lambda: Llama(rotary=False), (6,), 30, words=12),
    Case("gpt", Gpt, (5,), 30, words=15),
    Case("convolution, flattened", lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 2)), (2, 5, 5)),
    Case("convolutions", lambda: head_of(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 5, 2), 20), (2, 5, 5)),
    Case("padded convolutions", lambda: head_of(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 5, 3, padding=1), 45), (2, 5, 5)),
    Case(
        "zeros around", lambda: head_of(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ZeroPad2d(1)), nn.Conv2d(4, 5, 2), 80), (2, 5, 5)
    ),
    # The scale of the stream, against the gain of the last norm: the head is the embedding, so it cannot take it up.
    Case("gpt, tied", lambda: Gpt(tied=True), (5,), 30, words=15, overlooked=1),
    Case("llama, tied", lambda: Llama(tied=True), (6,), 30, words=12, overlooked=1),
    # The gains of the queries' norm against those of the keys', for each pair of channels that is turned together.
    Case("llama, QK-norm", lambda: Llama(norms=True), (6,), 30, words=12, overlooked=2),
    # The gain of each channel against the square root of its own running variance.
    Case("batch norm", BatchNormCnn, (2, 8, 8), overlooked=3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_continuous_symmetry_is_found_and_none_is_invented(case: Case) -> None:
    model = at_random(case.build())
    symmetries = find_symmetries(model, case.inputs(2))
    assert symmetries.unread == ()
    j, found = jacobian(model, case.inputs(case.samples), case.outputs), tangents(model, symmetries, outputs=case.outputs)
    assert (j @ found.T).norm(dim=0).max() < 1e-9 * j.norm()
    assert rank(found) + case.overlooked == nullity(j)


class Parallel(nn.Module):
    """Two linear maps of one value, added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.a(x) + self.b(x)))


class LayerScale(nn.Module):
    """A gain of its own between two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gain = nn.Linear(6, 5), nn.Linear(5, 4), nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.b(self.gain * self.a(x)))


class Unknown(nn.Module):
    """A linear operation that no rule knows, between two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.b(torch.renorm(self.a(x), 2, 0, 100.0)))


UNREAD = [
    (Case("wide in the middle", lambda: head_of(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1), 27), (2, 5, 5)), "3 .* of 4 channels"),
    (Case("low rank with a trained base", LowRank, (6,)), "base and .* add two linear maps of one value"),
    (Case("parallel", Parallel, (6,)), "a and b add two linear maps of one value"),
    (Case("batch norm between", lambda: head_of(nn.Conv2d(2, 4, 3), between(), 27), (2, 5, 5)), "batch_norm.* in 1.0"),
    (Case("layer scale", LayerScale, (6,)), "mul in the network's own forward is between two linear maps"),
    (Case("unknown operation", Unknown, (6,)), "renorm in the network's own forward"),
]


def between() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize(("case", "place"), UNREAD, ids=lambda value: str(value) if isinstance(value, Case) else "")
def test_a_gap_is_said(case: Case, place: str) -> None:
    """What is found is right, it is not all, and `unread` names the place."""
    model = at_random(case.build())
    symmetries = find_symmetries(model, case.inputs(2))
    unread = symmetries.unread + symmetries.unread_matrices
    assert any(re.search(place, reason) for reason in unread), unread
    assert all(reason in str(symmetries) for reason in unread)
    j, found = jacobian(model, case.inputs(case.samples)), tangents(model, symmetries)
    assert ((j @ found.T).norm(dim=0) < 1e-9 * j.norm()).all()
    if case.name != "unknown operation":
        assert rank(found) < nullity(j)


def test_a_frozen_base_takes_nothing_from_its_adapter() -> None:
    model = at_random(LowRank())
    model.base.requires_grad_(False)
    symmetries = find_symmetries(model, torch.randn(2, 6, dtype=torch.float64))
    assert symmetries.unread == ()
    assert [mixing.size for mixing in symmetries.mixings] == [3]
