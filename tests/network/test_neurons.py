"""Filters against explicit loops: a filter set to zero changes its output and no other."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import landscape as ls
from landscape.measures import NotDefined, relative_flatness, spectral_product
from landscape.network.parameters import Layout
from landscape.objective import Objective
from landscape.spectra.block_curvature import breakdown
from landscape.surfaces.axes.directions import random_direction


class Conv1D(nn.Module):
    """As GPT-2 keeps its weights: (inputs, outputs)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Form(nn.Module):
    """A linear map in one of many forms, of a weight `w` of this shape."""

    def __init__(self, shape: tuple[int, ...], form) -> None:
        super().__init__()
        self.w, self.form = nn.Parameter(torch.empty(shape)), form

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, self.w)


def fake_quantized(w: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(w, 0.01, 0, -128, 127)


VECTOR, SEQUENCE, IMAGE, THREE = (2, 4), (2, 3, 4), (2, 4, 5, 5), (2, 3, 4)
# A map whose outputs lie on dimension 1 (or, in the forms "last", on the last one), on an input of this shape.
MAPS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "linear": (nn.Linear(4, 6), VECTOR, 1),
    "linear on sequences": (nn.Linear(4, 6), SEQUENCE, -1),
    "square": (nn.Linear(4, 4), VECTOR, 1),
    "one output": (nn.Linear(4, 1), VECTOR, 1),
    "Conv1D": (Conv1D(6, 4), SEQUENCE, -1),
    "Conv1D, square": (Conv1D(4, 4), VECTOR, 1),
    "x @ w": (Form((4, 6), lambda x, w: x @ w), SEQUENCE, -1),
    "w @ x": (Form((6, 4), lambda x, w: (w @ x.T).T), VECTOR, 1),
    "one vector at a time": (Form((6, 4), lambda x, w: torch.stack([w @ row for row in x])), VECTOR, 1),
    "einsum": (Form((4, 6), lambda x, w: torch.einsum("bti,io->bto", x, w)), SEQUENCE, -1),
    "einsum, outputs of two axes": (Form((2, 4, 3), lambda x, w: torch.einsum("bi,hio->bho", x, w).flatten(1)), VECTOR, 1),
    "cast and scaled": (Form((4, 6), lambda x, w: (x.float() @ (0.5 * w).float()).double()), VECTOR, 1),
    "fake-quantized": (Form((4, 6), lambda x, w: x @ fake_quantized(w)), VECTOR, 1),
    "normalized by hand": (Form((4, 6), lambda x, w: x @ (w / (1 + w.norm(dim=0)))), VECTOR, 1),
    "masked": (Form((4, 6), lambda x, w: x @ (w * (torch.arange(4) > 0)[:, None])), VECTOR, 1),
    "three in one": (
        Form((4, 6), lambda x, w: torch.cat([x @ part for part in w.chunk(3, 1)], 1)),
        VECTOR,
        1,
    ),
    "three in one, rows": (
        Form((6, 4), lambda x, w: torch.cat([F.linear(x, part) for part in w.split(2)], 1)),
        VECTOR,
        1,
    ),
    "inputs in two parts": (Form((6, 4), lambda x, w: F.linear(x[:, :3], w[:, :3]) + F.linear(x[:, 3:], w[:, 3:])), VECTOR, 1),
    "experts at once": (Form((3, 4, 2), lambda x, w: torch.einsum("bei,eio->beo", x, w).flatten(1)), THREE, 1),
    "experts one by one": (
        Form((3, 4, 2), lambda x, w: torch.cat([x[:, e] @ w[e] for e in range(3)], 1)),
        THREE,
        1,
    ),
    "an expert without tokens": (
        Form((3, 4, 2), lambda x, w: torch.cat([*(x[:, e] @ w[e] for e in range(2)), 0 * x[:, 0, :1] + w[2].sum(0)], 1)),
        THREE,
        1,
    ),
    "heads over a batch": (
        Form((3, 4, 2), lambda x, w: (x[:, :, None] @ w.expand(len(x), -1, -1, -1))[:, :, 0].flatten(1)),
        THREE,
        1,
    ),
    "conv": (nn.Conv2d(4, 6, 3, padding=1), IMAGE, 1),
    "conv, groups": (nn.Conv2d(4, 6, 3, groups=2), IMAGE, 1),
    "conv, depthwise": (nn.Conv2d(4, 8, 3, groups=4), IMAGE, 1),
    "conv by hand": (
        Form((6, 4, 3, 3), lambda x, w: w.view(6, -1) @ F.unfold(x, 3)),
        IMAGE,
        1,
    ),
    "conv of another layout": (Form((4, 6, 3, 3), lambda x, w: F.conv2d(x, w.transpose(0, 1))), IMAGE, 1),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), IMAGE, 1),
    "transposed, groups": (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGE, 1),
    "transposed, depthwise": (nn.ConvTranspose2d(4, 4, 3, groups=4), IMAGE, 1),
    "transposed, groups, by hand": (Form((4, 3, 3, 3), lambda x, w: F.conv_transpose2d(x, w, groups=2)), IMAGE, 1),
    "bilinear": (Form((6, 4, 4), lambda x, w: F.bilinear(x, x, w)), VECTOR, 1),
}


