"""Curves between minima: their shapes in closed form, their training against PyTorch's own, and barriers that they avoid."""

import copy
import math

import numpy as np
import pytest
import torch
from cases import CASES
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

from landscape.errors import MalformedError, MismatchError, NumericalError, UsageError
from landscape.machine import progress
from landscape.objective import Objective
from landscape.surfaces.axes.curve import Curve, train_curve

kinds = pytest.mark.parametrize("kind", ["bezier", "polygon"])


def points(n: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(index: int, **options) -> tuple[Objective, Objective]:
    """Two networks of one architecture on one data set."""
    model, loss, x, y = CASES[index].make(0)
    return tuple(Objective(m, loss, (x, y), dtype="float64", **options) for m in (model, CASES[index].make(5)[0]))


class Hyperbola:
    """(w1 w2 - 1)^2, whose minima are w2 = 1 / w1; between (4, 1/4) and (1/4, 4) the line climbs to ((17/8)^2 - 1)^2."""

    barrier = ((17 / 8) ** 2 - 1) ** 2

    @staticmethod
    def at(w: float) -> Objective:
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
        nn.init.constant_(net[0].weight, w)
        nn.init.constant_(net[1].weight, 1 / w)
        return Objective(net, nn.MSELoss(), (torch.ones(3, 1), torch.ones(3, 1)), dtype="float64")

    @staticmethod
    def loss(w: np.ndarray) -> np.ndarray:
        return (w[..., 0] * w[..., 1] - 1) ** 2


# ---- the shape


def de_casteljau(control: torch.Tensor, t: float) -> torch.Tensor:
    """A point of a Bezier curve by repeated interpolation."""
    while len(control) > 1:
        control = (1 - t) * control[:-1] + t * control[1:]
    return control[0]


def on_chain(control: torch.Tensor, t: float) -> torch.Tensor:
    """A point of a polygon: so far on the side that t falls on."""
    side = min(int(t * (len(control) - 1)), len(control) - 2)
    part = t * (len(control) - 1) - side
    return control[side] + part * (control[side + 1] - control[side])


@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize(("kind", "reference"), [("bezier", de_casteljau), ("polygon", on_chain)])
def test_points_are_those_of_the_closed_form(kind, reference, count):
    curve = Curve(kind, points(count))
    for t in (0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0):
        torch.testing.assert_close(curve.point(t), reference(curve.control, t), rtol=1e-13, atol=1e-13)
        c = curve.coefficients(t)
        assert float(c.sum()) == pytest.approx(1, abs=1e-14)
        assert float(c.min()) >= 0


@kinds
def test_ends_are_exact_to_the_bit(kind):
    """Negative zeros, infinities and numbers that no sum would leave alone."""
    control = torch.tensor([[-0.0, 1e-30, 3.3], [torch.inf, -1e30, 7.7], [-0.0, torch.inf, 0.1]])
    curve = Curve(kind, control)
    for t, row in ((0.0, 0), (1.0, 2)):
        assert curve.point(t).view(torch.int32).tolist() == control[row].view(torch.int32).tolist()
    curve.point(0.0).zero_()
    assert float(curve.control[0, 2]) == pytest.approx(3.3)


def test_length_of_a_parabola_and_of_a_chain():
    """(t, t^2) has length t sqrt(1 + 4 t^2) / 2 + asinh(2 t) / 4 up to t."""
    parabola = Curve("bezier", torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]], dtype=torch.float64))
    t = np.array([0.9, 0.0, 0.3, 1.0])
    np.testing.assert_allclose(parabola.distances(t), t * np.sqrt(1 + 4 * t**2) / 2 + np.arcsinh(2 * t) / 4, rtol=1e-13)
    assert parabola.length == pytest.approx(5**0.5 / 2 + math.asinh(2) / 4, rel=1e-13)
    chain = Curve("polygon", torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]]))
    np.testing.assert_allclose(chain.distances([0, 0.25, 0.5, 0.75, 1]), [0, 2.5, 5, 6, 7], rtol=1e-13)


