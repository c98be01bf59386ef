"""The trace to an accuracy: it is reached, its interval covers, and it takes far fewer products than Hutchinson's."""

import numpy as np
import pytest
import torch
from scipy.fft import dct, idct
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.results import Estimate

P = 3000
# A few outliers, a decaying bulk and a negative tail, as trained classifiers have.
VALUES = np.concatenate(
    ([180, 96, 68, 54, 40, 31, 21, 18, 15, 13], 9 / np.arange(1, 120) ** 0.7, np.full(800, 0.2), -2 / np.arange(1, 60))
)


def operator(values: np.ndarray, dim: int, seed: int = 0):
    """Q diag(values, 0...) Qᵀ with Q a cosine transform of random signs: no eigenvector is near an axis."""
    random = np.random.default_rng(seed)
    signs = random.choice([-1.0, 1.0], dim)
    spectrum = random.permutation(np.concatenate((values, np.zeros(dim - len(values)))))
    count = [0]

    def matvec(v: Tensor) -> Tensor:
        count[0] += len(v)
        turned = idct(dct(v.numpy() * signs, norm="ortho") * spectrum, norm="ortho") * signs
        return torch.from_numpy(turned)

    return matvec, count, float(spectrum.sum())


def run(matvec, seed: int, **options: object) -> Estimate:
    g = torch.Generator().manual_seed(seed)
    return linalg.trace_within(matvec, P, generator=g, dtype=torch.float64, **options)


def half_width(estimate: Estimate) -> float:
    low, high = estimate.interval()
    return (high - low) / 2


def test_the_interval_is_as_narrow_as_asked_and_covers() -> None:
    matvec, count, truth = operator(VALUES, P)
    hits, taken = [], []
    for seed in range(120):
        count[0] = 0
        found = run(matvec, seed)
        low, high = found.interval()
        assert found.converged
        assert half_width(found) <= 1.25 * 0.05 * found.value
        hits.append(low <= truth <= high)
        taken.append(count[0])
    assert np.mean(hits) >= 0.92  # a conservative deviation: up to 0.98
    hutchinson = 2 * np.square(VALUES).sum() * (1.96 / (0.05 * truth)) ** 2
    assert np.mean(taken) < hutchinson / 3


def test_a_spectrum_without_outliers_takes_more_probes() -> None:
    matvec, count, truth = operator(np.linspace(0.5, 1.5, 2500), P)
    found = run(matvec, 0, relative_error=0.01)
    assert found.n > 20
    assert count[0] <= found.n + 10  # hardly any step of Lanczos: there is nothing to take out
    assert abs(found.value - truth) < 3 * 0.01 * truth
    assert half_width(found) <= 1.25 * 0.01 * found.value
    assert found.converged


def test_blocks_change_nothing_but_the_last_bits() -> None:
    matvec, _, _ = operator(np.linspace(0.5, 1.5, 2500), P)
    a, b = run(matvec, 1, relative_error=0.01), run(matvec, 1, relative_error=0.01, block=3)
    assert (a.n, a.value) == (b.n, pytest.approx(b.value, rel=1e-9))


def test_a_small_matrix_is_exact_and_few_eigenvalues_too() -> None:
    diagonal = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64)
    found = linalg.trace_within(lambda v: diagonal * v, 3, dtype=torch.float64)
    assert (found.kind, found.value) == ("exact", pytest.approx(2.0))
    matvec, _, truth = operator(np.array([100.0, 10.0]), P)
    assert run(matvec, 0).value == pytest.approx(truth, rel=1e-9)


def test_what_cannot_be_reached_says_so() -> None:
    both = np.concatenate((np.linspace(1, 2, 1000), -np.linspace(1, 2, 1000) * 0.9999))
    matvec, count, _ = operator(both, P)
    found = run(matvec, 0, max_matvecs=40)
    assert count[0] <= 40
    assert not found.converged
    assert "half-width" in found.reason


@pytest.mark.parametrize("options", [{"relative_error": 0.0}, {"relative_error": float("nan")}, {"max_matvecs": 5}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        run(lambda v: v, 0, **options)
