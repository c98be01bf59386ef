"""Axes: what they are made of, what they are called, and that the surface along them is what they say."""

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian, dense_loss
from torch import nn

from landscape.errors import MismatchError, UsageError
from landscape.objective import Objective
from landscape.spectra import eigenpairs
from landscape.surfaces import (
    Direction,
    eigenvector_directions,
    line,
    orthogonal_to,
    plane,
    random_direction,
    store_directions,
    stored_directions,
    toward,
)
from landscape.surfaces.axes.directions import norm_ratios
from landscape.surfaces.axes.trajectory import trajectory_directions

KINDS = ("bias", "norm")


def three(index: int, dtype: str = "float64") -> tuple[list[Objective], list]:
    """Three networks of one architecture on the data of the first."""
    model, loss, x, y = CASES[index].make(0)
    models = [model, CASES[index].make(5)[0], CASES[index].make(6)[0]]
    return [Objective(m, loss, (x, y), dtype=dtype) for m in models], [loss, x, y, models]


def own_loss(model, loss, x, y) -> float:
    """A network's loss in float64 by itself."""
    function, theta = dense_loss(model, loss, x, y)
    return float(function(theta))


@pytest.mark.parametrize("index", [0, 5], ids=["mlp", "attention"])
def test_the_plane_through_three_checkpoints_holds_them(index):
    (a, b, c), (loss, x, y, models) = three(index)
    result = plane(a, (toward(a, b.theta, "to b"), toward(a, c.theta, "to c")), span=(0, 1), grid=3)
    for place, model in zip(((0, 0), (2, 0), (0, 2)), models, strict=True):
        assert result.values["loss"][place] == pytest.approx(own_loss(model, loss, x, y), rel=1e-11)
    assert result.axes == ("to b", "to c")
    assert result.check.passed


@pytest.mark.parametrize("index", [3, 4], ids=["cnn", "residual"])
def test_with_batchnorm_the_plane_holds_them_only_if_statistics_are_interpolated(index):
    (a, b, c), (loss, x, y, models) = three(index)
    axes = toward(a, b.theta, "to b", b.buffers), toward(a, c.theta, "to c", c.buffers)
    truth = [own_loss(m, loss, x, y) for m in models]
    found = {}
    for how in ("interpolate", "eval", "recalibrate"):
        values = plane(a, axes, span=(0, 1), grid=3, batchnorm=how).values["loss"]
        found[how] = [values[0, 0], values[2, 0], values[0, 2]]
    assert found["interpolate"] == pytest.approx(truth, rel=1e-11)
    assert found["eval"][0] == a.value().value
    assert abs(found["eval"][1] - truth[1]) > 1e-3
    assert abs(found["recalibrate"][2] - truth[2]) > 1e-3


@pytest.mark.parametrize("index", [0, 3, 4], ids=lambda i: CASES[i].name)
def test_eigenvector_axes_are_not_renormalized_and_have_their_eigenvalues_curvature(index):
    model, loss, x, y = CASES[index].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    first, second = eigenvector_directions(eigenpairs(objective, 2))
    hessian = dense_hessian(model, loss, x, y)
    values = np.linalg.eigvalsh(hessian)[::-1]
    result = plane(objective, (first, second), grid=3)
    for d, value, key in ((first, values[0], "11"), (second, values[1], "22")):
        v = d.vector.numpy()
        assert np.linalg.norm(v) == pytest.approx(1, abs=1e-12)
        assert v @ hessian @ v == pytest.approx(value, rel=1e-9)
        assert d.norm == "none"
        assert f"eigenvalue {value:.4g}" in d.name
        assert result.check.curvature_hvp[key] == pytest.approx(value, rel=1e-8)
        assert result.check.curvature[key] == pytest.approx(value, rel=2e-2)
    assert result.check.curvature_hvp["12"] == pytest.approx(0, abs=1e-6 * values[0])
    assert result.check.norm_ratio == (None, None)
    assert abs(result.check.cosine) < 1e-8