def filled(model: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return model.double().eval()


@pytest.mark.parametrize("name", MAPS)
def test_a_filter_set_to_zero_changes_its_output_alone(name):
    model, shape, dim = MAPS[name]
    filled(model)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layout = Layout.of(model, (x,))
    weight = next(p for p in model.parameters() if p.ndim > 1)
    (entry,) = (e for e in layout if e.kind == "weight")
    with torch.no_grad():
        whole = model(x).movedim(dim, 0).flatten(1)
        assert entry.filters is not None
        assert entry.filters.count == len(whole)
        changed = []
        for number in range(entry.filters.count):
            kept = weight.clone()
            weight[entry.filters.ids == number] = 0.0
            differs = (model(x).movedim(dim, 0).flatten(1) != whole).any(1)
            weight.copy_(kept)
            changed.append(differs.nonzero()[:, 0].tolist())
    assert sorted(changed) == [[i] for i in range(len(whole))]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = Conv1D(12, 4), Conv1D(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).split(4, -1)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v))


def axis_of(layout: Layout, name: str) -> list[int]:
    """The axes along which the number of the filter changes."""
    (ids,) = (e.filters.ids for e in layout if e.name == name)
    return [a for a in range(ids.ndim) if bool((ids.diff(dim=a) != 0).any())]


def test_networks_of_libraries():
    attention = Layout.of(filled(Attention()), (torch.randn(2, 3, 4, dtype=torch.float64),))
    assert (axis_of(attention, "c_attn.weight"), axis_of(attention, "c_proj.weight")) == ([1], [1])
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()  # has a fast path
    layout = Layout.of(encoder, (torch.randn(2, 3, 4),))
    assert all(axis_of(layout, e.name) == [0] for e in layout if e.kind == "weight")
    lstm = nn.LSTM(4, 3, batch_first=True)
    assert all(axis_of(Layout.of(lstm, (torch.randn(2, 3, 4),)), n) == [0] for n in ("weight_ih_l0", "weight_hh_l0"))


class Tied(nn.Module):
    """Words in, words out, by one table."""

    def __init__(self, out) -> None:
        super().__init__()
        self.table, self.mix, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), out

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.table(ids))), self.table.weight)


def test_of_a_tied_table_the_row_is_the_filter():
    ids = torch.randint(7, (2, 3))
    for out in (F.linear, lambda h, w: F.linear(h, w) @ w):
        assert axis_of(Layout.of(Tied(out), (ids,)), "table.weight") == [0]


class Contradictory(nn.Module):
    """An autoencoder with one weight for both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.last = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(x @ self.w) @ self.w.T)


def test_what_is_used_in_two_ways_is_not_known_and_said_so():
    torch.manual_seed(0)
    objective = Objective(Contradictory(), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.randint(3, (8,))), dtype="float64")
    assert objective.layout.not_known == ("w",)
    assert objective.layout.filters.tolist() == [-1] * 16 + [i for i in range(3) for _ in range(4)] + [-1] * 3
    d, theta = random_direction(objective, seed=0), objective.theta
    assert "w as a whole" in d.name
    assert float(d.vector[:16].norm()) == pytest.approx(float(theta[:16].norm()))
    assert [(b.layer, b.filter, b.weights) for b in breakdown(objective, filters=True, probes=2)] == [
        ("", None, 16), ("last", None, 15), ("last", 0, 4), ("last", 1, 4), ("last", 2, 4),
    ]  # fmt: skip
    with pytest.raises(NotDefined, match="found w, which is used in two ways"):
        relative_flatness(objective)
    relative_flatness(objective, layers="last*", probes=2)
    with pytest.raises(NotDefined, match="found w, which is used in two ways"):
        spectral_product(objective)


class Potential(nn.Module):
    """A force: the gradient of an energy, inside the forward pass; its backward pass multiplies by weights transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


def test_backward_passes_inside_tell_nothing():
    layout = Layout.of(Potential(), (torch.randn(3, 4),))
    assert axis_of(layout, "net.0.weight") == [0]
    assert layout.not_known == ()