@kinds
@pytest.mark.parametrize("count", [3, 6])
def test_length_is_that_of_a_fine_chain_of_its_points(kind, count):
    curve = Curve(kind, points(count, 9, seed=count))
    t = np.linspace(0, 1, 6001)
    walked = torch.stack([curve.point(float(u)) for u in t]).diff(dim=0).norm(dim=1).cumsum(0).numpy()
    np.testing.assert_allclose(curve.distances(t[1:]), walked, rtol=1e-5)
    assert curve.length >= float((curve.control[-1] - curve.control[0]).norm())


def test_a_curve_survives_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    curve = Curve("polygon", points(4), torch.arange(3.0, dtype=torch.float64), {"lr": 0.1})
    save_file(curve.to_tensors(), tmp_path / "curve.safetensors")
    back = Curve.from_tensors(load_file(tmp_path / "curve.safetensors"), curve.settings)
    assert back.kind == "polygon"
    assert torch.equal(back.control, curve.control)
    assert torch.equal(back.history, curve.history)
    assert back.settings == curve.settings


# ---- the training


def draws(steps: int, n: int, batch: int, seed: int):
    """The values of t and the mini-batches of a training, as its docstring has them."""
    random = torch.Generator().manual_seed(seed)
    strata, rows = [], []
    for _ in range(steps):
        strata = strata or torch.randperm(16, generator=random).tolist()
        t = (strata.pop(0) + float(torch.rand((), generator=random, dtype=torch.float64))) / 16
        rows = rows or list(torch.randperm(n, generator=random)[: n - n % batch].split(batch))
        yield t, rows.pop(0)


