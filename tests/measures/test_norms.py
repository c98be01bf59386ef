"""Path norm against every path written out, products of norms against NumPy, and what rescaling does to both."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import landscape as ls
from landscape.measures import MEASURES, NotDefined, frobenius_product, path_norm, spectral_product
from landscape.measures.capacity.norms import is_chain
from landscape.objective import Objective
from landscape.tasks import networks

PRODUCTS = {"frobenius_product": frobenius_product, "spectral_product": spectral_product}


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in float64 whose biases, gammas and running statistics are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn_like(p))
            for name, b in model.named_buffers():
                if name.endswith("running_var"):
                    b.uniform_(0.3, 2.0)
                elif name.endswith("running_mean"):
                    b.normal_()
    return model


def objective_of(model: nn.Module, *shape: int) -> Objective:
    """The network on three random samples, with the sum of its outputs as a loss."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Objective(model, lambda z, y: z.mean(), (x, torch.zeros(3)), dtype="float64")


def array(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def all_paths(layers: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[float]:
    """Products of squared weights, path by path: from every input, and from every bias, along every edge."""

    def onward(product: float, i: int, rest: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[float]:
        if not rest:
            yield product
            return
        for o in np.flatnonzero(rest[0][0][:, i]):
            yield from onward(product * rest[0][0][o, i] ** 2, o, rest[1:])

    for i in range(layers[0][0].shape[1]):
        yield from onward(1.0, i, layers)
    for k, (_, bias) in enumerate(layers, start=1):
        for i, b in enumerate(bias):
            yield from onward(b**2, i, layers[k:])


def dense_map(f: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear map, column by column."""
    n = math.prod(shape)
    return array(f(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1)).T


def test_path_norm_of_an_mlp_is_the_sum_over_all_paths():
    model = made(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2)))
    layers = [(array(m.weight), array(m.bias)) for m in model if isinstance(m, nn.Linear)]
    found = path_norm(objective_of(model, 3))
    assert found.value == pytest.approx(math.fsum(all_paths(layers)), rel=1e-12)
    assert (found.kind, found.stderr, found.reason) == ("exact", None, None)


def test_path_norm_of_a_conv_net_is_the_sum_over_all_paths():
    """Padding, BatchNorm (a and c squared), a mean (1/4 as it is), a flatten: unrolled to matrices of single edges."""
    model = made(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2, padding=1),
            nn.BatchNorm2d(2, affine=False),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8, 2),
        )
    )
    conv, norm, pool, fc = model[0], model[1], model[3], model[5]
    kernel = dense_map(lambda e: F.conv2d(e, conv.weight, padding=1), (1, 3, 3))
    a = np.repeat(1 / np.sqrt(array(norm.running_var) + norm.eps), 16)
    c = -a * np.repeat(array(norm.running_mean), 16)
    means = np.sqrt(dense_map(pool, (2, 4, 4)))  # its square is what has to be counted
    layers = [
        (kernel, np.repeat(array(conv.bias), 16)),
        (np.diag(a), c),
        (means, np.zeros(8)),
        (array(fc.weight), array(fc.bias)),
    ]
    found = list(all_paths(layers))
    # 2 outputs of 9 pixels by 4 taps by 2 channels, of the biases of 32, 32 and 8 units, and of their own.
    assert len(found) == 2 * (72 + 32 + 32 + 8 + 1)
    assert path_norm(objective_of(model, 1, 3, 3)).value == pytest.approx(math.fsum(found), rel=1e-12)


class Skip(nn.Module):
    """h = relu(a x), out = c relu(b h) + d h: what a writes is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 5)
        self.c, self.d = nn.Linear(5, 2), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.c(F.relu(self.b(h))) + self.d(h)


def test_paths_over_a_shortcut_are_counted_as_well():
    model = made(Skip)
    a, b, c = ((array(m.weight), array(m.bias)) for m in (model.a, model.b, model.c))
    around = (array(model.d.weight), np.zeros(2))
    expected = math.fsum(all_paths([a, b, c])) + math.fsum(all_paths([a, around]))
    assert path_norm(objective_of(model, 3)).value == pytest.approx(expected, rel=1e-12)


class Spelled(nn.Module):
    """The same linear maps in other words."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.w, self.v = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4))
        self.register_buffer("scale", torch.tensor([1.0, -2.0, 0.5, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.w
        return {
            "gain": lambda: h * self.v,
            "bias": lambda: h + self.v,
            "minus": lambda: h - self.v,
            "number": lambda: -3 * h,
            "buffer": lambda: h * self.scale,
            "over": lambda: h / -2.0,
            "einsum": lambda: torch.einsum("ni,ij->nj", x, self.w),
            "weight-norm": lambda: x @ (self.w / self.w.norm(dim=0) * self.v),
            "concatenated": lambda: torch.cat([h, self.v.expand(len(x), -1)], 1),
            "clamped": lambda: h.clamp(min=0),
            "cast": lambda: h.float().double(),
            "zeros": lambda: torch.cat([h, torch.zeros_like(h), h.new_zeros(h.size(0), 2)], 1),
            "pooled": lambda: F.max_pool1d(h[:, None], 2, padding=1).flatten(1),
        }[self.form]()


WORDS = "gain bias minus number buffer over einsum weight-norm concatenated clamped pooled cast zeros"


@pytest.mark.parametrize("form", WORDS.split())
def test_path_norm_in_other_words(form):
    model = made(lambda: Spelled(form))
    w, v = array(model.w), array(model.v)
    columns = (w**2).sum(0)
    expected = {
        "gain": columns @ v**2,
        "bias": columns.sum() + (v**2).sum(),
        "minus": columns.sum() + (v**2).sum(),
        "number": 3 * columns.sum(),
        "buffer": columns @ np.array([1, 2, 0.5, 3]),
        "over": columns.sum() / 2,
        "einsum": columns.sum(),
        "weight-norm": (v**2).sum(),
        "concatenated": columns.sum() + (v**2).sum(),
        "clamped": columns.sum(),
        "cast": columns.sum(),
        "zeros": columns.sum(),
        "pooled": columns[0] + max(columns[1], columns[2]) + columns[3],
    }[form]
    assert path_norm(objective_of(model, 3)).value == pytest.approx(expected, rel=1e-12)


class Unfit(nn.Module):
    """One operation without paths, between two layers."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.enter, self.leave = form, nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        h = {
            "tanh": lambda: torch.tanh(h),
            "layer_norm": lambda: self.norm(h),
            "product": lambda: h * h,
            "constant": lambda: h + 1.0,
            "from one": lambda: 1.0 - h,
            "clamp": lambda: h.clamp(0.0, 6.0),
            "quotient": lambda: h / (1 + h.sum()),
            "padding": lambda: F.pad(h, (1, -1), value=2.0),
        }[self.form]()
        return self.leave(h)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("tanh", "found tanh in the network's own forward"),
        ("layer_norm", "found layer_norm in norm"),
        ("product", "found mul of two activations"),
        ("constant", "found add of a constant"),
        ("from one", "found rsub of a constant"),
        ("clamp", "found clamp with bounds other than 0"),
        ("quotient", "found add of a constant"),
        ("padding", r"found (constant_)?pad.* of a constant"),
    ],
)
def test_path_norm_says_where_it_is_not_defined(form, text):
    with pytest.raises(NotDefined, match=text):
        path_norm(objective_of(made(lambda: Unfit(form)), 3))


