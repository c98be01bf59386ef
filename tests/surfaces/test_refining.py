"""Surfaces with a tolerance, against surfaces of which every point was computed."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import MalformedError, UsageError
from landscape.objective import Objective
from landscape.report import export_slice
from landscape.results import DONE, INTERPOLATED, NOT_FINITE, Slice
from landscape.surfaces import Direction, interpolation, line, plane, random_direction, toward

TOLERANCE = 0.25


def network(seed: int = 0, width: int = 16) -> nn.Module:
    """A small rectified perceptron, trained for some steps on random labels: a narrow minimum."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def objective(seed: int = 0, steps: int = 300, samples: int = 64) -> Objective:
    model, generator = network(seed), torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, 8, generator=generator), torch.randint(3, (samples,), generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return Objective(model, nn.CrossEntropyLoss(), (x, y))


def off(found: Slice, full: Slice, name: str = "loss") -> np.ndarray:
    """How far values are from the computed ones, in standard errors of these, or in roundings of float32 where these are 0."""
    errors = np.maximum(full.stderr[name], 1e-5 * full.values[name] + 1e-12)
    return np.abs(found.values[name] - full.values[name]) / errors


@pytest.fixture(scope="module")
def both() -> tuple[Objective, Slice, Slice]:
    at, test = objective(), objective(samples=40)
    full = plane(at, test=test, grid=41, random_check=False)
    return at, full, plane(at, test=test, grid=41, random_check=False, tolerance=TOLERANCE)


@pytest.mark.parametrize("name", ["loss", "test_loss"])
def test_no_point_of_a_plane_is_further_off_than_the_tolerance(both, name):
    _, full, found = both
    between = found.status[name] == INTERPOLATED
    assert between.sum() > 0.6 * between.size
    assert off(found, full, name).max() <= TOLERANCE
    assert (found.values[name][~between] == full.values[name][~between]).all()
    assert (found.status[name][~between] == DONE).all()
    ratio = found.stderr[name] / full.stderr[name]
    assert 0.8 < ratio.min() <= ratio.max() < 1.25
    there = full.paired[name] > 0.01 * full.paired[name].max()
    assert np.abs(np.log(found.paired[name][there] / full.paired[name][there])).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_no_point_is_further_off_for_any_seed(seed):
    at = objective(seed)
    for options in ({"grid": 51}, {"grid": 41, "span": (-6.0, 6.0)}):
        full, found = (plane(at, random_check=False, tolerance=t, **options) for t in (None, TOLERANCE))
        assert off(found, full).max() <= TOLERANCE


def test_points_held_out_tell_the_error(both):
    _, _, found = both
    held = found.refinement.held_out["loss"]
    assert held.points >= 40
    assert 0 < held.in_errors <= TOLERANCE
    assert held.rms_in_errors <= held.in_errors
    i, j = (int(np.flatnonzero(np.isclose(c, a))[0]) for c, a in zip(found.coordinates, held.at, strict=True))
    assert found.status["loss"][i, j] == DONE  # it was computed
    assert held.largest > 0
    computed, between = found.refinement.points["loss"]
    assert computed + between == 41 * 41
    assert computed == (found.status["loss"] == DONE).sum()
    assert f"{computed:,} of 1,681 points computed" in found.refinement.line("loss")
    assert found.refinement.line("loss") in str(found)


def test_what_the_check_needs_is_computed(both):
    _, full, found = both
    assert found.check.passed
    assert found.check.recomputed == full.check.recomputed
    assert found.check.centre_is_exact
    assert found.merge_tree is not None


def test_a_narrow_minimum_off_the_centre_of_a_wide_plane_is_resolved():
    at, minimum = objective(steps=0), objective(steps=2000)
    axes = (toward(at, minimum.theta, name="to the minimum"), random_direction(at, seed=1))
    options = {"span": ((-3.0, 5.0), (-4.0, 4.0)), "grid": 65, "random_check": False}
    full, found = plane(at, axes, **options), plane(at, axes, tolerance=TOLERANCE, **options)
    assert off(found, full).max() <= TOLERANCE
    i, j = (int(np.argmin(np.abs(c - a))) for c, a in zip(found.coordinates, (1.0, 0.0), strict=True))
    assert full.values["loss"][i, j] < 0.1 * full.values["loss"][found.coordinates[0] == 0.0].min()
    done = found.status["loss"] == DONE
    beside = done[i - 3 : i + 4, j - 3 : j + 4]  # no point of it is computed in any case but those of the lattice
    assert beside.mean() > 2 * done.mean()


def test_lines_and_paths():
    at, other = objective(), objective(seed=3)
    for slice_of in (
        lambda **k: line(at, grid=101, random_check=False, **k),
        lambda **k: interpolation(at, other, grid=101, **k),
    ):
        full, found = slice_of(), slice_of(tolerance=TOLERANCE)
        assert off(found, full).max() <= TOLERANCE
        assert (found.status["loss"] == INTERPOLATED).sum() > 30
        assert found.check.passed == full.check.passed
    assert found.barriers["loss"].height == pytest.approx(full.barriers["loss"].height, abs=0.25 * full.stderr["loss"].max())
    top = int(np.argmin(np.abs(full.coordinates[0] - found.barriers["loss"].at)))
    assert full.values["loss"][top] == found.barriers["loss"].height + (full.values["loss"][0] + full.values["loss"][-1]) / 2
    assert "leave the tolerance out" in found.barriers["accuracy"].reason
    assert {int(np.argmin(np.abs(found.coordinates[0] - a))) for a in (0.0, 1.0)} <= set(
        np.flatnonzero(found.status["loss"] == DONE)
    )


def test_maps_of_curvature_of_a_smooth_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()  # the Hessian of 22 weights is formed
    x = torch.randn(24, 2, dtype=torch.float64)
    at = Objective(model, nn.CrossEntropyLoss(), (x, (x[:, 0] > 0).long()), dtype="float64")
    full, found = (plane(at, grid=21, curvature=True, random_check=False, tolerance=t) for t in (None, TOLERANCE))
    between = found.status["lambda_max"] == INTERPOLATED
    assert between.sum() > 100
    apart = np.abs(found.values["lambda_max"] - full.values["lambda_max"]) / np.abs(full.values["lambda_max"])
    assert np.quantile(apart, 0.99) <= 0.01  # 1 % of lambda_max; where two eigenvalues cross, the largest has a kink
    values = found.values
    assert np.allclose(values["lambda_ratio"], np.abs(values["lambda_min"] / values["lambda_max"]))
    assert np.isnan(found.stderr["lambda_max"][between]).all()  # an interpolated eigenvalue has no residual
    assert "% of lambda_max" in found.refinement.line("lambda_max")


def test_a_run_continues_to_the_bit_and_is_not_mixed_with_another_tolerance(tmp_path):
    at = objective()
    whole = plane(at, grid=41, random_check=False, tolerance=TOLERANCE)
    folder = tmp_path / "points"
    first = plane(at, grid=41, random_check=False, tolerance=TOLERANCE, run=folder)
    for segment in sorted((folder / "journal").glob("*.jsonl")):  # what a killed process leaves: the first half of the points
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(lines[: len(lines) // 2]))
    for stored in sorted(folder.glob("loss-after-*.json"))[1:]:
        stored.unlink()
    again = plane(at, grid=41, random_check=False, tolerance=TOLERANCE, run=folder)
    for found in (first, again):
        assert (found.values["loss"] == whole.values["loss"]).all()
        assert found.refinement.to_json() == whole.refinement.to_json()
    for other in (0.5, None):
        with pytest.raises(UsageError, match="tolerance"):
            plane(at, grid=41, random_check=False, tolerance=other, run=folder)
    (folder / "loss-after-0-points.json").write_text('{"points": ["a"], "held out": [], "extremes": []}')
    with pytest.raises(MalformedError, match="expected lists of points"):
        plane(at, grid=41, random_check=False, tolerance=TOLERANCE, run=folder)


def test_points_beside_one_without_a_finite_value_are_computed():
    class Cut(nn.Module):
        """A loss that is infinite where the first output grows."""

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            each = (output - target).square().sum(1)
            return torch.where(output[:, 0] > 2.5, torch.inf, each).mean()

    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.5]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.2, 0.5]])
    at = Objective(model, Cut(), (x, torch.zeros(4, 1)), dtype="float64")
    axes = [Direction(f"w{i}", e) for i, e in enumerate(torch.eye(2, dtype=torch.float64))]
    options = {"span": (-3.0, 3.0), "grid": 41, "random_check": False}
    full, found = plane(at, tuple(axes), **options), plane(at, tuple(axes), tolerance=TOLERANCE, **options)
    assert (full.status["loss"] == NOT_FINITE).sum() > 100
    assert ((full.status["loss"] == NOT_FINITE) == (found.status["loss"] == NOT_FINITE)).all()