class Added(nn.Module):
    """W + B A, as an adapter is merged; and the features are a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b, self.a = (nn.Parameter(torch.randn(s)) for s in ((4, 5), (4, 2), (2, 5)))
        self.register_buffer("features", torch.randn(6, 4))

    def forward(self, rows: Tensor) -> Tensor:
        return (self.features @ (self.w + self.b @ self.a))[rows]


def test_products_of_weights_alone_tell_nothing_and_features_may_be_a_buffer():
    layout = Layout.of(Added(), (torch.arange(3),))
    assert axis_of(layout, "w") == [1]
    assert axis_of(layout, "b") == axis_of(layout, "a") == [0]


def test_a_pass_leaves_the_network_as_it_is_and_one_that_fails_tells_nothing():
    table = nn.Embedding(5, 3, max_norm=0.1)
    before = table.weight.detach().clone()
    Layout.of(table, (torch.arange(5),))
    assert torch.equal(table.weight, before)
    norm = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = norm[1].running_mean.clone()
    Layout.of(norm, (torch.randn(4, 3),))
    assert torch.equal(norm[1].running_mean, before)
    assert not any(p.grad is not None for p in norm.parameters())
    for example in (None, (torch.randn(2, 9),)):
        assert axis_of(Layout.of(nn.Linear(4, 6), example), "weight") == [0]
        up = Layout.of(nn.ConvTranspose2d(4, 6, 3, groups=2), example)
        assert len(set(up.filters.tolist()) - {-1}) == 6
    assert axis_of(Layout.of(Conv1D(6, 4), {"x": torch.randn(2, 4)}), "weight") == [1], "named arguments"


def both_layouts() -> tuple[Objective, Objective]:
    """One network with GPT-2's weights and with linear layers."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 5), torch.randint(0, 3, (20,))
    one = nn.Sequential(Conv1D(7, 5), nn.Tanh(), Conv1D(3, 7))
    two = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    for i in (0, 2):
        nn.init.normal_(one[i].weight)
        two[i].weight.data, two[i].bias.data = one[i].weight.data.T.contiguous(), one[i].bias.data
    return tuple(Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64") for net in (one, two))


def test_answers_do_not_depend_on_how_a_weight_lies_in_memory():
    one, two = both_layouts()
    first, second = (breakdown(o, filters=True, probes=800, tol=1e-8) for o in (one, two))
    assert [(b.layer, b.filter, b.weights) for b in first] == [(b.layer, b.filter, b.weights) for b in second]
    for a, b in zip(first, second, strict=True):
        assert a.lambda_max.value == pytest.approx(b.lambda_max.value, rel=1e-6)
        assert abs(a.trace.value - b.trace.value) <= 5 * (a.trace.stderr + b.trace.stderr)
    a, b = (relative_flatness(o, probes=2000) for o in (one, two))
    assert abs(a.value - b.value) <= 5 * (a.stderr + b.stderr)
    assert spectral_product(one).value == pytest.approx(spectral_product(two).value, rel=1e-12)
    planes = [ls.plane(o, grid=3).check.norm_ratio[0] for o in (one, two)]
    assert planes[0].count == planes[1].count == 10


def test_filter_norms_of_a_grouped_transposed_convolution():
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(54, 2))
    objective = Objective(net, nn.CrossEntropyLoss(), (torch.randn(8, 4, 2, 2), torch.randint(2, (8,))), dtype="float64")
    d = objective.layout.unflatten(random_direction(objective, seed=0).vector)["0.weight"]
    w = net[0].weight.detach().double()
    for group in range(2):
        for j in range(3):
            rows = slice(2 * group, 2 * group + 2)
            assert float(d[rows, j].norm()) == pytest.approx(float(w[rows, j].norm()), rel=1e-12)


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(4, 6, 1, groups=2), nn.Conv2d(4, 6, 1, groups=2)])
def test_spectral_norm_with_groups_is_that_of_the_map(layer):
    """A kernel of one pixel: the matrix of the map is the whole truth."""
    filled(layer).bias.data.zero_()
    matrix = layer(torch.eye(4, dtype=torch.float64)[:, :, None, None])[:, :, 0, 0].T
    data = (torch.randn(3, 4, 1, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long))
    net = nn.Sequential(layer, nn.Flatten())
    found = spectral_product(Objective(net, nn.CrossEntropyLoss(), data, dtype="float64"))
    assert found.value == pytest.approx(float(torch.linalg.matrix_norm(matrix.detach(), 2)), rel=1e-12)
