"""Every registered measure against layer-wise and node-wise rescaling: claims hold to 1e-6, the rest must be seen to fail.

Every family is in `test_symmetry_claims`.

The networks of the first half are rescaled by hand, from the algebra alone; those of the second by `landscape.rescale`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from rescalable import NETS, Net
from torch import Tensor, nn
from torch.nn import functional as F

import landscape as ls
from landscape.measures import MEASURES, measure_all
from landscape.objective import Objective
from landscape.results import Measurement

SAMPLES = 16
SYMMETRIES = ("layer", "node")
# A claim holds whatever the settings are: few probes and steps test it as well as many.
FEW = {"probes": 4, "pairs": 3, "draws": 3, "steps": 4, "iterations": 3, "restarts": 1, "subspace": 5, "p": 5, "m": 6}
NAMES = {
    ":".join([m.name, *(f"{k}={FEW[k]}" for k in m.settings if k in FEW and m.settings[k] is not None)]): m.name
    for m in MEASURES.values()
}

Scale = Callable[[int], Tensor]  # the factors of so many neurons


class Mlp(nn.Module):
    """Biases, two kinds of rectifier, a dead neuron, a neuron that nothing reads, weights that are zero, two tied layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.c.weight = self.b.weight
        with torch.no_grad():
            self.a.bias[0] = -100.0
            self.a.weight[1, 2:4] = 0.0
            self.a.bias[2] = 0.0
            self.d.weight[:, 3] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.leaky_relu(self.c(F.relu(self.b(F.relu(self.a(x))))), 0.1))

    def rescale(self, scale: Scale) -> None:
        """Tied weights: the three layers share one scale a neuron, and W becomes S W S^-1."""
        s = scale(6)
        for layer in (self.a, self.b, self.c):
            layer.bias *= s
        self.a.weight *= s[:, None]
        self.b.weight *= s[:, None] / s[None, :]
        self.d.weight /= s[None, :]


class Chain(nn.Module):
    """Three plain layers with biases, a factor for each hidden one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 7), nn.Linear(7, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))))

    def rescale(self, scale: Scale) -> None:
        for first, second in ((self.a, self.b), (self.b, self.c)):
            s = scale(first.out_features)
            first.weight *= s[:, None]
            first.bias *= s
            second.weight /= s[None, :]


class Cnn(nn.Module):
    """Convolutions with BatchNorm, which takes up a scale, and without; pooling; a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        return self.fc(F.relu(self.conv2(x)).flatten(1))

    def rescale(self, scale: Scale) -> None:
        taken_up(self.conv1, self.norm, scale(3))
        s, t = scale(3), scale(4)
        self.norm.weight *= s
        self.norm.bias *= s
        self.conv2.weight *= t[:, None, None, None] / s[None, :, None, None]
        self.conv2.bias *= t
        self.fc.weight /= t.repeat_interleave(4)[None, :]