def test_path_norm_names_the_module():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.GELU()), nn.Linear(3, 2))
    with pytest.raises(NotDefined, match=r"found gelu in 1\.1"):
        path_norm(objective_of(model, 3))
    estimate = MEASURES["path_norm"](objective_of(model, 3), torch.Generator())
    assert math.isnan(estimate.value)
    assert "not defined" in estimate.reason


def test_words_have_no_path_norm():
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 2))
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.zeros(4, 3, dtype=torch.int64), torch.tensor([0, 1, 0, 1])))
    with pytest.raises(NotDefined, match="found embedding in 0"):
        path_norm(objective)


def test_what_overflows_is_infinite_and_says_so():
    model = nn.Sequential(*itertools.chain(*((nn.Linear(2, 2), nn.ReLU()) for _ in range(6)))).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1e60 if p.ndim == 2 else 0.0)
        model[0].bias.fill_(-1e62)  # no unit of the first layer is active, so that the loss is finite whatever the inputs are
    for function in (path_norm, frobenius_product, spectral_product):
        estimate = function(objective_of(model, 2))
        assert (estimate.value, estimate.reason) == (math.inf, "exceeds the range of float64")


# Rescalings by hand.


class Rescalable(nn.Module):
    """Convolutions with BatchNorm of both kinds and a residual sum; `rescale` is the algebra of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, affine=False)
        self.conv2, self.norm2 = nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.fc1, self.fc2 = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.conv0(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.fc2(F.relu(self.fc1(F.max_pool2d(x, 2).mean((2, 3)))))

    def rescale(self, scale: Callable[[int], Tensor]) -> None:
        for conv, norm in ((self.conv0, self.norm0), (self.conv1, self.norm1), (self.conv2, self.norm2)):
            s = scale(conv.out_channels)
            conv.weight *= s[:, None, None, None]
            if conv.bias is not None:
                conv.bias *= s
            norm.running_mean *= s
            norm.running_var.copy_(s**2 * (norm.running_var + norm.eps) - norm.eps)
        stream, hidden = scale(3), scale(5)
        for norm in (self.norm0, self.norm2):
            norm.weight *= stream
            norm.bias *= stream
        self.conv1.weight /= stream[None, :, None, None]
        self.fc1.weight *= hidden[:, None] / stream
        self.fc1.bias *= hidden
        self.fc2.weight /= hidden


def drawn(node: bool, seed: int) -> Callable[[int], Tensor]:
    """Factors from 1/20 to 20: one a neuron, or one a layer."""
    generator = torch.Generator().manual_seed(seed)
    return lambda n: (3 * (2 * torch.rand(n if node else 1, generator=generator, dtype=torch.float64) - 1)).exp().expand(n)


@pytest.mark.parametrize("node", [False, True], ids=["layer", "node"])
def test_path_norm_does_not_move(node):
    for seed in range(2):
        model = made(Rescalable, seed)
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.rescale(drawn(node, seed))
        x = torch.randn(5, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(other(x), model(x), rtol=1e-10, atol=1e-10)
        before, after = path_norm(objective_of(model, 2, 6, 6)).value, path_norm(objective_of(other, 2, 6, 6)).value
        assert after == pytest.approx(before, rel=1e-10)


BUILT_IN = {
    "resnet20": (lambda: networks.resnet20(width=2), (3, 16, 16), False),
    "vgg9": (lambda: networks.vgg9(size=16, width=2), (3, 16, 16), True),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_measures_under_rescalings_found_by_tracing(name):
    """Deep networks, many orders of magnitude: the path norm stays, the products do as `is_chain` says."""
    build, shape, chain = BUILT_IN[name]
    model = made(build)
    objective = objective_of(model, *shape)
    assert is_chain(objective) is chain
    x = torch.randn(2, *shape, dtype=torch.float64)
    rescaled = {node: objective_of(ls.rescale(model, 3.0, node=node, example=x), *shape) for node in (False, True)}
    for node, other in rescaled.items():
        assert path_norm(other).value == pytest.approx(path_norm(objective).value, rel=1e-9), node
    for product in PRODUCTS.values():
        ratio = product(rescaled[False]).value / product(objective).value
        assert (ratio == pytest.approx(1, rel=1e-9)) is chain
        assert abs(math.log(product(rescaled[True]).value / product(objective).value)) > 0.05


# Products of norms.


class Chain(nn.Module):
    """Everything that a chain may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.up = nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 2)
        self.fc, self.norm2, self.w = nn.Linear(27, 5), nn.BatchNorm1d(5, affine=False), nn.Parameter(torch.randn(5, 3))
        self.b = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)
        x = F.dropout(F.leaky_relu(self.up(x)), training=self.training).reshape(x.size(0), -1)
        return 0.5 * (torch.tanh(self.norm2(self.fc(x))) @ self.w + self.b)

    def rescale(self, s: float, t: float, u: float) -> None:
        self.conv.weight *= s
        self.conv.bias *= s
        self.norm.running_mean *= s
        self.norm.running_var.copy_(s**2 * (self.norm.running_var + self.norm.eps) - self.norm.eps)
        self.norm.weight *= t
        self.norm.bias *= t
        self.up.weight *= u / t
        self.up.bias *= u
        self.fc.weight /= u


