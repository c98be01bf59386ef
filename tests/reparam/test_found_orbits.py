"""Every family that the finder finds in real architectures is moved along, and the function stays to 1e-9 in float64."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import NumericalError
from landscape.objective import Objective
from landscape.reparam import attack, certificate, find_symmetries, move
from landscape.reparam.moving.move import Size
from landscape.reparam.moving.orbits import blocks_of
from landscape.reparam.moving.same_function import compare
from landscape.symmetry.families import FAMILIES
from landscape.symmetry.symmetries import Symmetries

TIGHT = 1e-9
EPS = 1e-14  # of the normalizations: what they take away, they take away to rounding
WIDTH, HEADS, TOKENS = 8, 2, 5


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block with biases, after a linear layer and before a last norm and a head."""

    def __init__(self, norm: Callable[[], nn.Module] = lambda: nn.LayerNorm(WIDTH), fused: bool = False) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(3, WIDTH), nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2, self.head = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH), nn.Linear(WIDTH, 3)
        self.fused = fused

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (heads_of(z, HEADS) for z in self.qkv(x).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


class Rms(nn.Module):
    """RMSNorm written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


class Rotary(nn.Module):
    """Two decoder blocks as Llama's: grouped queries, a rotary embedding, gated units, no biases but the queries'."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.layers = nn.ModuleList()
        for _ in range(2):
            layer = nn.ModuleDict({"norm1": Rms(16), "norm2": Rms(16)})
            for name, out in (("q", 16), ("k", 8), ("v", 8)):
                layer[name] = nn.Linear(16, out, bias)
            layer["out"], layer["gate"], layer["up"] = (nn.Linear(16, n, bias=False) for n in (16, 12, 12))
            layer["down"] = nn.Linear(12, 16, bias=False)
            self.layers.append(layer)
        self.norm, self.head = Rms(16), nn.Linear(16, 11, bias=False)
        angle = torch.outer(torch.arange(TOKENS), 100.0 ** -(torch.arange(2) / 2)).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x)
        for layer in self.layers:
            h = layer["norm1"](x)
            q, k, v = heads_of(layer["q"](h), 4), heads_of(layer["k"](h), 2), heads_of(layer["v"](h), 2)
            q, k = self.turned(q), self.turned(k)
            k, v = (z.repeat_interleave(2, 1) for z in (k, v))
            weights = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
            x = x + layer["out"]((weights @ v).transpose(1, 2).flatten(2))
            h = layer["norm2"](x)
            x = x + layer["down"](F.silu(layer["gate"](h)) * layer["up"](h))
        return self.head(self.norm(x))


class Multihead(nn.Module):
    """`nn.MultiheadAttention` between linear layers."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.embed(x))
        return self.head(torch.tanh(self.attention(h, h, h, need_weights=False)[0]).mean(1))


class Encoder(nn.Module):
    """`nn.TransformerEncoderLayer`, between a linear layer and a head."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 12, batch_first=True, norm_first=norm_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


class Scaled(nn.Module):
    """Half of what a LayerNorm gives, read by two layers, one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(4, WIDTH), nn.LayerNorm(WIDTH)
        self.b, self.c, self.d = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x)) / 2
        return self.d(torch.tanh(self.b(h)) * torch.tanh(self.c(h)))


class Read(nn.Module):
    """A layer that a LayerNorm reads, and a linear layer too: only the same constant in all channels can be traded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(4, WIDTH), nn.LayerNorm(WIDTH)
        self.b, self.c, self.d = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.d(torch.tanh(self.b(h)) * torch.tanh(self.c(self.norm(h))))


def normed(bias: bool = True, affine: bool = True) -> nn.Module:
    norm = nn.LayerNorm(WIDTH, elementwise_affine=affine, bias=bias)
    return nn.Sequential(nn.Linear(4, WIDTH), norm, nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 3))


