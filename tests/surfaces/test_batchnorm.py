"""BatchNorm's statistics along the axes, against evaluations in float64 that are made by hand."""

import copy

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.surfaces import Direction, interpolation, line, plane, random_direction, toward
from landscape.surfaces.batchnorm_statistics import is_normalized, on_path
from landscape.surfaces.grid import flat_chart

HOWS = ("eval", "recalibrate", "interpolate")
NETWORKS = pytest.mark.parametrize("index", [3, 4], ids=["cnn", "residual"])


def three(index: int) -> tuple[list[Objective], list[nn.Module], nn.Module, torch.Tensor, torch.Tensor]:
    """Three networks of one architecture and the data of the first."""
    model, loss, x, y = CASES[index].make(0)
    models = [model, CASES[index].make(5)[0], CASES[index].make(6)[0]]
    return [Objective(m, loss, (x, y), dtype="float64") for m in models], models, loss, x, y


def twin_at(models: list[nn.Module], place: tuple[float, ...], how: str, x: torch.Tensor) -> nn.Module:
    """The network at a place of the plane through three, with its statistics, tensor by tensor."""
    first, *others = (copy.deepcopy(m).double().eval() for m in models)
    net = copy.deepcopy(first)
    with torch.no_grad():
        for name, p in net.named_parameters():
            for a, other in zip(place, others, strict=False):
                p += a * (other.get_parameter(name) - first.get_parameter(name))
        if how == "interpolate":
            for name, b in net.named_buffers():
                if b.is_floating_point():
                    for a, other in zip(place, others, strict=False):
                        b += a * (other.get_buffer(name) - first.get_buffer(name))
                    if name.endswith("running_var"):
                        b.clamp_(min=0)
        if how == "recalibrate":
            whole_data_statistics(net, x.double())
    return net


def whole_data_statistics(net: nn.Module, x: torch.Tensor) -> None:
    """Mean and unbiased variance of each layer's input, layer after layer, all data at once."""
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:  # in the order of the forward pass for these networks
        seen: list[torch.Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        net(x)
        handle.remove()
        layer.running_mean.copy_(seen[0].mean(dim=(0, 2, 3)))
        layer.running_var.copy_(seen[0].transpose(0, 1).flatten(1).var(dim=1))


def loss_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(net(x.double()), y))


@NETWORKS
@pytest.mark.parametrize("how", HOWS)
def test_every_point_has_the_statistics_that_the_choice_says(index, how):
    (a, b, c), models, _, x, y = three(index)
    other_x, other_y = CASES[index].make(9)[2:]
    test = Objective(models[0], nn.CrossEntropyLoss(), (other_x, other_y), dtype="float64")
    axes = toward(a, b.theta, "b", b.buffers), toward(a, c.theta, "c", c.buffers)
    found = plane(a, axes, span=(-0.5, 1), grid=4, batchnorm=how, test=test)
    for i, u in enumerate((-0.5, 0.0, 0.5, 1.0)):
        for j, v in enumerate((-0.5, 0.0, 0.5, 1.0)):
            net = twin_at(models, (u, v), how, x)
            assert found.values["loss"][i, j] == pytest.approx(loss_of(net, x, y), rel=1e-10)
            # Test data see the statistics of the training data.
            assert found.values["test_loss"][i, j] == pytest.approx(loss_of(net, other_x, other_y), rel=1e-10)


@NETWORKS
def test_the_three_choices_differ_and_are_named(index):
    (a, b, _), *_ = three(index)
    axis = toward(a, b.theta, "b", b.buffers)
    found = {how: line(a, axis, span=(0, 1), grid=3, batchnorm=how) for how in HOWS}
    assert len({float(f.values["loss"][1]) for f in found.values()}) == 3
    words = {
        "eval": "statistics of the centre",
        "recalibrate": "re-estimated at each point",
        "interpolate": "statistics interpolated between the checkpoints",
    }
    for how, piece in found.items():
        assert piece.title.endswith(f"BatchNorm: {words[how]}")
        assert piece.provenance["batchnorm"] == words[how]