@kinds
@pytest.mark.parametrize("index", [1, 2, 3, 4], ids=lambda i: str(CASES[i]))
def test_training_is_pytorch_s_own(kind, index):
    """Written anew: the network in train mode, autograd through the whole curve, de Casteljau or the chain."""
    start, end = pair(index, batch_size=5)
    found = train_curve(start, end, kind=kind, bends=2, steps=30, batch_size=7, lr=0.02, seed=3)
    model, loss, x, y = CASES[index].make(0)
    model, other, loss = model.double().train(), CASES[index].make(5)[0].double(), copy.deepcopy(loss).double()
    x, y = x.double(), y.double() if y.is_floating_point() else y
    flat = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (model, other)]
    tensors = zip(model.parameters(), other.parameters(), strict=True)
    unit = torch.cat([(q - p).detach().square().mean().sqrt().expand(p.numel()) for p, q in tensors])
    unit[unit == 0] = (flat[1] - flat[0]).square().mean().sqrt()  # BatchNorm's weights are 1 in both
    moved = torch.zeros(2, len(unit), dtype=torch.float64, requires_grad=True)
    line = torch.stack([flat[0] + (flat[1] - flat[0]) * i / 3 for i in (1, 2)])
    optimizer = torch.optim.Adam([moved], lr=0.02)
    history = []
    for step, (t, rows) in enumerate(draws(30, len(x), 7, 3)):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 + math.cos(math.pi * step / 30)) / 2
        control = torch.cat([flat[0][None], line + unit * moved, flat[1][None]])
        theta = (de_casteljau if kind == "bezier" else on_chain)(control, t)
        named, at = {}, 0
        for name, p in model.named_parameters():
            named[name], at = theta[at : at + p.numel()].view(p.shape), at + p.numel()
        named |= {name: b.clone() for name, b in model.named_buffers()}
        value = loss(functional_call(model, named, (x[rows],)), y[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    np.testing.assert_allclose(found.history.numpy(), history, rtol=1e-9)
    expected = (line + unit * moved).detach()
    torch.testing.assert_close(found.control[1:-1], expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(found.control[0], start.theta)
    assert torch.equal(found.control[-1], end.theta)


@kinds
def test_a_curved_valley_is_followed(kind):
    start, end = Hyperbola.at(4.0), Hyperbola.at(0.25)
    middle = start.value(torch.lerp(start.theta, end.theta, 0.5)).value
    assert middle == pytest.approx(Hyperbola.barrier, rel=1e-12)
    curve = train_curve(start, end, kind=kind, bends=4, steps=700)
    along = [start.value(curve.point(float(t))).value for t in np.linspace(0, 1, 201)]
    assert max(along) < 0.01 * Hyperbola.barrier
    assert along[0] == along[-1] == 0
    assert curve.length < 8


@kinds
def test_the_bend_is_where_the_mean_loss_is_least(kind):
    """Against a minimum found by other means: Simpson's rule over t, and a simplex over the bend."""
    start, end = Hyperbola.at(2.0), Hyperbola.at(0.5)
    t = np.linspace(0, 1, 801)[:, None]
    weight = np.array([1, *([4, 2] * 400)[:-1], 1]) / 2400

    def mean(bend):
        a, b = np.array([2.0, 0.5]), np.array([0.5, 2.0])
        if kind == "bezier":
            w = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
        else:
            w = np.where(t < 0.5, a + 2 * t * (bend - a), bend + (2 * t - 1) * (b - bend))
        return float(weight @ Hyperbola.loss(w))

    best = minimize(mean, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    found = train_curve(start, end, kind=kind, steps=1200, lr=0.02).control[1].numpy()
    assert mean(found) == pytest.approx(best.fun, rel=0.01)
    np.testing.assert_allclose(found, best.x, atol=0.02)
    assert mean(found) < 0.2 * mean([1.25, 1.25]), "the straight line"


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    return torch.from_numpy(data.data[:160]) / 16, torch.from_numpy(data.target[:160])


def fitted(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    net, optimizer = net.double().train(), torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


@kinds
def test_twins_with_their_units_in_another_order_are_connected(kind, digits):
    x, y = digits
    torch.manual_seed(0)
    one = fitted(nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)), x, y)
    order, other = torch.randperm(24), copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight.copy_(one[0].weight[order]), other[0].bias.copy_(one[0].bias[order])
        other[2].weight.copy_(one[2].weight[:, order])
    start, end = (Objective(m, nn.CrossEntropyLoss(), (x, y), dtype="float64") for m in (one, other))
    ends = start.value().value
    assert end.value().value == pytest.approx(ends, rel=1e-12)
    line = start.value(torch.lerp(start.theta, end.theta, 0.5)).value - ends
    curve = train_curve(start, end, kind=kind, steps=400, batch_size=64)
    barrier = max(start.value(curve.point(float(t))).value for t in np.linspace(0, 1, 41)) - ends
    assert line > 0.3
    assert barrier < 0.03 * line
    assert len(curve.history) == 400
    assert float(curve.history[-50:].mean()) < 0.2 * float(curve.history[:50].mean())


def test_networks_with_batchnorm_are_connected(digits):
    """Trained through the batch's statistics, seen with re-estimated ones."""
    x, y = digits
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(fitted(nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)), x, y))
    start, end = (Objective(m, nn.CrossEntropyLoss(), (x, y), dtype="float64") for m in nets)
    before = start.buffers

    def seen(theta):
        return start.evaluate(theta, start.recalibrated(theta)).loss.value

    ends = max(seen(start.theta), seen(end.theta))
    line = max(seen(torch.lerp(start.theta, end.theta, float(t))) for t in np.linspace(0, 1, 21)) - ends
    curve = train_curve(start, end, steps=400, batch_size=80)
    assert line > 0.1
    assert max(seen(curve.point(float(t))) for t in np.linspace(0, 1, 21)) - ends < 0.05 * line
    assert all(torch.equal(b, before[n]) for n, b in start.buffers.items())


def test_a_network_that_needs_no_bend_keeps_finite_ones():
    """A linear model's loss is convex: every mean of two networks is at least as good as the worse one."""
    torch.manual_seed(0)
    x = torch.randn(40, 6, dtype=torch.float64)
    y = (x @ torch.randn(6, dtype=torch.float64))[:, None]
    start, end = (Objective(nn.Linear(6, 1), nn.MSELoss(), (x, y), dtype="float64") for _ in range(2))
    curve = train_curve(start, end, bends=3, steps=500)
    assert bool(curve.control.isfinite().all())
    along = [start.value(curve.point(float(t))).value for t in np.linspace(0, 1, 21)]
    line = [start.value(torch.lerp(start.theta, end.theta, float(t))).value for t in np.linspace(0, 1, 21)]
    assert sum(along) < sum(line)


@kinds
def test_the_same_seed_gives_the_same_bits(kind):
    """And the loss's micro-batches do not matter beyond rounding, since a mini-batch goes through the network at once."""
    runs = [
        train_curve(*pair(4, batch_size=b), kind=kind, steps=25, batch_size=9, seed=s)
        for b, s in ((4, 1), (4, 1), (23, 1), (4, 2))
    ]
    assert torch.equal(runs[0].control, runs[1].control)
    assert torch.equal(runs[0].history, runs[1].history)
    assert runs[0].settings == runs[1].settings
    assert torch.equal(runs[0].control, runs[2].control)
    assert not torch.equal(runs[0].control, runs[3].control)


def test_training_leaves_no_trace_in_the_global_generator_or_the_networks():
    start, end = pair(3)
    values, state = (start.value().value, end.value().value), torch.get_rng_state()
    theta = start.theta
    train_curve(start, end, steps=5, batch_size=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert (start.value().value, end.value().value) == values
    assert torch.equal(start.theta, theta)


def test_rescaled_layers_train_alike():
    """Layer 1 times 8 and layer 2 by 8, in both networks: the same function, and the same losses on the way."""
    start, end = pair(0)
    histories = [train_curve(start, end, steps=40, batch_size=8).history]
    factors = {"0.weight": 8.0, "0.bias": 8.0, "2.weight": 1 / 8}
    scaled = []
    for objective in (start, end):
        named = objective.layout.unflatten(objective.theta)
        scaled.append(objective.at(objective.layout.flatten({n: t * factors.get(n, 1.0) for n, t in named.items()})))
    assert scaled[0].value().value == pytest.approx(start.value().value, rel=1e-12)
    histories.append(train_curve(*scaled, steps=40, batch_size=8).history)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)


def test_progress_is_told_step_by_step():
    heard = []

    class Listener:
        def start(self, label, total):
            heard.append((label, total))
            return 0

        def advance(self, handle, steps):
            heard.append(steps)

        def finish(self, handle):
            heard.append("finished")

    with progress.listening(Listener()):
        curve = train_curve(*pair(0), kind="polygon", steps=4)
    assert heard == [("polygon curve", 4), 1, 1, 1, 1, "finished"]
    assert curve.settings["steps"] == 4
    assert curve.settings["batch_size"] == 23, "all samples, where there are fewer than a batch"


def test_a_rate_that_throws_the_bends_away_is_told():
    start, end = pair(1)
    with pytest.raises(
        NumericalError, match=r"found (inf|nan) at t = 0\.\d\d in step 2 of 9; pass a learning rate smaller than lr = 1e\+200"
    ):
        train_curve(start, end, steps=9, lr=1e200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "spline"}, "expected a bezier or polygon curve, found 'spline'"),
        ({"bends": 0}, "expected bends of at least 1, found 0"),
        ({"steps": 0}, "expected steps of at least 1, found 0"),
        ({"batch_size": -1}, "expected batch_size of at least 1, found -1"),
        ({"batch_size": 1}, "expected at least 2 samples in a mini-batch for BatchNorm, found 1"),
        ({"lr": 0.0}, "expected a rate lr above 0, found 0"),
        ({"lr": math.nan}, "expected a rate lr above 0, found nan"),
    ],
    ids=lambda v: "" if isinstance(v, str) else "-".join(map(str, v.items())),
)
def test_bad_requests(options, message):
    with pytest.raises(UsageError, match=message):
        train_curve(*pair(3), **options)


def test_networks_that_do_not_belong_together():
    start, end = pair(3)
    with pytest.raises(MismatchError, match="expected two networks of one architecture"):
        train_curve(start, pair(0)[0])
    with pytest.raises(UsageError, match="expected two different networks"):
        train_curve(start, end.at(start.theta))


def test_bad_curves():
    good = points(3)
    with pytest.raises(UsageError, match=r"expected control points \(at least 3, weights\), found shape \(2, 4\)"):
        Curve("bezier", good[:2])
    for t in (-0.1, 1.0001, math.nan):
        with pytest.raises(UsageError, match="expected t from 0 to 1"):
            Curve("bezier", good).point(t)
        with pytest.raises(UsageError, match="expected t from 0 to 1"):
            Curve("bezier", good).distances([0.5, t])
    for tensors in ({}, {"weight": good}, {"bezier": good, "polygon": good}):
        with pytest.raises(MalformedError, match="expected the control points of one curve"):
            Curve.from_tensors(tensors)
    for wrong in (good[:2], good.long(), good * torch.inf):
        with pytest.raises(MalformedError, match="expected at least 3 finite control points"):
            Curve.from_tensors({"bezier": wrong})
