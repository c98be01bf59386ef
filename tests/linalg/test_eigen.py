import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import SPECTRA, conjugated

from landscape.errors import NumericalError, UsageError
from landscape.linalg import eigenpairs
from landscape.machine import progress

CACHE = {name: conjugated(values) for name, values in SPECTRA.items()}


def ends(values, k, which):
    ordered = np.sort(values)[::-1]
    k_low = min(k, len(values) - k)
    return {"largest": ordered[:k], "smallest": ordered[-k:], "both": np.r_[ordered[:k], ordered[len(ordered) - k_low :]]}[
        which
    ]


def solve(matrix, **options):
    return eigenpairs(lambda v: v @ matrix, len(matrix), dtype=matrix.dtype, **options)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("name", SPECTRA)
def test_float64_against_the_chosen_spectrum(name, k, which):
    matrix = CACHE[name]
    pairs = solve(matrix, k=k, which=which, tol=1e-10, max_matvecs=2000)
    scale = np.abs(SPECTRA[name]).max()
    expected = ends(SPECTRA[name], k, which)
    np.testing.assert_allclose(pairs.values, expected, atol=1e-8 * scale if name != "clustered top" or k > 1 else 1e-8)
    assert pairs.converged.all()
    # The reported residuals are the true ones, computed here from the dense matrix.
    true = (pairs.vectors @ matrix - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-14 * max(scale, 1))
    assert (true <= 1e-10 * scale * 1.001).all()
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(len(pairs)), atol=1e-12)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("name", SPECTRA)
def test_float32_within_its_residuals(name, which):
    pairs = solve(CACHE[name].float(), k=3, which=which, max_matvecs=2000)
    scale = np.abs(SPECTRA[name]).max()
    assert pairs.converged.all()
    assert (pairs.residuals <= 1.001e-4 * scale).all()
    np.testing.assert_allclose(pairs.values, ends(SPECTRA[name], 3, which), atol=1.1e-4 * scale)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
@pytest.mark.parametrize("name", SPECTRA)
def test_a_loose_tolerance_needs_no_products_to_know_its_residuals(name, which):
    """They follow from the products made, by linearity; and copies of a multiple eigenvalue are still looked for."""
    matrix = CACHE[name].float()
    loose, tight = (solve(matrix, k=3, which=which, tol=tol, max_matvecs=2000) for tol in (1e-3, 1e-4))
    assert loose.matvecs <= tight.matvecs
    assert loose.converged.all()
    scale = np.abs(SPECTRA[name]).max()
    true = (loose.vectors @ matrix - torch.from_numpy(loose.values).float()[:, None] * loose.vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(loose.residuals, true, atol=3e-6 * scale)
    assert (true <= 1.01e-3 * scale).all()
    np.testing.assert_allclose(loose.values, ends(SPECTRA[name], 3, which), atol=2e-3 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 5, 30])