@NETWORKS
@pytest.mark.parametrize("how", HOWS)
def test_no_variance_is_ever_negative(index, how):
    (a, b, c), *_ = three(index)
    axes = toward(a, b.theta, "b", b.buffers), toward(a, c.theta, "c", c.buffers)
    chart = flat_chart(a, axes, [(-3, 3)] * 2, [7, 7], how)
    linear, least = [], []
    for number in range(chart.size):
        place = chart.place(number)
        _, buffers = chart.at(place)
        for name, value in (buffers or a.buffers).items():
            if name.endswith("running_var"):
                least.append(float(value.min()))
                steps = sum(u * (o.buffers[name] - a.buffers[name]) for u, o in zip(place, (b, c), strict=True))
                linear.append(float((a.buffers[name] + steps).min()))
    assert min(least) >= 0
    assert min(linear) < 0  # without the cut it would be
    values = plane(a, axes, span=(-3, 3), grid=5, batchnorm=how).values["loss"]
    assert np.isfinite(values).all()


@NETWORKS
def test_interpolation_is_refused_where_there_is_nothing_to_interpolate_to(index):
    (a, b, _), *_ = three(index)
    known = toward(a, b.theta, "b", b.buffers)
    for axes in ((random_direction(a), known), (known, random_direction(a)), None):
        with pytest.raises(UsageError, match="expected axes towards other checkpoints for batchnorm interpolate"):
            plane(a, axes, grid=3, batchnorm="interpolate")
    with pytest.raises(UsageError, match="expected batchnorm recalibrate, interpolate or eval, found 'train'"):
        line(a, grid=3, batchnorm="train")


def test_a_network_without_batchnorm_takes_no_notice():
    model, loss, x, y = CASES[5].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    pieces = [line(objective, grid=3, batchnorm=how) for how in HOWS]
    assert all(np.array_equal(p.values["loss"], pieces[0].values["loss"]) for p in pieces)
    assert all("BatchNorm" not in p.title and "batchnorm" not in p.provenance for p in pieces)


