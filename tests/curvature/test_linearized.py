"""Gauss-Newton and Fisher products from graphs that are kept: the same products, by every method, and let go in time."""

from dataclasses import replace

import pytest
import torch
from reference import dense_gauss_newton, sample_gradients
from torch import Tensor, nn

from landscape.curvature.engine import Engine
from landscape.curvature.kept_graphs import saved_bytes
from landscape.curvature.linearized import Linearized
from landscape.curvature.method import Method
from landscape.objective import Objective

KINDS = {"ggnvp": "_outputs", "fishervp": "_losses"}
EVERYTHING = Method(folded=True, written_out=True, channels_last=True, smallest=0)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.GELU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, 3)
    )
    layers[1].running_mean, layers[1].running_var = torch.randn(3), torch.rand(3) + 0.5
    return layers.eval()


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(9, 1, 4, 4, generator=g), torch.randint(0, 3, (9,), generator=g)


def objective(**options: object) -> Objective:
    return Objective(network(), nn.CrossEntropyLoss(), data(), dtype="float64", batch_size=4, **options)


def held(o: Objective, kind: str) -> list[object]:
    return getattr(o._engine, KINDS[kind])._graphs


@pytest.mark.parametrize("method", [Method(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("kind", KINDS)
def test_fresh_and_kept_products_against_the_dense_matrix(kind, method):
    o, parts = objective().by(method), (network(), nn.CrossEntropyLoss(), *data())
    dense = torch.from_numpy({"ggnvp": dense_gauss_newton, "fishervp": sample_gradients}[kind](*parts))
    eye = torch.eye(o.dim, dtype=torch.float64)
    product = getattr(o, kind)
    for _ in range(2):
        torch.testing.assert_close(product(eye), dense, rtol=0, atol=1e-10 * float(dense.abs().max()))
    assert len(held(o, kind)) == 3  # one a batch


@pytest.mark.parametrize("kind", KINDS)
def test_one_network_and_one_matrix_at_a_time(kind):
    first, second = objective(), objective()
    v = torch.randn(3, first.dim, dtype=torch.float64)
    fresh, again = (getattr(first, kind)(v) for _ in range(2))
    assert torch.equal(fresh, again)
    for take in (lambda: getattr(second, kind)(v), lambda: first.hvp(v)):
        assert held(first, kind)
        take()
        assert not held(first, kind)
        assert torch.equal(getattr(first, kind)(v), fresh)
    elsewhere = first.at(first.theta + 0.1)
    assert not torch.equal(getattr(elsewhere, kind)(v), fresh)
    assert torch.equal(getattr(first, kind)(v), fresh)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_runs_once_for_many_products(kind, monkeypatch):
    o, passes = objective(), []
    v = torch.randn(2, o.dim, dtype=torch.float64)
    getattr(o, kind)(v)
    before = Engine.forward
    monkeypatch.setattr(Engine, "forward", lambda self, *a, **k: passes.append(1) or before(self, *a, **k))
    getattr(o, kind)(v)
    assert passes == []
    o._engine = replace(o._engine, room=-1)  # no room: built again each time, one batch after another
    getattr(o, kind)(v)  # also measures what the graphs would hold
    passes.clear()
    getattr(o, kind)(v)
    assert len(passes) == 3
    assert not held(o, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_that_do_not_fit_are_built_without_those_of_another_matrix_beside_them(kind, monkeypatch):
    o = objective()
    v = torch.randn(2, o.dim, dtype=torch.float64)
    beside, before = [], Linearized.of
    o.hvp(v)
    kept = o._engine._kept
    assert kept._graphs
    monkeypatch.setattr(Linearized, "of", lambda *a: beside.append(len(kept._graphs)) or before(*a))
    expected = getattr(o, kind)(v)  # measured and kept
    assert set(beside) == {0}
    o.hvp(v)
    assert kept._graphs
    getattr(o._engine, KINDS[kind]).fits = False
    beside.clear()
    assert torch.equal(getattr(o, kind)(v), expected)
    assert beside == [0, 0, 0]
    assert not held(o, kind)


def contrast(output: Tensor, target: Tensor) -> Tensor:
    """A loss that is no mean over samples."""
    return (output - output.mean(0)).square().mean() + nn.functional.cross_entropy(output, target)


def one_sample() -> Objective:
    return Objective(network(), nn.CrossEntropyLoss(), tuple(t[:1] for t in data()), dtype="float64")


@pytest.mark.parametrize(("kind", "whole"), [("ggnvp", False), ("fishervp", False), ("ggnvp", True)])
def test_graphs_are_kept_of_one_sample_and_of_data_that_do_not_divide(kind, whole):
    o = Objective(network(), contrast, data(), dtype="float64") if whole else one_sample()
    v = torch.randn(2, o.dim, dtype=torch.float64)
    fresh = getattr(o, kind)(v)
    assert len(held(o, kind)) == 1
    assert torch.equal(getattr(o, kind)(v), fresh)
    o._engine = replace(o._engine, room=1)
    torch.testing.assert_close(getattr(o, kind)(v), fresh)
    assert not held(o, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_graphs_hold_is_measured_by_the_method_as_all_samples_use_it(kind):
    """With 4 samples a batch no operation reaches the threshold, with 600 all large ones do."""
    x = torch.randn(600, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    o = Objective(network(), nn.CrossEntropyLoss(), (x, torch.arange(600) % 3), dtype="float64", batch_size=600)
    o = o.by(Method(written_out=True, smallest=1000))
    engine, leaves = o._engine, o._engine.leaves(o.theta)
    build = {"ggnvp": Engine._linear_outputs, "fishervp": Engine._linear_losses}[kind]
    with engine.derivatives(o.theta):
        estimate = engine._extrapolated(lambda like, b: saved_bytes(lambda: build(like, leaves, b, 1.0), leaves))
        exact = saved_bytes(lambda: build(engine, leaves, engine.batches[0], 1.0), leaves)
    assert estimate == pytest.approx(exact, rel=0.05)