@pytest.mark.parametrize(("one", "other"), [(1.0, 1.0), (1e-6, 1e3), (1e5, 1e-4)])
@pytest.mark.parametrize("overlap", [0.0, 1.0, -30.0, 1e6])
def test_orthogonal_to_on_unequal_lengths_and_nearly_parallel_axes(one, other, overlap):
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(500, 2, generator=g, dtype=torch.float64))[0].T
    first = Direction("first", one * q[0], "filter")
    second = Direction("second", other * (q[1] + overlap * q[0]), "filter", {"b": torch.ones(1)})
    rest = orthogonal_to(first, second)
    assert abs(float(q[0] @ rest.vector)) <= 1e-14 * float(rest.vector.norm())
    torch.testing.assert_close(rest.vector, other * q[1], rtol=1e-8, atol=1e-9 * other)  # same plane, same side, length kept
    assert (rest.name, rest.norm, rest.buffers) == ("second, orthogonalized", "filter", None)
    assert rest.orthogonalized


def test_orthogonal_to_a_random_axis_and_a_principal_one():
    (a, *_), _ = three(0)
    g = torch.Generator().manual_seed(1)
    points = [a.theta + 50 * torch.randn(a.dim, generator=g, dtype=torch.float64) for _ in range(4)]
    (component,) = trajectory_directions(a, points, 1)
    for first, second in ((component, random_direction(a, seed=3)), (random_direction(a, seed=3), component)):
        result = plane(a, (first, orthogonal_to(first, second)), grid=3)
        assert abs(result.check.cosine) < 1e-14
        assert "orthogonalized" in result.axes[1]
        ratios = result.check.norm_ratio[1]
        if second is component:
            assert ratios is None, "a principal component was never normalized"
        else:
            assert max(1 - ratios.smallest, ratios.largest - 1) > 1e-3
            assert not ratios.problems(2), "told, not judged"
            about = "axis 2, orthogonalized: ||d||/||theta|| per filter"
            (told,) = [text for text in result.check.lines() if text.startswith(about)]
            assert f"between {ratios.smallest:.6f} and {ratios.largest:.6f}, " in told
    with pytest.raises(UsageError, match="found parallel ones"):
        orthogonal_to(Direction("zero", torch.zeros(a.dim, dtype=torch.float64)), component)