def test_grids_that_splines_cannot_follow_are_computed(both):
    at, _, _ = both
    full, found = (plane(at, grid=(21, 2), random_check=False, tolerance=t) for t in (None, TOLERANCE))
    assert (found.values["loss"] == full.values["loss"]).all()
    assert (found.status["loss"] == DONE).all()


def test_points_compared_in_full_precision_are_computed(both):
    at, _, _ = both
    found = line(at, grid=101, random_check=False, tolerance=TOLERANCE, precision="bfloat16")
    compared = found.deviations["loss"]
    k = int(np.argmin(np.abs(found.coordinates[0] - compared.at[0])))
    assert compared.points >= 9
    assert found.status["loss"][k] == DONE


def test_every_format_keeps_the_status(both, tmp_path):
    xarray = pytest.importorskip("xarray")
    _, _, found = both
    export_slice(found, tmp_path, "surface")
    computed, between = found.refinement.points["loss"]
    rows = (tmp_path / "surface.csv").read_text().splitlines()
    assert sum(",interpolated" in row for row in rows) == between
    with xarray.open_dataset(tmp_path / "surface.nc", engine="scipy") as data:
        assert int((data["loss_status"] == INTERPOLATED).sum()) == between
        assert "interpolated" in data["loss_status"].attrs["flag_meanings"]
        assert json.loads(data.attrs["refinement"])["points"]["loss"] == [computed, between]
    assert sum(row["loss_status"] == "interpolated" for row in found.records()) == between
    again = Slice.from_json(json.loads(json.dumps(found.to_json())))
    assert again.refinement.to_json() == found.refinement.to_json()
    assert (again.status["loss"] == found.status["loss"]).all()