class Residual(nn.Module):
    """A block whose shortcut ties the scale of the stream across layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.conv0(x)))
        y = F.relu(self.norm1(self.conv1(x)))
        return self.fc(F.relu(x + self.norm2(self.conv2(y))).mean((2, 3)))

    def rescale(self, scale: Scale) -> None:
        stream, inner = scale(3), scale(4)
        for norm, s in ((self.norm0, stream), (self.norm1, inner), (self.norm2, stream)):
            norm.weight *= s
            norm.bias *= s
        self.conv1.weight /= stream[None, :, None, None]
        self.conv2.weight /= inner[None, :, None, None]
        self.fc.weight /= stream[None, :]
        for conv, norm in ((self.conv0, self.norm0), (self.conv1, self.norm1), (self.conv2, self.norm2)):
            taken_up(conv, norm, scale(len(norm.weight)))


class Skip(nn.Module):
    """A stream that one layer writes and two read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 5)
        self.c, self.d = nn.Linear(5, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(F.relu(self.b(x))) + self.d(x)

    def rescale(self, scale: Scale) -> None:
        s, t = scale(6), scale(5)
        self.a.weight *= s[:, None]
        self.a.bias *= s
        self.b.weight *= t[:, None] / s[None, :]
        self.b.bias *= t
        self.c.weight /= t[None, :]
        self.d.weight /= s[None, :]


class Bottleneck(nn.Module):
    """A pair: two linear layers with nothing in between. The first reads two rectified layers, each of its own scale."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b, self.c = nn.Linear(8, 2), nn.Linear(2, 3)
        with torch.no_grad():
            self.b.weight[:, :4] *= 10.0  # so that the factors of the two differ in what they change

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((F.relu(self.a1(x)), F.relu(self.a2(x))), 1)
        return self.c(self.b(x))

    def rescale(self, scale: Scale) -> None:
        read = torch.cat([scale(4), scale(4)])
        for layer, s in zip((self.a1, self.a2), read.split(4), strict=True):
            layer.weight *= s[:, None]
            layer.bias *= s
        s = scale(2)
        self.b.weight *= s[:, None] / read[None, :]
        self.b.bias *= s
        self.c.weight /= s[None, :]


def taken_up(conv: nn.Conv2d, norm: nn.BatchNorm2d, s: Tensor) -> None:
    """What scales a convolution's outputs scales the running statistics, eps included; what comes out stays."""
    conv.weight *= s[:, None, None, None]
    if conv.bias is not None:
        conv.bias *= s
    norm.running_mean *= s
    norm.running_var.copy_(s.square() * (norm.running_var + norm.eps) - norm.eps)


BY_HAND: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "mlp": (Mlp, (5,)), "chain": (Chain, (4,)), "cnn": (Cnn, (1, 8, 8)), "residual": (Residual, (2, 5, 5)),
    "skip": (Skip, (4,)), "bottleneck": (Bottleneck, (4,)),
}  # fmt: skip


def factors(node: bool, generator: torch.Generator) -> Scale:
    """exp of a normal number for each neuron, or one for all of them that is far from 1."""

    def scale(n: int) -> Tensor:
        draw = torch.randn(n if node else 1, generator=generator, dtype=torch.float64)
        return torch.exp(2 * draw if node else draw.sign() * (1 + draw.abs())).expand(n)

    return scale


def labels(model: nn.Module, x: Tensor) -> Tensor:
    """The classes that the network predicts, all but three: it is right more often than not, as after training."""
    with torch.no_grad():
        predicted = model(x)
    y = predicted.argmax(1)
    y[:3] = (y[:3] + 1) % predicted.shape[1]
    return y