def convolutions(bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def vision() -> nn.Module:
    from landscape.tasks.torchvision_import import torchvision

    made = torchvision.models.VisionTransformer(8, 4, 2, 2, WIDTH, 12, num_classes=3)
    nn.init.normal_(made.heads.head.weight)  # it starts at 0
    return made


@dataclass(frozen=True)
class Found:
    """A network, the shape of its input (of tokens if it is empty), and the families that it must have at least."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    families: str


TOKEN = (TOKENS, 3)
NETS = {
    "layer norm": Found(normed, (4,), "norm-out norm-in shift bias"),
    "layer norm without shift": Found(lambda: normed(bias=False), (4,), "norm-out norm-in shift bias"),
    "layer norm without gain": Found(lambda: normed(affine=False), (4,), "norm-in shift"),
    "half a layer norm": Found(Scaled, (4,), "norm-out norm-in shift bias"),
    "read twice": Found(Read, (4,), "norm-out bias"),
    "pre-norm": Found(Block, TOKEN, "pair norm-out rotation norm-in shift bias"),
    "pre-norm, fused": Found(lambda: Block(fused=True), TOKEN, "pair norm-out rotation norm-in shift bias"),
    "pre-norm, rms": Found(lambda: Block(lambda: nn.RMSNorm(WIDTH)), TOKEN, "pair norm-out rotation norm-in shift bias"),
    "encoder": Found(lambda: Encoder(norm_first=False), TOKEN, "layer node pair shift bias"),
    "encoder, norm first": Found(lambda: Encoder(norm_first=True), TOKEN, "layer node pair shift bias"),
    "rotary": Found(lambda: Rotary(bias=False), (), "node pair rotation norm-out norm-in shift"),
    "rotary with biases": Found(lambda: Rotary(bias=True), (), "node pair rotation norm-out norm-in shift"),
    "batch norm": Found(lambda: convolutions(bias=True), (2, 8, 8), "node norm-out norm-in bias"),
    "batch norm without biases": Found(lambda: convolutions(bias=False), (2, 8, 8), "node norm-out norm-in bias"),
    "multi-head attention": Found(Multihead, TOKEN, "pair shift bias"),
    "multi-head attention without biases": Found(lambda: Multihead(bias=False), TOKEN, "pair shift"),
    "vision transformer": Found(vision, (3, 8, 8), "pair norm-out norm-in shift bias"),
}


@cache
def made(name: str) -> tuple[nn.Module, Tensor, Symmetries]:
    """A network in float64 and eval mode with random weights, an input, and what is found."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETS[name].build().double().eval()
    with torch.no_grad():
        for p in model.parameters():  # biases and norms start at 0 and 1, where mistakes hide
            if p.ndim < 2:
                p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=generator)
            elif buffer_name.endswith("running_mean"):
                buffer.normal_(generator=generator)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.eps = EPS
    shape = NETS[name].shape
    x = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    x = x if shape else torch.randint(11, (6, TOKENS), generator=generator)
    return model, x, find_symmetries(model, x)


@pytest.mark.parametrize("name", NETS)
def test_the_families_are_there(name: str) -> None:
    _, _, symmetries = made(name)
    assert set(NETS[name].families.split()) <= set(symmetries.families)
    # Without a last norm three classes read eight channels of the residual stream: what they do not see is said.
    narrow = [place for place in symmetries.unread if "3 numbers are read of 8 channels" in place]
    assert bool(narrow) == (name == "encoder, norm first")
    assert list(symmetries.unread) == narrow


@pytest.mark.parametrize("family", [*FAMILIES, "all"])
@pytest.mark.parametrize("name", NETS)
def test_the_function_stays_and_the_weights_do_not(name: str, family: str) -> None:
    model, x, symmetries = made(name)
    along = symmetries.families if family == "all" else tuple(f for f in symmetries.families if f == family)
    if not along:
        pytest.skip(f"no {family} in {name}")
    classes = {i.shape[1] for one in symmetries.shifts if one.outputs for i in one.rows.values()}
    for seed in range(2):
        other = move(model, symmetries, along, alpha=3.0, condition=20.0, generator=torch.Generator().manual_seed(seed))
        assert compare(model, other, x, tolerance=TIGHT, classes=tuple(classes) if "shift" in along else ()) < TIGHT
        new = {**dict(other.named_parameters()), **dict(other.named_buffers())}
        old = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        assert any(float((new[n] - old[n]).detach().abs().max()) > 1e-2 for n in old if old[n].is_floating_point())


def test_the_kinds_of_constants_that_are_found() -> None:
    assert [trade.uniform for trade in made("read twice")[2].trades].count(True) == 1
    assert {c.factor for c in made("half a layer norm")[2].centrings} == {0.5}
    assert [c.shift for c in made("layer norm")[2].centrings] == ["1.bias"]
    assert [c.shift for c in made("layer norm without shift")[2].centrings] == [None]
    assert [mean.channels for mean in made("batch norm")[2].means] == [4, 5, 6]


