"""Moves along every family keep the function; what was moved is written down here by hand, from the algebra alone."""

import copy
import math
import re
from collections.abc import Iterable

import pytest
import torch
from symmetric_networks import (
    BatchNormCnn,
    BiasedAttention,
    FusedAttention,
    LayerNormStream,
    LowRank,
    Normed,
    Stream,
    Symmetric,
)
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError
from landscape.reparam import find_symmetries, largest_condition, mix, move, random_matrix, rescale
from landscape.reparam.moving.same_function import compare
from landscape.symmetry.mixing.mixtures import Mixing, Reader, Rows, Shift, Trade
from landscape.symmetry.symmetries import Scaling, Symmetries, Unit

TIGHT = 1e-9


def grid(p: Tensor) -> Tensor:
    """Positions of the elements, in the parameter's shape."""
    return torch.arange(p.numel()).view(p.shape)


def wrote(model: nn.Module, layer: str, rows: slice, inverse: bool = False, gain: str | None = None) -> Iterable[Rows]:
    """The rows of weight and bias that write these channels."""
    named = dict(model.named_parameters())
    yield Rows(f"{layer}.weight", grid(named[f"{layer}.weight"])[rows].T, inverse, gain)
    if f"{layer}.bias" in named:
        yield Rows(f"{layer}.bias", grid(named[f"{layer}.bias"])[rows][None], inverse, gain)


def reads(model: nn.Module, layer: str, columns: slice, gain: str | None = None) -> Rows:
    """The columns that read these channels."""
    return Rows(f"{layer}.weight", grid(dict(model.named_parameters())[f"{layer}.weight"])[:, columns], True, gain)