def expected_product(model: Chain, order: str | int) -> float:
    """By NumPy, on matrices (out, in k k); with groups, zero where a channel is not read."""
    transposed = array(model.up.weight).transpose(1, 0, 2, 3).reshape(3, -1)
    a = array(model.norm.weight) / np.sqrt(array(model.norm.running_var) + model.norm.eps)
    a2 = 1 / np.sqrt(array(model.norm2.running_var) + model.norm2.eps)
    kernel = np.zeros((4, 2, 9))
    for out in range(4):
        kernel[out, out // 2] = array(model.conv.weight)[out].ravel()
    matrices = [
        kernel.reshape(4, -1),
        np.diag(a),
        transposed,
        array(model.fc.weight),
        np.diag(a2),
        array(model.w),
    ]
    return math.prod(np.linalg.norm(m, order) for m in matrices)


@pytest.mark.parametrize(("name", "order"), [("frobenius_product", "fro"), ("spectral_product", 2)])
def test_products_equal_numpy_and_do_not_move_in_a_chain(name, order):
    model = made(Chain)
    objective = objective_of(model, 2, 6, 6)
    before = PRODUCTS[name](objective)
    assert before.value == pytest.approx(expected_product(model, order), rel=1e-12)
    assert MEASURES[name].claims(objective) == ("layer",)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.rescale(7.0, 0.01, 30.0)
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(other(x), model(x), rtol=1e-10, atol=1e-10)
    assert PRODUCTS[name](objective_of(other, 2, 6, 6)).value == pytest.approx(before.value, rel=1e-10)


def test_products_move_under_neurons_and_where_an_activation_is_read_twice():
    model = made(Skip)
    objective = objective_of(model, 3)
    rescaled, neuron = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for p, s in ((rescaled.a.weight, 8), (rescaled.a.bias, 8), (rescaled.b.weight, 1 / 8), (rescaled.d.weight, 1 / 8)):
            p *= s
        s = torch.tensor([1e3, 1.0, 1.0, 1.0], dtype=torch.float64)
        for p, f in ((neuron.a.weight, s[:, None]), (neuron.a.bias, s), (neuron.b.weight, 1 / s), (neuron.d.weight, 1 / s)):
            p *= f
    x = torch.randn(4, 3, dtype=torch.float64)
    for other in (rescaled, neuron):
        torch.testing.assert_close(other(x), model(x), rtol=1e-10, atol=1e-10)
    for name, product in PRODUCTS.items():
        before = product(objective).value
        assert MEASURES[name].claims(objective) == ()
        assert product(objective_of(rescaled, 3)).value == pytest.approx(before / 8, rel=1e-12)
        assert product(objective_of(neuron, 3)).value > 20 * before


class Odd(nn.Module):
    """Networks that look like a chain and are none: a rescaling moves their product of norms, or may."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.a, self.c = form, nn.Linear(3, 3), nn.Linear(3, 2)
        if form == "position":
            self.extra: nn.Parameter | nn.Module = nn.Parameter(torch.randn(1, 3))
        elif form == "gain":
            self.extra = nn.Parameter(torch.randn(3))
        elif form == "norm":
            self.extra = nn.LayerNorm(3)
        elif form == "unused":
            self.extra = nn.Linear(3, 3)
        elif form == "part":
            self.extra = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = {
            "chain": lambda: h,
            "square": lambda: h**2,
            "itself": lambda: h * h,
            "joined": lambda: h + F.relu(h),
            "twice": lambda: self.a(F.relu(h)),
            "position": lambda: h + self.extra,
            "gain": lambda: h * self.extra,
            "norm": lambda: self.extra(h),
            "concatenated": lambda: torch.cat([h, h], 1)[:, :3],
            "part": lambda: F.linear(F.relu(h), self.extra[:3]),
            "unused": lambda: h,
        }[self.form]()
        return self.c(F.relu(h))


FORMS = "chain square itself joined twice position gain norm concatenated part unused"


@pytest.mark.parametrize("form", FORMS.split())
def test_no_claim_without_a_chain(form):
    objective = objective_of(made(lambda: Odd(form)), 3)
    assert is_chain(objective) is (form == "chain")
    assert frobenius_product(objective).value > spectral_product(objective).value > 0


def test_a_network_that_cannot_be_traced_has_products_without_a_claim():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if float(x.sum()) > -1e9 else self.a(-x)

    objective = objective_of(Branching().double(), 3)
    assert not is_chain(objective)
    assert frobenius_product(objective).value > 0
    with pytest.raises(NotDefined, match=r"expected a network that torch\.export can trace"):
        path_norm(objective)


def test_attention_has_products_and_no_path_norm():
    model = made(lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True))
    objective = objective_of(model, 5, 4)
    gains = [model.norm1.weight, model.norm2.weight]
    weights = [p for p in model.parameters() if p.ndim == 2] + gains
    expected = math.prod(np.linalg.norm(array(w)) for w in weights)
    assert frobenius_product(objective).value == pytest.approx(expected, rel=1e-12)
    with pytest.raises(NotDefined, match="expected linear maps, rectifiers, poolings and sums between input and output, found"):
        path_norm(objective)


def test_what_is_asked_of_a_network_with_several_arguments():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x + y)

    batch = (torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 2))
    objective = Objective(Two(), nn.MSELoss(), [batch])
    for function in (path_norm, frobenius_product, spectral_product):
        with pytest.raises(NotDefined, match="expected a model that takes one tensor, found one with several arguments"):
            function(objective)
