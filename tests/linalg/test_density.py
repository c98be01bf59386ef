import inspect

import numpy as np
import pytest
import torch
from known_spectra import SPECTRA, conjugated
from sklearn.datasets import load_wine
from torch import nn

from landscape.curvature.footprint import Live
from landscape.errors import UsageError
from landscape.linalg import spectral_density
from landscape.linalg.krylov.quadrature_error import Rule, around, kernel_error, smoothed_bounds
from landscape.results import SpectralDensity

VALUES = np.r_[10.0, 6.0, np.random.default_rng(0).standard_normal(198)]
DENSE = conjugated(VALUES)


def estimate(matrix=DENSE, **options):
    options = {"generator": torch.Generator().manual_seed(1), "dtype": matrix.dtype} | options
    return spectral_density(lambda v: v @ matrix, len(matrix), **options)


def smoothed(values, density):
    """The exact density under the estimate's own kernel, on its grid."""
    if density.scale == "linear":
        kernel = np.exp(-0.5 * ((density.grid[:, None] - values) / density.sigma[:, None]) ** 2)
        return kernel.mean(1) / (density.sigma * np.sqrt(2 * np.pi))
    u = np.arcsinh(density.grid / density.linthresh)
    width = density.sigma[0] / np.hypot(density.grid[0], density.linthresh)
    kernel = np.exp(-0.5 * ((u[:, None] - np.arcsinh(values / density.linthresh)) / width) ** 2)
    return kernel.mean(1) / (density.sigma * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_integrates_to_one(scale, dtype):
    density = estimate(DENSE.to(dtype), scale=scale, probes=4, steps=40)
    assert np.trapezoid(density.density, density.grid) == pytest.approx(1, abs=2e-4)
    np.testing.assert_allclose(density.weights.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_full_krylov_space_against_the_exact_smoothed_density(scale):
    # With P steps each probe's quadrature is exact; only the probes' noise is left and 400 of them average it away.
    matrix = conjugated(VALUES[:30])
    density = estimate(matrix, scale=scale, probes=400, steps=30, sigma=0.4)
    exact = smoothed(VALUES[:30], density)
    assert np.abs(density.density - exact).max() < 0.08 * exact.max()
    far = 4.5 * (density.upper - density.lower) / 2 + 1e-9 * exact.max()
    assert (np.abs(density.density - exact) < far).all()


def test_few_steps_reach_the_smoothed_density():
    density = estimate(probes=30, steps=40, sigma=0.5)
    exact = smoothed(VALUES, density)
    area = np.trapezoid(np.abs(density.density - exact), density.grid)
    assert area < 0.06


def test_the_band_covers():
    # 95 % for the whole curve at once, where the kernel is so wide that the quadrature leaves nothing open.
    whole, half = 0, []
    for seed in range(20):
        density = estimate(probes=10, steps=30, sigma=1.5, points=128, generator=torch.Generator().manual_seed(seed))
        exact = smoothed(VALUES, density)
        slack = 1e-9 * exact.max()
        whole += ((density.lower - slack <= exact) & (exact <= density.upper + slack)).all()
        peak = exact.argmax()
        half.append((density.upper[peak] - density.lower[peak]) / 2 / exact[peak])
    assert whole >= 18
    # A probe's share of any part of the spectrum has a relative error of sqrt(2 / 200) or less; Student's quantile is 4.9.
    assert np.mean(half) < 4.9 * np.sqrt(2 / 200 / 10)


def trained_network() -> np.ndarray:
    """Eigenvalues of the dense float64 Hessian of a small network, trained on wine."""
    x, y = load_wine(return_X_y=True)
    x = torch.from_numpy((x - x.mean(0)) / x.std(0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(13, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer, y = torch.optim.Adam(model.parameters(), lr=0.02), torch.from_numpy(y)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    w = torch.cat([p.detach().flatten() for p in model.parameters()])

    def loss(w):
        a, b, c, d = w.split([104, 8, 24, 3])
        hidden = torch.tanh(x @ a.view(8, 13).T + b)
        return nn.functional.cross_entropy(hidden @ c.view(3, 8).T + d, y)

    return torch.linalg.eigvalsh(torch.func.hessian(loss)(w)).numpy()


LONG_TAILED = np.r_[np.random.default_rng(3).lognormal(-4, 2, 500), -np.random.default_rng(4).lognormal(-6, 2, 100)]
LOW_RANK = np.r_[np.zeros(300), np.random.default_rng(5).lognormal(-3, 1.5, 80)]


@pytest.mark.parametrize("steps", [20, pytest.param(40, marks=pytest.mark.slow), 80])
@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(
    "values",
    [SPECTRA["like a Hessian"], SPECTRA["even"], VALUES, LONG_TAILED, LOW_RANK, trained_network],
    ids=["hessian", "even", "normal", "long-tailed", "low rank", "trained network"],
)
def test_the_band_holds_the_mass(values, scale, steps):
    """At least nine tenths of the mass of the smoothed true density lies inside, in every single run."""
    values = values() if callable(values) else values
    diagonal = torch.from_numpy(values)  # a probe that is uniform on the sphere does not see the basis
    for seed in range(3):
        density = spectral_density(
            lambda v: v * diagonal, len(values), steps=steps, scale=scale, dtype=torch.float64,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        exact = smoothed(values, density)
        slack = 1e-9 * exact.max()
        inside = (density.lower - slack <= exact) & (exact <= density.upper + slack)
        mass = exact * np.gradient(density.grid)
        assert mass[inside].sum() >= 0.9 * mass.sum(), (seed, mass[inside].sum() / mass.sum())


@pytest.mark.parametrize("m", [1, 2, 5, 20])
def test_bounds_hold_every_measure_with_these_moments(m):
    """The measure that the rule was made from, smoothed by kernels far narrower and far wider than its resolution."""
    random = np.random.default_rng(m)
    places, shares = np.sort(random.lognormal(0, 1.5, 60)), random.dirichlet(np.full(60, 0.5))
    seen = []

    def matvec(v):
        seen.append(v)
        return v * torch.from_numpy(places)

    density = spectral_density(matvec, 60, probes=2, steps=m, dtype=torch.float64)
    for i in range(2):
        start = seen[0][i].numpy()
        shares = start**2 / (start @ start)
        rule = Rule(density.nodes[i], density.weights[i])
        for sigma in (0.01, 0.3, 5.0, 40.0):
            grid = np.linspace(-10, places.max() + 10, 501)
            exact = np.exp(-0.5 * ((grid[:, None] - places) / sigma) ** 2) @ shares / (sigma * np.sqrt(2 * np.pi))
            ends = np.array([[places.min(), places.max()]])
            error = kernel_error(grid, sigma, lambda t: t, ends, m)
            none = np.full(grid.shape, np.inf)
            for least in (none, error):
                low, mean, high = smoothed_bounds(grid, sigma, rule.nodes, rule, least)
                assert (low <= exact * (1 + 1e-9) + 1e-12).all()
                assert (exact <= high * (1 + 1e-9) + 1e-12).all()
                assert (low <= mean + 1e-12).all()
                assert (mean <= high + 1e-12).all()
            assert (np.abs(mean - exact) <= error * (1 + 1e-9) + 1e-12).all()


def test_resolution_is_the_distance_of_the_nodes_around_a_place():
    rules = [Rule(np.array([0.0, 1.0, 4.0]), np.full(3, 1 / 3)), Rule(np.array([0.0, 2.0, 4.0]), np.full(3, 1 / 3))]
    np.testing.assert_array_equal(around(rules[:1], np.array([-5.0, 0.5, 2.0, 9.0])), [1, 1, 3, 3])
    np.testing.assert_array_equal(around(rules, np.array([0.5])), [1.5])
    few, many = (estimate(steps=m, scale="log") for m in (10, 60))
    assert few.near_zero > 3 * many.near_zero
    assert few.linthresh >= few.near_zero / 2
    assert SpectralDensity.from_json(few.to_json()).near_zero == few.near_zero


def test_the_grid_covers_the_outermost_node_of_any_probe():
    density = estimate(probes=5, steps=20)
    width = density.sigma[0]
    assert density.grid[0] <= density.nodes.min() - 5 * width
    assert density.grid[-1] >= density.nodes.max() + 5 * width
    assert density.nodes.max() == pytest.approx(10, abs=1e-6)
    assert (density.lower >= 0).all()
    assert (density.lower <= density.density).all()
    assert (density.density <= density.upper).all()


def test_an_outlier_keeps_its_place_and_mass():
    density = estimate(probes=100, steps=15, sigma=0.3)
    around = np.abs(density.grid - 10) < 1.5
    mass = np.trapezoid(density.density[around], density.grid[around])
    assert mass == pytest.approx(1 / 200, rel=0.4)


def test_quadrature_reproduces_the_moments_of_its_probes():
    # Gauss rules are exact for polynomials up to degree 2m - 1: here of the measure that each probe sees.
    seen = []

    def recorded(v):
        seen.append(v.clone())
        return v @ DENSE

    density = spectral_density(recorded, 200, probes=3, steps=4, dtype=torch.float64)
    starts = seen[0]
    vector = starts
    for degree in range(1, 8):
        vector = vector @ DENSE
        exact = (starts * vector).sum(1).numpy()
        np.testing.assert_allclose((density.weights * density.nodes**degree).sum(1), exact, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_memory_budget_changes_nothing_but_the_blocks(dtype):
    sizes = []

    def matvec(v):
        sizes.append(len(v))
        return v @ DENSE.to(dtype)

    def of(memory):
        sizes.clear()
        return spectral_density(matvec, 200, probes=5, steps=12, memory=memory, dtype=dtype)

    one_vector = 12 * 200 * dtype.itemsize
    whole = of(1e9)
    assert set(sizes) == {5}
    split = of(2.5 * one_vector)
    assert set(sizes) == {2, 1}
    assert whole.matvecs == split.matvecs == 60
    rounding = 1e-10 if dtype == torch.float64 else 1e-3
    np.testing.assert_allclose(split.density, whole.density, atol=rounding * whole.density.max())
    with pytest.raises(UsageError, match=r"expected a Krylov basis of at most .* bytes.*use steps <= 6"):
        of(0.5 * one_vector)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("values", [np.zeros(20), np.full(20, 3.0), np.full(1, -2.0), np.r_[np.zeros(15), np.ones(5)]])
def test_few_distinct_eigenvalues(values, scale):
    density = estimate(conjugated(values), scale=scale, probes=3, steps=10)
    assert np.isfinite(density.density).all()
    assert np.trapezoid(density.density, density.grid) == pytest.approx(1, abs=1e-3)
    assert density.nodes.min() == pytest.approx(values.min(), abs=1e-12)
    assert density.nodes.max() == pytest.approx(values.max(), abs=1e-12)
    np.testing.assert_allclose(density.weights.sum(1), 1)
    # A closed Krylov space costs no further products.
    assert density.matvecs <= 3 * 3


def test_more_steps_than_dimensions():
    density = estimate(conjugated(np.arange(5.0)), probes=2, steps=80)
    assert density.nodes.shape == (2, 5)
    np.testing.assert_allclose(density.nodes, np.tile(np.arange(5.0), (2, 1)), atol=1e-12)


def test_log_scale_shows_bulk_and_outliers():
    values = np.r_[100.0, -5.0, np.random.default_rng(1).standard_normal(98) * 1e-2]
    density = estimate(conjugated(values), scale="log", probes=20, steps=60, linthresh=1e-2)
    u = np.arcsinh(density.grid / density.linthresh)
    np.testing.assert_allclose(np.diff(u), u[1] - u[0], rtol=1e-6)
    assert density.linthresh == 1e-2
    np.testing.assert_allclose(density.sigma / np.hypot(density.grid, 1e-2), density.sigma[0] / np.hypot(density.grid[0], 1e-2))


def test_json_round_trip():
    density = estimate(probes=2, steps=5)
    again = SpectralDensity.from_json(density.to_json())
    np.testing.assert_allclose(again.density, density.density)


def test_the_seed_decides():
    first, second = estimate(probes=2, steps=5), estimate(probes=2, steps=5)
    np.testing.assert_array_equal(first.nodes, second.nodes)
    other = estimate(probes=2, steps=5, generator=torch.Generator().manual_seed(2))
    assert not np.array_equal(first.nodes, other.nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "expected probes >= 2, found 1"),
        ({"steps": 0}, "expected steps >= 1, found 0"),
        ({"points": 8}, "expected points >= 16, found 8"),
        ({"sigma": -1.0}, "expected sigma > 0, found -1.0"),
        ({"linthresh": 0.0}, "expected linthresh > 0, found 0.0"),
        ({"scale": "cubic"}, "expected scale 'linear' or 'log', found 'cubic'"),
        ({"sigma": 1e-4}, "expected a grid step of at most sigma = 0.0001, found .*; use points >= "),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UsageError, match=message):
        inspect.unwrap(spectral_density)(lambda v: v * torch.arange(5.0), 5, **options)


def test_the_advice_on_points_is_enough():
    diagonal = torch.arange(5.0)
    with pytest.raises(UsageError) as caught:
        spectral_density(lambda v: v * diagonal, 5, sigma=1e-3)
    points = int(caught.value.fix.split(">= ")[1].split(",")[0])
    density = spectral_density(lambda v: v * diagonal, 5, sigma=1e-3, points=points)
    assert np.trapezoid(density.density, density.grid) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("steps", [6, 60])
def test_few_steps_put_no_mass_far_beyond_the_largest_eigenvalue(steps):
    diagonal = torch.cat([torch.linspace(-0.02, 0.02, 180, dtype=torch.float64), torch.tensor([1.0, 4.0, 30.0]).double()])
    density = spectral_density(lambda v: v * diagonal, 183, probes=4, steps=steps, scale="log", dtype=torch.float64)
    beyond = density.grid > 30 * 2.2  # three widths of the kernel
    assert np.trapezoid(density.density[beyond], density.grid[beyond]) < 0.002 * 3 / 183
    assert abs(np.trapezoid(density.density, density.grid) - 1) < 1e-3


def test_without_a_stored_basis_the_quadrature_is_the_same_until_an_eigenvalue_is_found():
    kept, dropped = (estimate(probes=3, steps=12, scale="linear", stored=stored) for stored in (True, False))
    np.testing.assert_allclose(dropped.nodes, kept.nodes, atol=1e-6)
    np.testing.assert_allclose(dropped.weights, kept.weights, atol=1e-6)
    assert dropped.matvecs == kept.matvecs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_of_an_outlier_share_its_weight_where_no_basis_is_stored(dtype):
    """Far beyond the step at which the outlier is found to rounding, so that it is found again."""
    values = np.r_[np.linspace(-1, 1, 399), 100.0]
    matrix = conjugated(values).to(dtype)
    kept, dropped = (estimate(matrix, probes=4, steps=60, scale="linear", sigma=3.0, stored=s) for s in (True, False))
    near = np.abs(dropped.nodes - 100.0) < 0.1
    assert (near.sum(axis=1) > 1).any(), "no copy was found: the test shows nothing"
    np.testing.assert_allclose((dropped.weights * near).sum(axis=1), kept.weights[np.abs(kept.nodes - 100.0) < 0.1], rtol=1e-3)
    np.testing.assert_allclose(dropped.weights.sum(axis=1), 1.0, atol=1e-6)
    truth = smoothed(values, dropped)
    assert (truth >= dropped.lower - 1e-9).all()
    assert (truth <= dropped.upper + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_many_steps_as_weights_are_not_exact_where_no_basis_is_stored(dtype):
    values = np.r_[50.0, 100.0, np.linspace(-1, 1, 38)]
    matrix = torch.diag(torch.from_numpy(values)).to(dtype)
    options = {"probes": 4, "steps": 40, "scale": "linear", "sigma": 0.02, "points": 8192}
    kept, dropped = (estimate(matrix, stored=stored, **options) for stored in (True, False))
    inner = [len(set(np.abs(values[:, None] - row).argmin(0))) for row in dropped.nodes]
    assert max(inner) < 40, "the recurrence found every eigenvalue: the test shows nothing"
    # Beside the noise of the probes, which both have, the band shows what the nodes leave open.
    assert (dropped.upper - dropped.lower).sum() > 1.05 * (kept.upper - kept.lower).sum()
    for place in (50.0, 100.0):
        resolved = [d.resolution[np.abs(d.grid - place).argmin()] for d in (kept, dropped)]
        assert resolved[1] == pytest.approx(resolved[0], rel=0.05)
        assert resolved[1] > 40
    truth = smoothed(values, dropped)
    assert ((truth >= dropped.lower - 1e-9) & (truth <= dropped.upper + 1e-9)).all()


def test_copies_and_nodes_without_weight_are_one_node():
    nodes = np.array([0.0, 1e-3, 98.0, 100 - 2e-14, 100, 100 + 1e-14])
    rule = Rule(nodes, np.array([0.5, 0.2, 1e-40, 1e-9, 0.3 - 2e-9, 1e-9])).distinct(20 * 2.2e-16)
    np.testing.assert_allclose(rule.nodes, [0.0, 1e-3, 100.0], rtol=1e-15)
    np.testing.assert_allclose(rule.weights, [0.5, 0.2, 0.3], rtol=1e-14)
    dense = Rule(np.linspace(0, 1, 101), np.full(101, 1 / 101)).distinct(0.05)
    assert 16 < len(dense.nodes) < 25  # groups no wider than that, not one


def test_a_recurrence_that_ended_is_exact_at_any_number_of_steps():
    found = estimate(2.0 * torch.eye(50, dtype=torch.float64), probes=3, steps=1, stored=False, sigma=0.1)
    np.testing.assert_allclose(found.upper, found.density)
    np.testing.assert_allclose(found.lower, found.density)


def test_without_a_stored_basis_four_vectors_a_probe_and_one_are_enough_and_needed():
    row, size = 160e3, 20_000
    diagonal, peaks = torch.linspace(0, 1, size, dtype=torch.float64), []
    like = {"probes": 4, "steps": 12, "stored": False, "dtype": torch.float64, "scale": "linear"}

    def of(memory):
        blocks = set()

        def matvec(v):
            blocks.add(len(v))
            return v * diagonal

        with Live() as live:
            found = spectral_density(matvec, size, memory=memory, **like)
        peaks.append(live.peak / row)
        return found, blocks

    whole, together = of(17 * row)
    assert together == {4}
    assert 15.9 < peaks[0] < 16.5  # the check of products takes none
    halves, together = of(16 * row)
    assert together == {3, 1}
    np.testing.assert_allclose(halves.nodes, whole.nodes, atol=1e-9)
    assert of(5 * row)[1] == {1}
    with pytest.raises(UsageError, match=r"expected vectors of at most 7.84e\+05 bytes, found 8e\+05 for one probe; raise"):
        of(4.9 * row)


def test_an_operator_with_one_eigenvalue_ends_the_recurrence():
    found = estimate(2.0 * torch.eye(50, dtype=torch.float64), probes=3, steps=20, stored=False)
    np.testing.assert_allclose(found.nodes, 2.0)


def test_the_trace_comes_with_the_density():
    found = estimate(probes=16, steps=8)
    trace, exact = found.trace(), float(DENSE.trace())
    assert trace.n == 16
    low, high = trace.interval(0.999)
    assert low < exact < high
    # The Rayleigh quotients of the same probes.
    one = estimate(probes=16, steps=1)
    assert trace.value == pytest.approx(one.trace().value, rel=1e-6)
