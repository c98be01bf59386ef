import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import conjugated

from landscape.errors import NumericalError, UsageError
from landscape.linalg import lanczos
from landscape.linalg.products import Products


def tridiagonal(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)


def run(matrix, **options):
    return lanczos(lambda v: v @ matrix, len(matrix), dtype=matrix.dtype, **options)


def test_recurrence_holds_to_rounding():
    matrix = conjugated(np.linspace(-2, 3, 60))
    alpha, beta, basis = run(matrix, steps=25)
    left = (basis @ matrix).numpy()
    right = tridiagonal(alpha, beta) @ basis.numpy()
    np.testing.assert_allclose(left[:-1], right[:-1], atol=1e-12)
    assert np.linalg.norm(left[-1] - right[-1]) == pytest.approx(beta[-1], rel=1e-10)
    np.testing.assert_allclose(basis @ basis.T, np.eye(25), atol=1e-13)


def test_no_ghosts_long_after_the_top_has_converged():
    values = np.r_[100.0, 50.0, np.linspace(0, 1, 198)]
    alpha, beta, basis = run(conjugated(values).float(), steps=120)
    ritz = np.linalg.eigvalsh(tridiagonal(alpha, beta))
    assert (ritz > 2).sum() == 2
    np.testing.assert_allclose(basis @ basis.T, np.eye(120), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_more_steps_than_dimensions_give_the_whole_spectrum(dim, dtype):
    values = np.arange(dim) - 1.0
    alpha, beta, basis = run(conjugated(values).to(dtype), steps=50)
    assert basis.shape == (dim, dim)
    assert beta[-1] == 0
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), values, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_multiple_of_the_identity_breaks_down_at_every_step(value):
    alpha, beta, basis = lanczos(lambda v: value * v, 30, steps=10)
    np.testing.assert_allclose(alpha, value, rtol=1e-6)
    assert not beta.any()
    np.testing.assert_allclose(basis @ basis.T, np.eye(10), atol=1e-6)


def test_breakdown_recovers_the_multiplicities():
    values = np.r_[[2.0] * 3, [-1.0] * 4, [0.0] * 5]
    alpha, beta, _ = run(conjugated(values), steps=12)
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), np.sort(values), atol=1e-12)


def test_locked_vectors_are_deflated():
    values = np.r_[10.0, 9.0, np.linspace(0, 1, 38)]
    matrix = conjugated(values)
    top = torch.from_numpy(np.linalg.eigh(matrix.numpy())[1][:, -2:].T.copy())
    alpha, beta, basis = run(matrix, steps=50, locked=3.0 * top)
    assert len(basis) == 38
    assert (basis @ top.T).abs().max() < 1e-13
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), np.linspace(0, 1, 38), atol=1e-12)


def test_start_is_the_first_row_and_stays_as_it_was():
    start = torch.arange(1.0, 21.0, dtype=torch.float64)
    kept = start.clone()
    _, _, basis = run(conjugated(np.linspace(0, 1, 20)), steps=3, start=start)
    np.testing.assert_allclose(basis[0], kept / kept.norm(), rtol=1e-14)
    assert torch.equal(start, kept)


def test_a_start_inside_the_locked_space_is_replaced():
    locked = torch.eye(6)[:2]
    _, _, basis = lanczos(lambda v: v * torch.arange(6.0), 6, steps=4, start=torch.tensor([1.0, 2, 0, 0, 0, 0]), locked=locked)
    assert (basis @ locked.T).abs().max() < 1e-6


def test_a_matvec_may_return_its_argument_or_a_buffer_of_its_own():
    buffer = torch.empty(1, 8)

    def reused(v):
        buffer.copy_(v * torch.arange(8.0))
        return buffer

    alpha, beta, _ = lanczos(reused, 8, steps=8)
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), np.arange(8), atol=1e-5)
    assert lanczos(lambda v: v, 8, steps=3).alpha == pytest.approx(1.0)


def test_a_matvec_may_use_autograd():
    weight = torch.arange(1.0, 6.0, requires_grad=True)
    alpha, beta, basis = lanczos(lambda v: weight * v, 5, steps=5)
    assert not basis.requires_grad
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), np.arange(1, 6), atol=1e-5)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    first = lanczos(lambda v: v * torch.arange(9.0), 9, steps=4)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.basis, lanczos(lambda v: v * torch.arange(9.0), 9, steps=4).basis)


def test_long_float32_vectors_stay_orthogonal():
    # A float32 GEMV sums a million entries with an error near 1e-4; the basis and the eigenvalues must not inherit it.
    dim = 1_000_000
    diagonal = torch.cat((torch.logspace(1, 0, 10), torch.linspace(-0.05, 0.05, dim - 10)))
    alpha, beta, basis = lanczos(lambda v: v * diagonal, dim, steps=15)
    wide = basis.double()
    assert (wide @ wide.T - torch.eye(15)).abs().max() < 2e-5
    assert np.linalg.eigvalsh(tridiagonal(alpha, beta))[-1] == pytest.approx(10, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(0, 5))
def test_any_integer_spectrum_is_found_whole(values, seed):
    matrix = conjugated(np.array(values, dtype=float), seed)
    alpha, beta, _ = run(matrix, steps=len(values), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(np.linalg.eigvalsh(tridiagonal(alpha, beta)), np.sort(values), atol=1e-11)


def test_a_product_that_is_not_finite_is_named():
    calls = []

    def matvec(v):
        calls.append(1)
        return v * (float("nan") if len(calls) == 4 else len(calls))

    with pytest.raises(NumericalError, match="expected finite products, found a value that is not finite in product 4"):
        lanczos(matvec, 10, steps=8, start=torch.ones(10))


def test_products_of_no_coordinates_are_finite():
    assert Products(lambda v: v, 1, torch.float32, "cpu")(torch.empty(2, 0)).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "expected steps >= 1, found 0"),
        ({"steps": 2, "start": torch.ones(4)}, r"expected start of shape \(3,\) or \(k, 3\), found \(4,\)"),
        ({"steps": 2, "start": torch.full((3,), float("inf"))}, "expected finite values in start"),
        ({"steps": 2, "locked": torch.eye(3)}, "expected fewer than 3 independent locked vectors, found 3"),
        ({"steps": 2, "dtype": torch.bfloat16}, "expected dtype float32 or float64, found torch.bfloat16"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UsageError, match=message):
        lanczos(lambda v: v, 3, **options)


def test_a_matvec_of_the_wrong_shape():
    with pytest.raises(UsageError, match=r"expected products of shape \(1, 3\), found \(3,\)"):
        lanczos(lambda v: v[0], 3, steps=1)
    with pytest.raises(UsageError, match="expected dim >= 1, found 0"):
        lanczos(lambda v: v, 0, steps=1)
