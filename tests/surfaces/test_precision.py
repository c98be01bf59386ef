"""A surface in bfloat16: how far it is off, where that is said, and what is refused."""

import json

import numpy as np
import pytest
import torch
from cases import CASES
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.report import figure_slice
from landscape.report.exports.netcdf import netcdf
from landscape.results import Deviation, Slice
from landscape.surfaces import forecast_surface, interpolation, line, plane
from landscape.surfaces.axes.directions import Direction
from landscape.surfaces.running.precision import COMPARED


def objective_of(index: int, **options) -> Objective:
    model, loss, x, y = CASES[index].make(0)
    return Objective(model, loss, (x, y), **options)


def rounded_by_hand(model: nn.Module, loss: nn.Module, x: Tensor, y: Tensor) -> float:
    """The loss of a network that was cast whole, as a user would do it."""
    with torch.no_grad():
        return float(loss(model.bfloat16()(x.bfloat16()).float(), y))


@pytest.mark.parametrize("index", [0, 2, 5], ids=lambda i: CASES[i].name)
def test_values_are_those_of_the_cast_network(index):
    model, loss, x, y = CASES[index].make(0)
    found = Objective(model, loss, (x, y)).values_in("bfloat16").value().value
    assert found == pytest.approx(rounded_by_hand(model, loss, x, y), rel=1e-6)
    assert found != Objective(model, loss, (x, y)).value().value


@pytest.mark.parametrize("index", [0, 3, 5], ids=lambda i: CASES[i].name)
@pytest.mark.parametrize("grid", [(5, 4), 2])
def test_the_deviation_is_that_of_two_whole_surfaces(index, grid):
    objective = objective_of(index)
    options = {"grid": grid, "test": objective.subset(7), "span": (-0.5, 0.5)}
    exact, found = plane(objective, **options), plane(objective, precision="bfloat16", **options)
    for quantity in ("loss", "test_loss"):
        apart = np.abs(found.values[quantity] - exact.values[quantity])
        deviation = found.deviations[quantity]
        assert 0 < deviation.rms <= deviation.largest <= apart.max() * (1 + 1e-4)  # points at once differ by float32's rounding
        assert deviation.largest < 0.02 * exact.values[quantity].max()
        assert deviation.in_range == pytest.approx(deviation.largest / np.ptp(found.values[quantity]))
        index_of = tuple(int(np.flatnonzero(c == a)[0]) for c, a in zip(found.coordinates, deviation.at, strict=True))
        assert apart[index_of] == pytest.approx(deviation.largest, rel=1e-4)
        if apart.size <= 9:
            assert deviation.points == apart.size
            assert deviation.largest == pytest.approx(apart.max(), rel=1e-4)
            assert deviation.rms == pytest.approx(np.sqrt((apart**2).mean()), rel=1e-4)
            assert deviation.in_errors == pytest.approx((apart / exact.stderr[quantity]).max(), rel=1e-3)
        else:
            assert 9 <= deviation.points <= 13
    assert not exact.deviations
    assert found.check.passed, found.check.problems


def test_it_is_said_everywhere(tmp_path):
    found = plane(objective_of(3), grid=(5, 4), span=(-0.5, 0.5), precision="bfloat16")
    deviation = found.deviations["loss"]
    short = f"bfloat16: off by at most {deviation.largest:.2g}, rms {deviation.rms:.2g}"
    assert found.title.endswith(short)
    assert short in " ".join(figure_slice(found).get_suptitle().split())
    again = Slice.from_json(json.loads(json.dumps(found.to_json())))
    assert again.deviations == found.deviations
    assert json.dumps(deviation.to_json())[:-1].encode() in netcdf(found)
    assert found.provenance["evaluation"] == "one point at once, bfloat16, channels last, 1 BatchNorm folded"
    assert "standard errors" in deviation.line
    centre = f"checkpoint's loss {objective_of(3).values_in('bfloat16').value().value:.6g} in bfloat16, equal to the bit"
    at_centre = plane(objective_of(3), grid=3, precision="bfloat16").check
    assert f"centre: {centre}" in at_centre.lines()