def test_figures_mark_what_was_computed(both):
    _, _, found = both
    axes = found.plot(caption=True)
    (dots,) = [a for a in axes.get_lines() if a.get_gid() == "computed"]
    assert len(dots.get_xdata()) == found.refinement.points["loss"][0]
    assert any("computed: " in t.get_text() for t in axes.get_legend().get_texts())
    assert any("held out" in t.get_text() for t in axes.figure.texts)


def test_a_tolerance_needs_an_error_to_be_measured_in():
    model = network()
    one = Objective(model, nn.CrossEntropyLoss(), (torch.randn(1, 8), torch.zeros(1, dtype=torch.long)))
    with pytest.raises(UsageError, match="standard error"):
        plane(one, grid=11, random_check=False, tolerance=TOLERANCE)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            plane(objective(steps=1), grid=11, random_check=False, tolerance=wrong)


def test_two_processes_share_the_points(tmp_path):
    script = tmp_path / "share.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_refining import TOLERANCE, objective, plane, zlib\n"
        "found = plane(objective(), grid=41, random_check=False, tolerance=TOLERANCE, run=sys.argv[1])\n"
        "print(zlib.crc32(found.values['loss'].tobytes()))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "points"), __file__.rpartition("/")[0]]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate(timeout=300)[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    assert told == {
        str(zlib.crc32(plane(objective(), grid=41, random_check=False, tolerance=TOLERANCE).values["loss"].tobytes()))
    }
