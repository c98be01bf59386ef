"""Bounds of eigenvalues that go with the square of the residual, against dense spectra in float64."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import SPECTRA, conjugated
from torch import nn

import landscape as ls
from landscape.errors import UsageError
from landscape.linalg import eigenpairs
from landscape.linalg.krylov.value_bounds import value_bounds

CACHE = {name: conjugated(values) for name, values in SPECTRA.items()}


def solve(matrix, **options):
    return eigenpairs(lambda v: v @ matrix, len(matrix), dtype=matrix.dtype, **options)


def shortfall(pairs, truth):
    """How far the eigenvalues, in decreasing order, are beyond the values found for them."""
    top = pairs.ends().count("largest")
    return np.r_[truth[:top] - pairs.values[:top], pairs.values[top:] - truth[len(truth) - len(pairs) + top :]]


def ritz(matrix, space):
    """Ritz values of a space in decreasing order, with the residuals of their vectors, by dense algebra."""
    q, _ = np.linalg.qr(space)
    values, turn = np.linalg.eigh(q.T @ matrix @ q)
    vectors = q @ turn
    return values[::-1], np.linalg.norm(matrix @ vectors - vectors * values, axis=0)[::-1]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(-4, 0))
def test_the_bound_holds_wherever_no_eigenvalue_was_missed(seed, wanted, noise):
    """Any space, not only a Krylov space; a case in which an eigenvalue was missed is known by the dense spectrum."""
    rng = np.random.default_rng(seed)
    truth = np.sort(np.r_[rng.exponential(1.0, 8), rng.standard_normal(32) * 0.1])[::-1]
    matrix = np.diag(truth)
    space = np.eye(40)[:, :10] + 10.0**noise * rng.standard_normal((40, 10))
    values, residuals = ritz(matrix, space)
    bounds = value_bounds(values, residuals, wanted)
    assert (values[:wanted] <= truth[:wanted] + 1e-12).all()
    for i in range(wanted):
        proven = [
            (residuals[:j] ** 2 / (values[:j] - values[j] - residuals[j])).sum()
            for j in range(i + 1, 10)
            if truth[j] <= values[j] + residuals[j] < values[j - 1]
        ]
        if proven:  # with the condition of the docstring, seen in the dense spectrum
            assert truth[i] - values[i] <= min(proven) + 1e-12
    if (truth[:10] <= values + residuals).all():
        assert (truth[:wanted] - values[:wanted] <= bounds + 1e-12).all()


def test_one_vector_has_the_bound_of_temple_and_it_is_reached():
    """A vector of two eigenvectors: lambda_1 - theta = r^2 / (theta - lambda_2) exactly."""
    turn = 0.3
    theta = 5 * np.cos(turn) ** 2 + 2 * np.sin(turn) ** 2
    residual = 3 * np.sin(turn) * np.cos(turn)
    assert value_bounds(np.array([theta, 2.0]), np.array([residual, 0.0]), 1)[0] == pytest.approx(5 - theta)


def test_without_a_gap_the_residual_is_the_bound_and_a_wide_gap_can_be_made_to_count_less():
    values, residuals = np.array([3.0, 2.9, 1.0]), np.array([0.01, 0.2, 2.5])
    np.testing.assert_allclose(value_bounds(values, residuals, 2), [0.01, np.hypot(0.01, 0.2)])
    values, residuals = np.array([3.0, 1.0]), np.array([0.1, 0.0])
    assert value_bounds(values, residuals, 1)[0] == pytest.approx(0.01 / 2)
    assert value_bounds(values, residuals, 1, widest=0.5)[0] == pytest.approx(0.01 / 0.5)


@pytest.mark.parametrize("value_tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(
    ("name", "which"),
    [(name, "largest") for name in SPECTRA if name not in ("negative", "even", "far apart")]
    + [(name, "smallest") for name in ("negative", "rank three", "zero", "identity", "two values")]
    + [(name, "both") for name in ("rank three", "two values", "identity")],
)
def test_values_are_within_their_bounds_of_the_chosen_spectrum(name, which, value_tol):
    """Clusters, multiple values, both signs: the error is one-sided, within the bound, and the bound within the tolerance.

    Left out are wanted values in a dense bulk, for which see below.
    """
    truth = np.sort(SPECTRA[name])[::-1]
    scale = np.abs(truth).max()
    pairs = solve(CACHE[name], k=3, which=which, value_tol=value_tol, max_matvecs=4000)
    short = shortfall(pairs, truth)
    assert pairs.converged.all()
    assert (pairs.bounds <= value_tol * scale).all()
    assert (short >= -1e-12 * scale).all()
    assert (short <= pairs.bounds + 1e-12 * scale).all()


@pytest.mark.parametrize("name", ["like a Hessian", "even", "fivefold top", "far apart"])
def test_at_the_end_of_a_dense_bulk_values_are_missed_and_the_tolerance_is_all_that_holds(name):
    """The condition of the bound: a Ritz value there is a mixture, with a residual that is smaller than its error."""
    truth = np.sort(SPECTRA[name])[::-1]
    pairs = solve(CACHE[name], k=3, which="smallest", value_tol=1e-2)
    short = shortfall(pairs, truth)
    assert (short > pairs.bounds).any()
    assert (short <= 1.5e-2 * np.abs(truth).max()).all()


def test_the_dense_hessian_of_a_network_has_its_values_within_the_bounds():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    x, y = torch.randn(60, 6, dtype=torch.float64), torch.randint(0, 3, (60,))
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)

    def mean_loss(theta):
        parts = theta.split([s.numel() for s in shapes])
        weights = {n: t.view(s) for n, t, s in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, weights, (x,)), y)

    theta = torch.cat([p.detach().flatten() for p in net.parameters()])
    truth = torch.linalg.eigvalsh(torch.autograd.functional.hessian(mean_loss, theta)).flip(0).numpy()
    for which, expected in (("largest", truth[:5]), ("smallest", truth[-5:])):
        for value_tol in (1e-3, 1e-6):
            pairs = ls.eigenpairs(objective, 5, which, value_tol=value_tol)
            short = (expected - pairs.values) * (1 if which == "largest" else -1)
            assert pairs.converged.all()
            assert (short >= -1e-12).all()
            assert (short <= pairs.bounds + 1e-12).all()
            assert pairs.bounds.max() <= value_tol * np.abs(truth).max()


def test_more_digits_of_values_take_fewer_products_than_those_of_pairs():
    matrix = CACHE["like a Hessian"].float()
    for k, share in ((1, 0.9), (5, 0.75)):
        pairs, values = solve(matrix, k=k, tol=1e-5), solve(matrix, k=k, value_tol=1e-5)
        assert values.matvecs <= share * pairs.matvecs
        np.testing.assert_allclose(values.values, SPECTRA["like a Hessian"][:k], atol=1e-4)


def test_true_residuals_come_with_the_bounds():
    matrix = CACHE["like a Hessian"]
    pairs = solve(matrix, k=4, value_tol=1e-3)
    true = (pairs.vectors @ matrix - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1).numpy()
    np.testing.assert_allclose(pairs.residuals, true, atol=1e-12)


@pytest.mark.parametrize("budget", [6, 9, 14])
def test_what_the_budget_did_not_reach_is_said_with_its_bound(budget):
    pairs = solve(CACHE["even"], k=2, value_tol=1e-6, max_matvecs=budget)
    assert pairs.matvecs <= budget
    assert not pairs.converged.any()
    assert f"bound {pairs.bounds[0]:.2e} after {pairs.matvecs} products" in pairs.estimate(0).reason


def test_an_operator_that_is_formed_has_bounds_of_rounding():
    pairs = solve(conjugated(np.arange(20.0)), k=3, value_tol=1e-3)
    assert pairs.bounds.max() < 1e-12
    np.testing.assert_allclose(pairs.values, [19, 18, 17], atol=1e-12)


def test_bounds_are_written_read_and_printed():
    pairs = solve(CACHE["like a Hessian"], k=2, value_tol=1e-3)
    again = ls.results.Eigenpairs.from_json(pairs.to_json())
    np.testing.assert_array_equal(again.bounds, pairs.bounds)
    assert "bound" in str(pairs)
    assert pairs.records()[0]["bound"] == pairs.bounds[0]
    plain = solve(CACHE["like a Hessian"], k=2)
    assert plain.bounds is None
    assert "bounds" not in plain.to_json()


@pytest.mark.parametrize("value_tol", [0.0, 1.0, 1e-7, float("nan")])
def test_a_tolerance_below_rounding_is_refused(value_tol):
    with pytest.raises(UsageError, match=r"expected 1.2e-06 <= value_tol < 1, found .*; use dtype float64"):
        inspect.unwrap(eigenpairs)(lambda v: v, 3, value_tol=value_tol)