@pytest.mark.parametrize("zero", [(), ("bias",), ("norm",), KINDS, ("weight",)], ids=str)
@pytest.mark.parametrize("norm", ["filter", "layer", "none"])
@pytest.mark.parametrize("index", [3, 5], ids=["cnn", "attention"])
def test_what_stays_put_and_what_has_which_length(index, norm, zero):
    model, loss, x, y = CASES[index].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    d = objective.layout.unflatten(random_direction(objective, seed=2, norm=norm, zero=zero).vector)
    raw = objective.layout.unflatten(
        torch.randn(objective.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )
    norms = (torch.nn.BatchNorm2d, torch.nn.LayerNorm)
    for name, p in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        kind = "norm" if isinstance(owner, norms) else "bias" if p.ndim == 1 else "weight"
        if kind in zero:
            assert not d[name].any()
        elif norm == "none":
            assert torch.equal(d[name], raw[name])
        elif norm == "layer" or kind != "weight":
            assert float(d[name].norm()) == pytest.approx(float(p.detach().double().norm()), rel=1e-12)
            torch.testing.assert_close(d[name], raw[name] * (d[name].norm() / raw[name].norm()))
        else:
            for j in range(len(p)):
                assert float(d[name][j].norm()) == pytest.approx(float(p[j].detach().double().norm()), rel=1e-12)
                torch.testing.assert_close(d[name][j], raw[name][j] * (d[name][j].norm() / raw[name][j].norm()))


def test_seeds_decide_and_are_named():
    (a, *_), _ = three(0)
    assert torch.equal(random_direction(a, seed=4).vector, random_direction(a, seed=4).vector)
    assert not torch.allclose(random_direction(a, seed=4).vector, random_direction(a, seed=5).vector)
    state = torch.random.get_rng_state()
    result = plane(a, seed=41, grid=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert result.axes == ("random, seed 41, filter norm", "random, seed 42, filter norm")
    assert result.provenance["seed"] == 41
    assert line(a, seed=8, grid=2).axes == ("random, seed 8, filter norm",)
    assert random_direction(a, seed=6, norm="none").name == "random, seed 6"
    assert random_direction(a, seed=6, norm="layer").name == "random, seed 6, layer norm"


def test_interpolation_needs_the_other_checkpoints_buffers():
    (a, b, _), _ = three(3)
    with pytest.raises(UsageError, match="expected axes towards other checkpoints for batchnorm interpolate"):
        line(a, toward(a, b.theta), batchnorm="interpolate", grid=3)
    some = {n: v for n, v in b.buffers.items() if not n.endswith("running_var")}
    with pytest.raises(
        MismatchError, match=r"expected checkpoints with the buffers of this network, found one without 1\.running_var"
    ):
        line(a, toward(a, b.theta, buffers=some), batchnorm="interpolate", grid=3)


def by_hand(model, d: dict[str, torch.Tensor]) -> list[float]:
    """||d_ij|| / ||theta_ij|| of every filter of every weight tensor."""
    pairs = [(d[n], p.detach().double()) for n, p in model.named_parameters() if p.ndim > 1]
    return [float(row.norm() / own.norm()) for move, p in pairs for row, own in zip(move, p, strict=True)]


@pytest.mark.parametrize("index", [0, 3], ids=["mlp", "cnn"])
def test_norm_ratios_are_those_of_every_filter(index):
    model, loss, x, y = CASES[index].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    raw = random_direction(objective, seed=1, norm="none").vector
    found = norm_ratios(objective, Direction("raw", raw, "filter"))
    truth = by_hand(model, objective.layout.unflatten(torch.where(objective.layout.mask("weight"), raw, 0.0)))
    assert found.count == len(truth), "biases and norms are held"
    assert (found.smallest, found.largest) == pytest.approx((min(truth), max(truth)), rel=1e-12)
    assert norm_ratios(objective, Direction("raw", raw)) is None


def test_a_filter_that_should_move_and_does_not_is_seen():
    (a, *_), _ = three(3)
    good = random_direction(a, seed=1)
    still = good.vector.clone()
    still[a.layout.filters == 2] = 0.0
    found = line(a, Direction("still", still, "filter"), grid=3).check
    assert (found.norm_ratio[0].still, found.norm_ratio[0].smallest) == (1, pytest.approx(1))
    count = found.norm_ratio[0].count
    assert found.problems == [f"axis 1: 1 of {count} filters that should move do not"]
    assert line(a, good, grid=3).check.passed


def test_a_filter_without_weights_must_not_move_and_a_kind_is_held_or_moves_whole():
    (a, *_), _ = three(3)
    theta = a.theta.clone()
    theta[a.layout.filters == 2] = 0.0
    pruned = a.at(theta)
    for zero in (("bias", "norm"), ("norm",), ()):
        d = random_direction(pruned, seed=1, zero=zero)
        assert line(pruned, d, grid=3).check.passed
        wrong = d.vector.clone()
        wrong[a.layout.filters == 2] = 1.0
        assert norm_ratios(pruned, Direction("wrong", wrong, "filter")).problems(1) == ["axis 1 is not filter-normalized"]
    biases = [e for e in a.layout if e.kind == "bias" and bool(theta[e.start : e.stop].any())]
    lost = random_direction(a, seed=1, zero=()).vector.clone()
    lost[biases[0].start : biases[0].stop] = 0.0
    assert norm_ratios(a, Direction("lost", lost, "filter")).still == (1 if len(biases) > 1 else 0)


def test_whether_an_axis_was_orthogonalized_is_kept_with_it(tmp_path):
    (a, *_), _ = three(0)
    first = random_direction(a, seed=0)
    store_directions(tmp_path, (first, orthogonal_to(first, random_direction(a, seed=1))))
    back = stored_directions(tmp_path, a.theta)
    assert [(d.norm, d.orthogonalized) for d in back] == [("filter", False), ("filter", True)]
    assert plane(a, back, grid=3).check.passed


def test_towards_itself_is_nowhere():
    objective = Objective(*CASES[0].make(0)[:2], CASES[0].make(0)[2:])
    with pytest.raises(UsageError, match=r"expected other weights than the network's own, found the same ones \(to a\)"):
        toward(objective, objective.theta, "to a")


def test_weights_that_are_all_zero_give_no_direction():
    """As adapters at the start of their training, whose plane would be one point."""
    net = nn.Linear(2, 1)
    nn.init.zeros_(net.weight)
    objective = Objective(net, nn.MSELoss(), (torch.ones(4, 2), torch.ones(4, 1)))
    with pytest.raises(UsageError, match="all weights that would change are 0"):
        random_direction(objective)
    assert random_direction(objective, norm="none").vector.norm() > 0


@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_parallel_directions_span_no_plane(factor):
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y))
    first = random_direction(objective)
    with pytest.raises(UsageError, match=r"two directions that span a plane, found parallel ones: .* and again"):
        plane(objective, (first, Direction("again", factor * first.vector)), grid=3)
