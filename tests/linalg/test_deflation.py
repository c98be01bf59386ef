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
    found = run(matvec, 0, relative_error=0.008)
    assert found.n > 12
    assert count[0] <= found.n + 10  # hardly any step of Lanczos: there is nothing to take out
    assert abs(found.value - truth) < 3 * 0.008 * truth
    assert half_width(found) <= 1.25 * 0.008 * found.value
    assert found.converged


def test_blocks_change_nothing_but_the_last_bits() -> None:
    matvec, _, _ = operator(np.linspace(0.5, 1.5, 2500), P)
    a, b = run(matvec, 1, relative_error=0.01), run(matvec, 1, relative_error=0.01, block=3)
    assert (a.n, a.value) == (b.n, pytest.approx(b.value, rel=1e-9))


def outliers(count: int, size: float, dim: int = 400) -> Tensor:
    """I + size U Uᵀ with `count` orthonormal columns U: the shift is most of ||A z||², the outliers most of the variance."""
    u = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, count)))[0]
    return torch.from_numpy(np.eye(dim) + size * u @ u.T)


def spread_of(matrix: Tensor, seeds: int, relative_error: float) -> dict[str, np.ndarray]:
    """Whether the interval covers, and the relative error, of every seed: of all, with Lanczos and without."""
    truth, rows = float(matrix.trace()), []
    for seed in range(seeds):
        g = torch.Generator().manual_seed(seed)
        found = linalg.trace_within(
            lambda v: v @ matrix, len(matrix), relative_error=relative_error, generator=g, dtype=torch.float64
        )
        low, high = found.interval()
        rows.append((low - 1e-9 <= truth <= high + 1e-9, found.value / truth - 1, "Lanczos" in found.reason))
    table = np.array(rows, float)
    lanczos = table[:, 2] == 1
    return {"all": table, "Lanczos": table[lanczos], "probes": table[~lanczos]}


@pytest.mark.parametrize(("count", "size", "goal"), [(1, 30, 0.05), (1, 120, 0.2), (20, 6, 0.03)])
def test_outliers_beneath_a_shift_are_not_missed(count: int, size: float, goal: float) -> None:
    found = spread_of(outliers(count, size), 60, goal)["all"]
    assert found[:, 0].mean() >= 0.9
    assert abs(found[:, 1].mean()) <= 4 * found[:, 1].std() / np.sqrt(len(found)) + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "size", "goal"),
    [(1, 30, 0.05), (1, 40, 0.05), (1, 50, 0.1), (1, 90, 0.2), (1, 120, 0.2), (3, 15, 0.03), (8, 12, 0.03), (20, 6, 0.03)],
)
def test_the_interval_covers_whichever_way_was_taken(count: int, size: float, goal: float) -> None:
    for way, found in spread_of(outliers(count, size), 300, goal).items():
        if len(found) < 50:
            continue
        # 3 standard errors below 0.95 are what sampling allows where a way is taken seldom.
        assert found[:, 0].mean() >= min(0.93, 0.95 - 3 * np.sqrt(0.95 * 0.05 / len(found))), way
        assert abs(found[:, 1].mean()) <= 3.5 * found[:, 1].std() / np.sqrt(len(found)) + 1e-4, way


def part(dim: int = 120) -> tuple[linalg.Known, Tensor]:
    """A known part of both signs, and the same as a dense matrix, from sums that share no code with it."""
    random = np.random.default_rng(2)
    rows, signs = random.standard_normal((5, dim)), np.array([1.0, 1.0, -1.0, 1.0, -1.0])
    dense = sum(s * np.outer(r, r) for s, r in zip(signs, rows, strict=True))
    return linalg.Known(torch.from_numpy(rows), torch.from_numpy(signs)), torch.from_numpy(dense)


def test_a_known_part_is_its_dense_matrix() -> None:
    known, dense = part()
    v = torch.from_numpy(np.random.default_rng(3).standard_normal((4, len(dense))))
    torch.testing.assert_close(known.product(v), v @ dense, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(known.diagonal, dense.diagonal(), rtol=1e-10, atol=1e-10)
    assert known.trace == pytest.approx(float(dense.trace()), rel=1e-10)


def test_a_known_part_leaves_the_trace_what_it_is() -> None:
    """The rest is nearly diagonal, so that each estimate is within 1 % and their mean within 0.1 %: a wrong part is seen."""
    known, dense = part()
    noise = np.random.default_rng(4).standard_normal(dense.shape)
    matrix = dense + torch.from_numpy(np.diag(np.linspace(0.5, 1.5, len(dense))) + 0.02 * (noise + noise.T))
    truth, values, hits = float(matrix.trace()), [], []
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        found = linalg.trace_within(
            lambda v: v @ matrix, len(dense), relative_error=0.02, known=known, generator=g, dtype=torch.float64
        )
        low, high = found.interval()
        values.append(found.value)
        hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.9
    assert abs(np.mean(values) - truth) <= 4 * np.std(values) / 10
    assert np.std(values) / 10 <= 1e-3 * truth


def test_n_is_the_number_of_probes() -> None:
    matvec, count, _ = operator(np.linspace(0.5, 1.5, 2500), P)
    found = run(matvec, 0, relative_error=0.005)
    assert found.reason == f"{found.n} probes"
    assert found.n == count[0]


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