def test_a_path_and_what_goes_on(tmp_path):
    start, end = objective_of(0), Objective(*CASES[0].make(1)[:2], CASES[0].make(0)[2:])
    found = interpolation(start, end, grid=21, precision="bfloat16", run=tmp_path)
    assert found.check.passed, found.check.problems
    assert found.check.exact == (True, True)
    assert found.check.lines()[0].startswith(
        f"start: checkpoint's loss {start.values_in('bfloat16').value().value:.6g} in bfloat16"
    )
    assert set(found.deviations) == {"loss"}
    again = interpolation(start, end, grid=21, precision="bfloat16", run=tmp_path)
    assert json.dumps(again.to_json()) == json.dumps(found.to_json())
    with pytest.raises(UsageError, match=r"precision \(bfloat16 there, the default asked\)"):
        interpolation(start, end, grid=21, run=tmp_path)


def test_the_own_dtype_is_no_other_precision():
    objective = objective_of(0)
    assert json.dumps(line(objective, grid=3, precision="float32").to_json()) == json.dumps(line(objective, grid=3).to_json())


def test_curvature_and_derivatives_stay_in_full_precision():
    objective = objective_of(0)
    exact, found = (line(objective, grid=3, curvature=True, precision=p) for p in (None, "bfloat16"))
    for name in ("lambda_max", "lambda_min"):
        assert (exact.values[name] == found.values[name]).all()
    assert found.check.derivatives == exact.check.derivatives


class Stubborn(nn.Module):
    """A network that makes float32 numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) @ torch.eye(2)


def test_a_network_that_cannot_is_refused():
    x = torch.randn(6, 2)
    objective = Objective(Stubborn(), nn.MSELoss(), (x, x))
    with pytest.raises(UsageError, match=r"expected a network that can compute in bfloat16, found RuntimeError: .*; leave"):
        line(objective, grid=3, precision="bfloat16")
    with pytest.raises(UsageError, match="expected dtype float32 for values in bfloat16"):
        line(objective.to("float64"), grid=3, precision="bfloat16")
    with pytest.raises(UsageError, match="expected precision float32 or bfloat16, found float16"):
        line(objective, grid=3, precision="float16")
    with pytest.raises(UsageError, match="expected precision float64 or none"):
        line(objective.to("float64"), grid=3, precision="float32")


def test_points_that_are_finite_in_one_only_are_counted():
    exact, rounded = np.array([1.0, np.inf, 3.0]), np.array([1.5, 2.0, 2.0])
    found = Deviation.of(rounded, exact, np.full(3, np.nan), [(0.0,), (1.0,), (2.0,)], 0.0, "bfloat16", "float32")
    assert (found.points, found.lost, found.largest, found.at) == (2, 1, 1.0, (2.0,))
    assert np.isnan(found.in_errors)
    assert "1 more are finite in only one" in found.line
    nothing = Deviation.of(exact[1:2], rounded[1:2], np.ones(1), [(1.0,)], 1.0, "bfloat16", "float32")
    assert nothing.line == "bfloat16 against float32: no point is finite in both"
    assert np.isnan(Deviation.from_json(json.loads(json.dumps(nothing.to_json()))).largest)


def test_a_flat_direction_has_a_deviation_at_every_point():
    """With nothing to round there is none: weights and inputs that bfloat16 holds exactly."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    objective = Objective(net, nn.MSELoss(), (torch.ones(2, 1), torch.zeros(2, 1)))
    found = line(objective, Direction("w", torch.ones(1)), grid=3, precision="bfloat16")
    assert found.values["loss"].tolist() == [0.0, 1.0, 4.0]
    assert (found.deviations["loss"].largest, found.deviations["loss"].points) == (0.0, 3)


def test_a_forecast_counts_the_points_in_full_precision(monkeypatch):
    objective = objective_of(3)
    monkeypatch.setattr(
        "landscape.surfaces.running.forecast._point", lambda drawn, test, batchnorm: 5.0 if drawn is objective else 1.0
    )
    rough, full = (forecast_surface(objective, 100, precision=precision) for precision in ("bfloat16", None))
    assert rough.seconds == pytest.approx(100 * 1.0 + COMPARED * 5.0)
    assert full.seconds == pytest.approx(100 * 5.0)