def test_a_row_after_a_layer_norm_and_its_bias_by_hand() -> None:
    """v / gain is added to a row; the bias loses v times the sum of shift / gain."""
    model, x, found = made("layer norm")
    symmetries = replace(found, trades=())
    other = move(model, symmetries, "bias", alpha=2.0, example=x)
    norm, old, new = model[1], model[2], other[2]
    v = ((new.weight - old.weight) * norm.weight).detach()
    assert torch.allclose(v, v[:, :1].expand_as(v))
    assert torch.allclose(new.bias, old.bias - v[:, 0] * (norm.bias / norm.weight).sum())
    assert all(torch.equal(p, q) for i in (0, 1, 4) for p, q in zip(model[i].parameters(), other[i].parameters(), strict=True))
    change, size = (new.weight - old.weight).detach().square().mean().sqrt(), old.weight.detach().square().mean().sqrt()
    assert 0.5 < float(change / size) < 5.0, "of alpha times the rms of the weights"


def test_nothing_divides_by_a_gain_of_zero() -> None:
    model, x, found = made("layer norm")
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead[1].weight[2] = 0.0
    other = move(dead, replace(found, trades=()), "bias", example=x)
    assert all(torch.equal(p, q) for p, q in zip(dead.parameters(), other.parameters(), strict=True))


def test_a_running_mean_and_its_shift_by_hand() -> None:
    model, x, found = made("batch norm")
    other = move(model, replace(found, trades=()), "bias", alpha=2.0, example=x)
    for i in (1, 4, 9):
        old, new = model[i], other[i]
        d = new.running_mean - old.running_mean
        assert float(d.abs().min()) > 0
        assert torch.allclose(new.bias, old.bias + old.weight * d / (old.running_var + old.eps).sqrt())
        assert torch.equal(new.weight, old.weight)
        assert torch.equal(new.running_var, old.running_var)


@pytest.mark.parametrize("name", ["layer norm", "read twice", "batch norm without biases"])
def test_a_measure_is_climbed_along_the_biases(name: str) -> None:
    model, x, symmetries = made(name)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, torch.arange(6) % 3), dtype="float64")
    found = attack(objective, model, symmetries, "adaptive_trace:probes=8", families=("bias",), evaluations=12)
    assert found.moved
    assert found.refused == 0
    assert compare(model, found.model, x, tolerance=TIGHT) > 0
    generator = torch.Generator().manual_seed(0)
    for block in blocks_of(symmetries, ("bias",), Size(4.0, 1.0)):
        state = block.draw(generator)
        for _ in range(5):
            state = block.near(state, 1.0, generator)
            assert float(state.square().mean().sqrt()) <= 1 + 1e-12


def test_a_network_far_along_its_orbits_keeps_the_verdict_on_its_derivatives() -> None:
    """Finite differences no longer resolve them there; the certificate compares the functions instead."""
    model, x, symmetries = made("encoder")
    objective = Objective(model, nn.CrossEntropyLoss(), (x, torch.arange(6) % 3), dtype="float64")
    other = move(model, symmetries, symmetries.families, alpha=5.0, condition=1000.0, example=x)
    far = objective.with_model(other)
    with pytest.raises(NumericalError, match="agree with a finite difference"):
        far.preflight()
    found = certificate(objective, other, measures=["adaptive_trace", "logit_norm"], symmetry=symmetries.families)
    assert found.same_function
    assert all(row.after.converged for row in found.rows)
    # The gradient itself is right: along the bias of the head it is known in closed form.
    far = far.checked_by(objective)
    probabilities = torch.softmax(far.outputs(), 1) - F.one_hot(torch.arange(6) % 3, 3)
    gradient = far.layout.unflatten(far.gradient())["head.bias"]
    assert torch.allclose(gradient, probabilities.mean(0), atol=1e-9)


def test_the_verdict_is_not_taken_from_other_code() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach()) + 0 * x.sum()

    def net(last: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), last).double()

    torch.manual_seed(0)
    plain, other = net(nn.Linear(4, 3)), net(Detached(4, 3))
    other.load_state_dict(plain.state_dict())
    objective = Objective(plain, nn.CrossEntropyLoss(), (torch.randn(6, 4).double(), torch.arange(6) % 3), dtype="float64")
    wrong = objective.with_model(other)
    assert wrong.checked_by(objective) is wrong
    with pytest.raises(NumericalError, match="expected Hv to agree"):
        certificate(objective, other, measures=["trace"], symmetry="node")