def test_small_problems_are_exact_and_complete(dim, dtype):
    values = np.r_[np.full((dim + 1) // 2, 2.0), np.arange(dim // 2) - 1.0]
    matrix = conjugated(values).to(dtype)
    accuracy = 30 * torch.finfo(dtype).eps
    for k in sorted({1, (dim + 1) // 2, dim}):
        for which in ("largest", "smallest", "both"):
            pairs = solve(matrix, k=k, which=which)
            np.testing.assert_allclose(pairs.values, ends(values, k, which), atol=accuracy)
            assert pairs.vectors.shape == (len(pairs.values), dim)
            assert pairs.converged.all()


def test_both_ends_without_duplicates():
    values = np.linspace(-1, 1, 7)
    assert len(solve(conjugated(values), k=3, which="both")) == 6
    np.testing.assert_allclose(solve(conjugated(values), k=5, which="both").values, values[::-1], atol=1e-12)


def test_order_is_algebraic_not_by_magnitude():
    matrix = conjugated(np.r_[-50.0, -40.0, np.linspace(0, 2, 98)])
    assert solve(matrix, tol=1e-8).values[0] == pytest.approx(2.0, abs=1e-7)
    assert solve(matrix, which="smallest", k=2).values == pytest.approx([-40.0, -50.0], abs=1e-3)


def test_every_copy_of_a_multiple_eigenvalue_is_found():
    values = np.r_[[5.0] * 8, np.random.default_rng(0).random(392)]
    for seed in range(5):
        pairs = solve(conjugated(values, seed), k=8, tol=1e-8, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(pairs.values, 5.0, atol=1e-10)
        assert pairs.converged.all()
    # What the sweep is for: at a loose tolerance a plain Krylov space has seen one copy and stops.
    assert (solve(conjugated(values), k=8, tol=1e-3, sweep=0).values < 4).any()
    np.testing.assert_allclose(solve(conjugated(values), k=8, tol=1e-3).values, 5.0, atol=1e-4)


def test_the_null_space_of_a_gauss_newton_like_matrix():
    values = np.r_[np.geomspace(10, 0.5, 20), np.zeros(380)]
    pairs = solve(conjugated(values).float(), k=5, which="smallest")
    np.testing.assert_allclose(pairs.values, 0, atol=1e-5)


def test_products_stay_few():
    # Regression bounds, a little above what the method needs today; a plain deflated power iteration needs hundreds.
    matrix = CACHE["like a Hessian"].float()
    assert solve(matrix, k=5, tol=1e-3).matvecs <= 18  # none for the residuals, and four for copies
    assert solve(matrix, k=1).matvecs <= 11
    assert solve(matrix, k=5).matvecs <= 28
    assert solve(matrix, k=1, which="both").matvecs <= 18
    assert solve(CACHE["even"].float(), k=1).matvecs <= 110


def test_it_stops_in_mid_cycle():
    # With a basis of 150 a solver that only tests at the end of a cycle would spend 150 products.
    assert solve(CACHE["like a Hessian"].float(), k=1, basis_size=150).matvecs <= 11


@pytest.mark.parametrize("k", [1, 5])
def test_warm_start_saves_products(k):
    matrix = CACHE["like a Hessian"].float()
    noise = np.random.default_rng(3).standard_normal(matrix.shape)
    near = matrix + torch.from_numpy((noise + noise.T) / np.sqrt(8 * len(matrix)) * 0.01).float()
    cold = solve(near, k=k)
    earlier = solve(matrix, k=k)
    warm = solve(near, k=k, start=earlier.vectors)
    assert warm.matvecs < cold.matvecs
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2])
def test_a_misleading_start_does_not_mislead(k):
    matrix = CACHE["like a Hessian"]
    wrong = torch.from_numpy(np.linalg.eigh(matrix.numpy())[1][:, [-4, -5]].T.copy())
    for seed in range(10):
        pairs = solve(matrix, k=k, start=wrong, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(pairs.values, [10.0, 7.0][:k], rtol=1e-4)
    assert solve(matrix, start=torch.zeros(200)).values[0] == pytest.approx(10.0, rel=1e-4)


def test_a_tolerance_below_the_noise_ends_soon_and_says_so():
    matrix = CACHE["like a Hessian"].float()
    pairs = solve(matrix, k=3, tol=1e-12)
    assert not pairs.converged.any()
    assert pairs.matvecs < 150
    np.testing.assert_allclose(pairs.values, [10.0, 7.0, 5.0], rtol=1e-5)
    assert "residual" in pairs.estimate(0).reason


def test_a_noisy_operator_is_not_called_converged():
    matrix = CACHE["like a Hessian"]
    generator = torch.Generator().manual_seed(0)

    def noisy(v):
        return v @ matrix + 0.05 * torch.randn(v.shape, generator=generator, dtype=v.dtype)

    pairs = eigenpairs(noisy, 200, k=2, dtype=torch.float64)
    assert not pairs.converged.any()
    assert pairs.residuals.min() > 0.1
    assert pairs.matvecs <= 300


@pytest.mark.parametrize("bound", [2, 5, 20])
def test_the_bound_on_products_holds(bound):
    calls = []
    matrix = CACHE["even"]

    def matvec(v):
        calls.append(len(v))
        return v @ matrix

    pairs = eigenpairs(matvec, 200, tol=1e-12, max_matvecs=bound, dtype=torch.float64)
    assert pairs.matvecs == sum(calls) == bound
    assert not pairs.converged.any()
    true = (pairs.vectors @ matrix - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(pairs.residuals, true, rtol=1e-10)


def test_restarts_with_the_smallest_basis():
    pairs = solve(CACHE["even"], k=2, which="both", basis_size=10, tol=1e-6, max_matvecs=20000)
    np.testing.assert_allclose(pairs.values, ends(SPECTRA["even"], 2, "both"), atol=1e-8)
    assert pairs.converged.all()


@settings(max_examples=20, deadline=None)
@given(st.integers(45, 80), st.integers(1, 6), st.sampled_from(["largest", "smallest", "both"]), st.integers(0, 10**6))
def test_residuals_bound_the_distance_to_the_spectrum(dim, k, which, seed):
    values = np.random.default_rng(seed).standard_normal(dim)
    pairs = solve(conjugated(values, seed), k=k, which=which, tol=1e-3, basis_size=2 * k + 20)
    for value, residual in zip(pairs.values, pairs.residuals, strict=True):
        assert np.abs(values - value).min() <= residual + 1e-12
    assert (np.diff(pairs.values) <= 0).all()


def test_scaling_and_shifting():
    matrix = CACHE["like a Hessian"]
    base = solve(matrix, k=3, tol=1e-9)
    for factor in (1e-12, 1e12):
        scaled = solve(matrix * factor, k=3, tol=1e-9)
        np.testing.assert_allclose(scaled.values, base.values * factor, rtol=1e-9)
        assert scaled.matvecs == base.matvecs


def test_progress_is_reported():
    steps = []

    class Listener:
        def start(self, label, total):
            steps.append((label, total))
            return 0

        def advance(self, handle, count):
            steps.append(count)

        def finish(self, handle):
            steps.append("end")

    with progress.listening(Listener()):
        pairs = solve(CACHE["even"], k=1)
    assert steps[0] == ("eigenvalues", 300)
    assert sum(steps[1:-1]) == pairs.matvecs
    assert steps[-1] == "end"


def test_a_product_that_is_not_finite_is_named():
    matrix = CACHE["even"]
    calls = []

    def matvec(v):
        calls.append(1)
        return v @ matrix if len(calls) < 7 else v / 0

    with pytest.raises(NumericalError, match="not finite in product 7; check the loss"):
        eigenpairs(matvec, 200, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "expected 1 <= k <= 3 eigenpairs, found k=4"),
        ({"k": 0}, "expected 1 <= k <= 3 eigenpairs, found k=0"),
        ({"which": "middle"}, "expected which 'largest', 'smallest' or 'both', found 'middle'"),
        ({"tol": 0.0}, "expected tol > 0 and sweep >= 0, found tol=0.0"),
        ({"k": 2, "max_matvecs": 3}, "expected max_matvecs >= 4, found 3"),
        ({"basis_size": 2}, "expected basis_size >= 3, found 2"),
        ({"start": torch.ones(2)}, r"expected start of shape \(3,\)"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UsageError, match=message):
        inspect.unwrap(eigenpairs)(lambda v: v, 3, **options)  # as called where the annotations are not checked


@pytest.mark.parametrize("budget", range(6, 30))
def test_vectors_are_eigenvectors_wherever_the_budget_ends(budget):
    matrix = CACHE["like a Hessian"]
    pairs = solve(matrix, k=2, tol=1e-2, max_matvecs=budget)
    assert pairs.vectors.shape == (2, len(matrix))
    assert pairs.matvecs <= budget
    true = (pairs.vectors @ matrix - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-10)


@pytest.mark.parametrize("which", ["largest", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_short_basis_is_worked_on_in_place(which, dtype):
    """A basis below the default, as memory asks for: no second copy of the vectors, products of one vector each."""
    values = np.r_[np.linspace(0, 1, 290), np.geomspace(2, 50, 10)]
    matrix, blocks = conjugated(values).to(dtype), []

    def product(v):
        blocks.append(len(v))
        return v @ matrix

    tol = 1e-9 if dtype == torch.float64 else 1e-5
    k, size = (10, 17) if which == "largest" else (4, 14)
    pairs = eigenpairs(product, 300, k=k, which=which, tol=tol, basis_size=size, max_matvecs=2000, dtype=dtype)
    assert pairs.converged.all()
    assert set(blocks) == {1}
    expected = ends(values, k, which)
    np.testing.assert_allclose(pairs.values, expected, atol=1e-8 if dtype == torch.float64 else 1e-4)
    assert (np.diff(pairs.values) <= 0).all()
    wide, exact = pairs.vectors.double(), matrix.double()
    true = (wide @ exact - torch.from_numpy(pairs.values)[:, None] * wide).norm(dim=1).numpy()
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-11 if dtype == torch.float64 else 1e-4)
    np.testing.assert_allclose(wide @ wide.T, np.eye(len(pairs)), atol=1e-10 if dtype == torch.float64 else 1e-5)


# The eleven largest eigenvalues of the benchmark's digits MLP on 512 samples: the tenth and the eleventh are near.
MLP = [1.43363651, 1.39513725, 0.7704229, 0.66790946, 0.50158362, 0.39326989, 0.33766545, 0.27226111, 0.1838293]
MLP += [0.15281826, 0.1475184]


@pytest.mark.parametrize("option", ["tol", "value_tol"])
def test_the_last_wanted_value_is_not_missed_for_its_neighbour(option):
    """With sweeps from random vectors alone it was, from the starts 5 and 19: the next row holds what has grown of it."""
    values = np.r_[MLP, np.geomspace(0.1, 0.01, 40), np.zeros(1949)]
    diagonal = torch.from_numpy(values)
    for seed in (0, 5, 10, 19):
        generator = torch.Generator().manual_seed(seed)
        pairs = eigenpairs(lambda v: v * diagonal, 2000, k=10, dtype=torch.float64, generator=generator, **{option: 1e-3})
        np.testing.assert_allclose(pairs.values, MLP[:10], atol=1e-3 * values[0])
