"""Small matrices are decomposed on one thread, and the numbers are those of NumPy."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from landscape.linalg import small_matrices


def _symmetric(n: int, *batch: int) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((*batch, n, n))
    return drawn + np.swapaxes(drawn, -1, -2)


def _threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("shape", [(1,), (30,), (7, 4)])
def test_values_and_vectors(shape: tuple[int, ...]) -> None:
    matrix = _symmetric(shape[-1], *shape[:-1])
    values, vectors = small_matrices.eigh(matrix)
    np.testing.assert_allclose(matrix @ vectors, vectors * values[..., None, :], atol=1e-12)
    np.testing.assert_allclose(small_matrices.eigvalsh(matrix), values, atol=1e-12)


def test_of_tensors_in_float64() -> None:
    matrices = torch.from_numpy(_symmetric(5, 3)).float()
    values, vectors = small_matrices.eigh_each(matrices)
    assert values.dtype == vectors.dtype == torch.float64
    torch.testing.assert_close(matrices.double() @ vectors, vectors * values[:, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["eigh", "eigvalsh"])
@pytest.mark.parametrize(("rows", "inside"), [(30, 1), (small_matrices.MOST + 1, 2)])
def test_on_one_thread_and_as_many_as_before_after_it(
    name: str, rows: int, inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = getattr(np.linalg, name)
    monkeypatch.setattr(np.linalg, name, lambda matrix: (seen.extend(_threads()), plain(matrix))[1])
    with threadpool_limits(2, user_api="blas"):
        getattr(small_matrices, name)(np.eye(rows))
        assert set(seen) == {inside}
        assert set(_threads()) == {2}