def batch_hessian(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Hessian of the loss in which every layer normalizes by the statistics of all data: derivatives go through them."""
    net = copy.deepcopy(model).double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean = m.running_var = None
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])

    def f(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([s.numel() for s in shapes])
        named = {n: t.reshape(s) for n, t, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, named, (x.double(),)), y)

    return torch.autograd.functional.hessian(f, theta).numpy()


@NETWORKS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_under_recalibration(index, dtype):
    model, loss, x, y = CASES[index].make(0)
    objective = Objective(model, loss, (x, y), dtype=dtype)
    found = plane(objective, grid=5, batchnorm="recalibrate")
    check = found.check
    assert check.passed, check.lines()
    assert check.centre_is_exact
    assert check.own_value == objective.value().value
    assert check.own_value == pytest.approx(loss_of(copy.deepcopy(model).double(), x, y), rel=1e-6)
    assert check.centre_value == found.values["loss"][2, 2]
    assert check.centre_value == pytest.approx(loss_of(twin_at([model], (), "recalibrate", x), x, y), rel=1e-6)
    assert check.own_value != check.centre_value
    assert any("under re-estimated statistics (its own:" in text for text in check.lines())
    d = [random_direction(objective, seed=s).vector.double().numpy() for s in (0, 1)]
    h = batch_hessian(model, x, y)
    size = max(abs(v) for v in check.curvature_hvp.values())
    for key, (i, j) in {"11": (0, 0), "22": (1, 1), "12": (0, 1)}.items():
        assert check.curvature_hvp[key] == pytest.approx(d[i] @ h @ d[j], rel=1e-5, abs=1e-6 * size)
        assert check.curvature[key] == pytest.approx(check.curvature_hvp[key], abs=0.02 * size)


@NETWORKS
def test_a_centre_with_foreign_statistics_is_found(index):
    """Interpolated statistics are the checkpoint's own at the centre: the check compares with the checkpoint, not the chart."""
    from dataclasses import replace

    from landscape.surfaces.checks.check_slice import check_slice

    (a, b, _), *_ = three(index)
    axes = (toward(a, b.theta, "b", b.buffers),)
    good = line(a, *axes, span=(-1, 1), grid=5, batchnorm="interpolate")
    assert good.check.passed
    assert good.values["loss"][2] == a.value().value
    chart = flat_chart(a, axes, [(-1, 1)], [5], "interpolate")
    wrong = replace(chart, statistics=lambda place, theta: b.buffers)
    values = np.array([a.evaluate(*wrong.at(wrong.place(k))).loss.value for k in range(5)])
    check = check_slice(a, axes, wrong, values)
    assert check.centre_is_exact is False
    assert not check.passed


def test_recalibration_is_blind_to_the_length_of_weights_before_a_layer():
    """Along the weights before a BatchNorm the loss is constant under re-estimated statistics, but for epsilon."""
    (a, *_), *_ = three(4)
    d = torch.zeros_like(a.theta)
    for e in a.layout:
        if e.name == "conv1.weight":
            d[e.start : e.stop] = a.theta[e.start : e.stop]
    spread = {
        how: np.ptp(line(a, Direction("length", d), span=(-0.5, 0.5), grid=5, batchnorm=how).values["loss"]) for how in HOWS[:2]
    }
    assert spread["recalibrate"] < 1e-3
    assert spread["eval"] > 30 * spread["recalibrate"]


@NETWORKS
def test_with_interpolated_statistics_the_curvature_is_that_of_what_is_drawn(index):
    """Second differences of networks made by hand, statistics and all; products, which hold them, are not compared."""
    (a, b, c), models, _, x, y = three(index)
    axes = toward(a, b.theta, "b", b.buffers), toward(a, c.theta, "c", c.buffers)
    check = plane(a, axes, span=(-1, 1), grid=3, batchnorm="interpolate").check
    h = 1e-4

    def f(u: float, v: float) -> float:
        return loss_of(twin_at(models, (u, v), "interpolate", x), x, y)

    drawn = {
        "11": (f(h, 0) - 2 * f(0, 0) + f(-h, 0)) / h**2,
        "22": (f(0, h) - 2 * f(0, 0) + f(0, -h)) / h**2,
        "12": (f(h, h) - f(h, -h) - f(-h, h) + f(-h, -h)) / (4 * h**2),
    }
    size = max(abs(v) for v in drawn.values())
    held = plane(a, axes, span=(-1, 1), grid=3, batchnorm="eval").check
    for key, truth in drawn.items():
        assert check.curvature[key] == pytest.approx(truth, abs=0.02 * size)
    apart = max(abs(held.curvature[key] - truth) for key, truth in drawn.items())
    assert apart > 0.03 * size, "with the statistics held it is another function"
    assert check.passed
    assert check.curvature_hvp == {}
    assert "curvature: not compared with products: the statistics vary along the axes" in " ".join(check.lines())
    assert held.curvature_hvp


def test_only_what_can_be_re_estimated_is_called_batchnorm():
    """InstanceNorm may keep statistics too, which nobody re-estimates: the title does not speak of them."""

    def made(seed: int, norm: type[nn.Module]) -> Objective:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 3, 2), norm(3, track_running_stats=True), nn.Flatten(), nn.Linear(12, 4))
        net[1].running_mean.uniform_(-1, 1)
        x = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        return Objective(net.eval(), nn.CrossEntropyLoss(), (x, torch.arange(6) % 4), dtype="float64")

    for norm, has in ((nn.InstanceNorm2d, False), (nn.BatchNorm2d, True)):
        start, end = made(0, norm), made(1, norm)
        assert is_normalized(start) == bool(start.recalibrated()) == has
        for piece in (line(start, grid=3, batchnorm="recalibrate"), interpolation(start, end, grid=3, batchnorm="eval")):
            assert ("BatchNorm" in piece.title) == ("batchnorm" in piece.provenance) == has
        means = on_path(start, end, "eval")((0.5,), start.theta)["1.running_mean"]
        first, last = start.buffers["1.running_mean"], end.buffers["1.running_mean"]
        torch.testing.assert_close(means, first if has else (first + last) / 2)