def attention(model: BiasedAttention) -> tuple[Mixing, ...]:
    """Queries and keys, values and output, of every key."""
    h, found = model.h, []
    turned = torch.stack([torch.arange(h // 2), torch.arange(h // 2) + h // 2], 1) if model.rotary else None
    names = dict(model.named_parameters())
    q, k, v = ("qkv",) * 3 if "qkv.weight" in names else ("q", "k", "v")
    for i in range(model.heads // model.shared):
        (_, q0), (_, k0), (_, v0) = model.projections()
        queries = [slice(q0 + s.start, q0 + s.stop) for s in model.of_key(i)]
        rows = [r for s in queries for r in wrote(model, q, s)] + list(wrote(model, k, model.rows(k0, i), inverse=True))
        found.append(Mixing(f"q and k {i}", h, "rotary" if model.rotary else "general", tuple(rows), turned))
        rows = [*wrote(model, v, model.rows(v0, i)), *(reads(model, "out", s) for s in model.of_key(i))]
        found.append(Mixing(f"v and out {i}", h, "general", tuple(rows)))
    return tuple(found)


def stream(model: Stream, group: str) -> tuple[Mixing, ...]:
    """The axes of the stream; a norm's gain stays, so that what it leads to is mixed in units of it."""
    h, whole = model.words.weight.shape[1], slice(None)
    rows = [Rows(f"{n}.weight", grid(m.weight), False) for n, m in (("words", model.words), ("positions", model.positions))]
    rows += [r for n in ("out", "fc2") for r in wrote(model, n, whole)]
    for norm, readers in (("norm1", "q k v"), ("norm2", "fc1"), ("norm3", "head")):
        rows += [reads(model, n, whole, f"{norm}.weight") for n in readers.split()]
        if group == "centred":
            rows.append(Rows(f"{norm}.bias", torch.arange(h)[None], False, f"{norm}.weight"))
    return (Mixing("stream", h, group, tuple(rows)),)


def only(**parts: object) -> Symmetries:
    """Symmetries of these parts alone."""
    return Symmetries(**({"units": (), "pinned": (), "scalings": {}, "neurons": 0} | parts))


def made(build: object, shape: tuple[int, ...] = (5, 3)) -> tuple[nn.Module, Tensor]:
    model, x, *_ = Symmetric("net", build, shape).make()
    return model, x


ATTENTIONS = {
    "plain": BiasedAttention,
    "no bias": lambda: BiasedAttention(bias=False),
    "fused": FusedAttention,
    "grouped": lambda: BiasedAttention(heads=4, shared=2),
    "rotary": lambda: BiasedAttention(bias=False, rotary=True),
    "rotary, biases": lambda: BiasedAttention(rotary=True),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_matrices_of_attention_keep_the_function_and_move_every_weight(name: str) -> None:
    model, x = made(ATTENTIONS[name])
    symmetries = only(mixings=attention(model))
    assert symmetries.families == ("pair",)
    other = move(model, symmetries, "pair", condition=100.0)
    assert compare(model, other, x, tolerance=TIGHT) > 0
    changed = {n for n, p in other.named_parameters() if not torch.equal(p, dict(model.named_parameters())[n])}
    assert changed == {rows.name for mixing in symmetries.mixings for rows in mixing.rows}


@pytest.mark.parametrize(("build", "group"), [(Stream, "orthogonal"), (LayerNormStream, "centred")])
def test_rotations_of_the_stream_act_in_units_of_the_gains(build: type[Stream], group: str) -> None:
    model, x = made(build, ())
    symmetries = only(mixings=stream(model, group))
    assert symmetries.families == ("rotation",)
    other = move(model, symmetries, "rotation", example=x)
    assert compare(model, other, x, tolerance=TIGHT) > 0
    assert torch.equal(other.norm1.weight, model.norm1.weight)
    # A rotation that forgets the gains changes the function, and is found out.
    forgotten = tuple(Rows(r.name, r.index, r.inverse) for r in symmetries.mixings[0].rows)
    with pytest.raises(NumericalError, match="expected outputs to change by at most"):
        move(model, only(mixings=(Mixing("stream", 8, group, forgotten),)), "rotation", example=x)


def test_a_gain_may_be_a_part_of_a_parameter() -> None:
    """The gain of two normalizations in one parameter: the second half belongs to the rows."""

    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gains, self.a, self.b = nn.Parameter(torch.rand(8) + 0.5), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(nn.functional.rms_norm(self.a(x), (4,)) * self.gains[4:])

    torch.manual_seed(0)
    model, x = Joint().double(), torch.randn(6, 3).double()
    read = Rows("b.weight", grid(model.b.weight), True, "gains", torch.arange(4, 8))
    mixings = (Mixing("a", 4, "orthogonal", (*wrote(model, "a", slice(None)), read)),)
    assert compare(model, move(model, only(mixings=mixings), "rotation"), x, tolerance=TIGHT) > 0


def test_shifts_and_trades_keep_the_function() -> None:
    model, x = made(BiasedAttention)
    keys = Shift("keys", {"k.bias": grid(model.k.bias)[None]}, uniform=False)
    logits = Shift("logits", {"head.weight": grid(model.head.weight).T, "head.bias": grid(model.head.bias)[None]}, True, True)
    out = Reader("out.bias", torch.arange(8), "out.weight", torch.arange(64).view(8, 8))
    values = Trade("values", {"v.bias": grid(model.v.bias)[None]}, {}, (out,))
    symmetries = only(shifts=(keys, logits), trades=(values,))
    assert symmetries.families == ("shift", "bias")
    assert compare(model, move(model, symmetries, "bias", example=x), x, tolerance=TIGHT) > 0
    other = move(model, symmetries, "shift", example=x)
    with torch.no_grad():
        moved = other(x) - model(x)
    assert float((moved - moved.mean(1, keepdim=True)).abs().max()) < TIGHT
    assert float(moved.abs().max()) > 0.1
    assert compare(model, move(model, only(shifts=(keys,)), "shift"), x, tolerance=TIGHT) > 0
    # Each of the classes' weights of one input moves by one number.
    difference = (other.head.weight - model.head.weight).detach()
    assert torch.allclose(difference, difference[:1].expand(3, -1))


def test_a_shift_of_zeros_has_the_size_of_the_weights() -> None:
    model, x = made(BiasedAttention)
    with torch.no_grad():
        model.k.bias.zero_()
    keys = Shift("keys", {"k.bias": grid(model.k.bias)[None]}, uniform=False)
    other = move(model, only(shifts=(keys,)), "shift", alpha=5.0, example=x)
    weights = torch.cat([p.flatten() for p in model.parameters() if p.ndim > 1]).detach()
    assert float(other.k.bias.detach().norm()) == pytest.approx(5 * float(weights.square().mean().sqrt()) * 8**0.5, rel=0.7)


def test_a_trade_with_a_running_mean() -> None:
    model, x = made(BatchNormCnn, (2, 8, 8))
    one = Trade("conv1", {"conv1.bias": torch.arange(3)[None], "norm.running_mean": torch.arange(3)[None]}, {}, statistics=True)
    other = move(model, only(trades=(one,)), "bias", example=x)
    assert not torch.equal(other.norm.running_mean, model.norm.running_mean)
    assert compare(model, other, x, tolerance=TIGHT) > 0


def test_nearly_is_measured_and_refused_where_it_is_too_much() -> None:
    model, x = made(Normed, (4,))
    model.norm.eps = 1e-5
    free = torch.ones((), dtype=torch.int64)
    scalings = {n: Scaling(free, free * 0, p.shape) for n, p in model.named_parameters() if n.startswith("a.")}
    unit = Unit("a", ("a",), torch.tensor([1]), tuple(scalings), (), ())
    symmetries = only(nearly=Symmetries((unit,), (), scalings, 1))
    assert symmetries.families == ("norm-in",)
    other = move(model, symmetries, "norm-in", alpha=3.0, example=x)
    assert torch.allclose(other.a.weight, 3 * model.a.weight)
    assert 1e-8 < compare(model, other, x, tolerance=1.0) < 1e-3
    with pytest.raises(NumericalError, match=r"by at most 1% of the largest along norm-in, which .* found 89\.50%"):
        move(model, symmetries, "norm-in", alpha=1e-3, example=x)


def test_running_statistics_take_up_the_factors_of_norm_in() -> None:
    model, x = made(BatchNormCnn, (2, 8, 8))
    symmetries = find_symmetries(model, x)
    other = move(model, symmetries, "norm-in", alpha=5.0, example=x)
    ratio = (other.conv1.bias / model.conv1.bias).detach()
    assert float(ratio.max()) == pytest.approx(5.0)
    assert torch.equal(other.conv2.weight, model.conv2.weight)
    assert compare(model, other, x, tolerance=TIGHT) > 0


def test_norm_out_scales_the_channels_of_normalizations_only() -> None:
    model, x = made(BatchNormCnn, (2, 8, 8))
    found = find_symmetries(model, x)
    units = tuple(
        Unit(u.name, u.producers, u.neurons, u.multiplied, u.divided, u.buffers, normed=u.name == "norm") for u in found.units
    )
    symmetries = Symmetries(units, found.pinned, found.scalings, found.neurons)
    other = move(model, symmetries, "norm-out", alpha=5.0, example=x)
    changed = {n for n, p in other.named_parameters() if not torch.equal(p, dict(model.named_parameters())[n])}
    assert changed == {"norm.weight", "norm.bias", "conv2.weight"}
    assert compare(model, other, x, tolerance=TIGHT) > 0


@pytest.mark.parametrize("node", [False, True])
def test_layers_and_neurons_are_moved_as_by_rescale(node: bool) -> None:
    model, x = made(BatchNormCnn, (2, 8, 8))
    model.float()
    symmetries = find_symmetries(model, x.float())
    expected = rescale(model, 7.0, node=node, example=x.float(), generator=torch.Generator().manual_seed(3))
    found = move(model, symmetries, "node" if node else "layer", alpha=7.0, generator=torch.Generator().manual_seed(3))
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_all_families_one_after_another() -> None:
    model, x = made(BiasedAttention)
    found = find_symmetries(model, x)
    keys = Shift("keys", {"k.bias": grid(model.k.bias)[None]}, uniform=False)
    symmetries = Symmetries(found.units, (), found.scalings, found.neurons, attention(model), (keys,))
    before = copy.deepcopy(model.state_dict())
    other = move(model, symmetries, symmetries.families, example=x)
    assert symmetries.families == ("layer", "node", "pair", "shift")
    assert compare(model, other, x, tolerance=TIGHT) > 0
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in before.items())


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3])
def test_random_matrices_have_the_condition_number_that_was_asked_for(condition: float) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = random_matrix(Mixing("z", 6, "general", ()), condition, generator)
    assert float(torch.linalg.cond(plain)) == pytest.approx(condition)
    assert float(torch.linalg.matrix_norm(plain, 2)) == pytest.approx(math.sqrt(condition))
    turned = torch.tensor([[0, 2], [1, 3]])
    rotary = random_matrix(Mixing("z", 5, "rotary", (), turned), condition, generator)
    assert float(torch.linalg.cond(rotary)) == pytest.approx(condition)
    assert torch.equal(rotary[4], torch.eye(5, dtype=torch.float64)[4])
    for group in ("orthogonal", "centred"):
        matrix = random_matrix(Mixing("z", 6, group, ()), condition, generator)
        assert torch.allclose(matrix @ matrix.T, torch.eye(6, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(matrix.sum(1), torch.ones(6).double()) == (group == "centred")


def test_a_condition_number_that_the_weights_cannot_hold_is_refused_with_the_number() -> None:
    model, x = made(BiasedAttention)
    symmetries = only(mixings=attention(model))
    assert largest_condition([torch.float32]) == pytest.approx(8.4e3, rel=0.01)
    move(model, symmetries, "pair", condition=1e5, example=x)  # float64
    for bad in (1e5, 0.5, math.inf, math.nan):
        with pytest.raises(UsageError, match=rf"from 1 to 8.4e\+03 .*float32 weights, found {re.escape(f'{bad:.3g}')}"):
            move(copy.deepcopy(model).float(), symmetries, "pair", condition=bad)


def test_a_matrix_of_ones_own() -> None:
    model, x = made(BiasedAttention)
    first = attention(model)[0]
    shear = torch.eye(4) + 3 * torch.diag(torch.ones(3), 1)
    other = mix(model, first, shear, example=x)
    assert torch.allclose(other.q.weight[:4], shear.double() @ model.q.weight[:4])
    assert compare(model, other, x, tolerance=TIGHT) <= TIGHT
    single = copy.deepcopy(model).float()
    assert compare(single, mix(single, first, shear, example=x.float()), x.float()) > 0
    cases = [
        (torch.diag(torch.tensor([1e5, 1.0, 1.0, 1.0])), r"found 1e\+05"),
        (torch.ones(4, 4), r"condition number from 1 to 8.4e\+03 of the matrix for q and k 0"),
        (torch.zeros(4, 4), r"condition number"),
        (torch.full((4, 4), math.nan), "finite numbers"),
        (torch.eye(3), r"expected a 4 x 4 matrix for q and k 0, found shape \(3, 3\)"),
    ]
    for matrix, words in cases:
        with pytest.raises(UsageError, match=words):
            mix(single, first, matrix)


@pytest.mark.parametrize(
    ("group", "words"),
    [("rotary", "a factor and a rotation"), ("orthogonal", "orthogonal"), ("centred", r"keeps \(1, ..., 1\)")],
)
def test_a_matrix_outside_the_group_is_refused(group: str, words: str) -> None:
    mixing = Mixing("z", 4, group, (), torch.tensor([[0, 2], [1, 3]]))
    model = nn.Linear(4, 4)
    mix(model, mixing, random_matrix(mixing, 10.0, torch.Generator().manual_seed(0)))
    outside = random_matrix(Mixing("z", 4, "general", ()), 10.0, torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match=rf"{words}.* for z, found one .* away"):
        mix(model, mixing, outside)


def test_what_is_not_there_is_said() -> None:
    model, x = made(LowRank, (6,))
    plain = find_symmetries(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    nothing = Symmetries((), plain.pinned, {}, 0, unread=("aten.foo in body",))
    with pytest.raises(UsageError, match=r"expected a symmetry, found none \(.*not read: aten.foo in body\)"):
        move(model, nothing, "pair")
    found = find_symmetries(model, x)
    with pytest.raises(UsageError, match="of the family norm-out, found none in this network"):
        move(model, found, "norm-out")
    with pytest.raises(UsageError, match="expected a family of symmetries, found 'twist'"):
        move(model, found, "twist")
    with pytest.raises(UsageError, match="alpha to be a finite number above 0, found -1"):
        move(model, found, "node", alpha=-1.0)