@cache
def by_hand(name: str) -> tuple[Objective, dict[str, Objective]]:
    """The network on random data, and rescaled by each symmetry."""
    build, shape = BY_HAND[name]
    generator = torch.Generator().manual_seed(len(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        model = build().double().eval()
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(generator=generator)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2.0, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    x = torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)
    y = labels(model, x)
    others = {}
    for symmetry in SYMMETRIES:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.rescale(factors(symmetry == "node", torch.Generator().manual_seed(1)))
        others[symmetry] = Objective(other, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    return Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64"), others


def values(objective: Objective, claims: str | None = None) -> dict[str, Measurement]:
    """All measures with few probes and steps, or those that claim layers and nodes, or layers alone, by registered names."""
    most = {name: [s for s in SYMMETRIES if s in m.invariant_to][-1:] for name, m in MEASURES.items()}
    wanted = [full for full, name in NAMES.items() if claims is None or claims in most[name]]
    return {NAMES[full]: m for full, m in measure_all(objective, wanted, seed=1).items()}


@cache
def measured(name: str, symmetry: str | None) -> dict[str, Measurement]:
    """All measures of a network of ours, or of it rescaled."""
    before, others = by_hand(name)
    return values(before if symmetry is None else others[symmetry])


def change(before: Measurement, after: Measurement) -> float:
    """|a - b| over the larger size; 0 where both are not defined; inf where one of two is."""
    a, b = before.estimate.value, after.estimate.value
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def broken(before: dict[str, Measurement], after: dict[str, Measurement], symmetry: str) -> dict[str, str]:
    """Measures whose claim does not hold, with the two values."""
    return {
        name: f"{m.estimate.value!r} -> {after[name].estimate.value!r} ({change(m, after[name]):.1e})"
        for name, m in before.items()
        if symmetry in m.invariant_to and not change(m, after[name]) <= 1e-6
    }


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("name", BY_HAND)
def test_the_hand_made_rescalings_leave_the_function(name: str, symmetry: str) -> None:
    before, others = by_hand(name)
    torch.testing.assert_close(others[symmetry].outputs(), before.outputs(), rtol=1e-11, atol=1e-11)
    ratio = (others[symmetry].theta / before.theta)[before.theta != 0]
    assert ratio.max() > 2
    assert ratio.min() < 0.5


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("name", BY_HAND)
def test_claims_of_invariance_hold(name: str, symmetry: str) -> None:
    assert broken(measured(name, None), measured(name, symmetry), symmetry) == {}


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_what_is_not_claimed_moves(symmetry: str) -> None:
    """On some network by a twentieth, 50,000 times what a claim allows: else the registry claims too little."""
    unmoved = {}
    for name in MEASURES:
        pairs = [(measured(net, None)[name], measured(net, symmetry)[name]) for net in BY_HAND]
        pairs = [(a, b) for a, b in pairs if symmetry not in a.invariant_to and a.defined and b.defined]
        furthest = max((change(a, b) for a, b in pairs), default=math.inf)
        if furthest < 0.05:
            unmoved[name] = furthest
    assert unmoved == {}


def test_every_measure_was_seen() -> None:
    """A measure that is defined nowhere here has not been tested."""
    assert [name for name in MEASURES if not any(measured(net, None)[name].defined for net in BY_HAND)] == []


FAST = {"mlp", "cnn", "functional", "pre-norm"}


@pytest.mark.parametrize(
    "net", [net if net.name in FAST else pytest.param(net, marks=pytest.mark.slow) for net in NETS], ids=str
)
def test_claims_hold_on_every_kind_of_network(net: Net) -> None:
    """Rescaled by `landscape.rescale`: neuron-wise for what claims that, layer-wise for what claims no more."""
    model, x = net.make(n=SAMPLES // 2)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, labels(model, x)), dtype="float64")
    for symmetry in SYMMETRIES:
        other = ls.rescale(model, 3.0, node=symmetry == "node", example=x)
        certified = ls.certificate(objective, other, measures=["logit_norm"])
        assert certified.same_function
        assert broken(values(objective, symmetry), values(objective.with_model(other), symmetry), symmetry) == {}


def test_layers_that_are_read_in_part_take_the_claim_of_layer_norms_away() -> None:
    """A concatenation: what is measured in units of a whole tensor's norm moves, and does not claim otherwise."""
    names = ["layer_relative_lambda_max", "layer_relative_trace:probes=4", "relative_flatness:probes=4"]
    model, x = next(net for net in NETS if net.name == "dense").make(n=SAMPLES // 2)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, labels(model, x)), dtype="float64")
    other = objective.with_model(ls.rescale(model, 3.0, example=x))
    for before, after in zip(measure_all(objective, names).values(), measure_all(other, names).values(), strict=True):
        assert before.invariant_to == ()
        assert change(before, after) > 0.1
    assert all(MEASURES[name.partition(":")[0]].invariant_to == ("layer",) for name in names)


def test_claims_hold_with_the_settings_that_people_get() -> None:
    """More steps give rounding more room to grow: the default ones on a chain, by hand."""
    before, others = by_hand("chain")
    found = measure_all(before, "all", seed=0)
    for symmetry, other in others.items():
        assert broken(found, measure_all(other, "all", seed=0), symmetry) == {}


def test_an_untrue_claim_would_be_seen() -> None:
    """The comparison itself: a trace that claims to be invariant is named, with both values."""
    before = {name: replace(m, invariant_to=SYMMETRIES) for name, m in measured("chain", None).items()}
    found = broken(before, measured("chain", "layer"), "layer")
    assert {"trace", "keskar", "sam", "lambda_max"} <= set(found)
    assert "adaptive_trace" not in found
