"""Largest eigenvalues of diagonal blocks against dense ones."""

import numpy as np
import pytest
import torch

from landscape.errors import UsageError
from landscape.linalg import block_eigenvalues


def symmetric(seed: int, n: int = 60) -> torch.Tensor:
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (a + a.T) / 2


@pytest.mark.parametrize("together", [1, 3, 8])
def test_blocks_of_any_size_and_place(together):
    matrix = symmetric(0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    blocks = [order[:1], order[1:4], order[4:20], order[20:60], order[:30]]
    found = block_eigenvalues(
        lambda v: v @ matrix, 60, blocks, tol=1e-8, together=together, dtype=torch.float64
    )  # fmt: skip
    for block, estimate in zip(blocks, found, strict=True):
        own = matrix[block][:, block].numpy()
        truth = np.linalg.eigvalsh(own)[-1]
        assert estimate.converged
        assert estimate.kind == "residual"
        assert abs(estimate.value - truth) <= max(estimate.stderr, 1e-10)
        assert estimate.value == pytest.approx(truth, rel=1e-7)


def test_a_block_does_not_depend_on_its_company():
    matrix = symmetric(2)
    blocks = [torch.arange(i, i + 10) for i in range(0, 60, 10)]
    alone = block_eigenvalues(lambda v: v @ matrix, 60, blocks, together=1, dtype=torch.float64)
    company = block_eigenvalues(lambda v: v @ matrix, 60, blocks, together=4, dtype=torch.float64)
    assert [e.value for e in alone] == pytest.approx([e.value for e in company], rel=1e-12)


def test_zero_negative_and_noisy_blocks():
    """A dead neuron's block is zero, but its products have the rounding of the rest."""
    diagonal = torch.cat([torch.zeros(5), torch.full((5,), -3.0), torch.linspace(1, 2, 5)])
    noise = torch.Generator().manual_seed(0)

    def matvec(v):
        return v * diagonal + 1e-7 * torch.randn(v.shape, generator=noise)

    dead, negative, last = block_eigenvalues(matvec, 15, [torch.arange(i, i + 5) for i in (0, 5, 10)])
    assert abs(dead.value) < 1e-5
    assert dead.converged
    assert negative.value == pytest.approx(-3, rel=1e-3)
    assert last.value == pytest.approx(2, rel=1e-3)


def test_it_stops_early_where_it_can():
    matrix = torch.diag(
        torch.cat([torch.tensor([100.0]), torch.rand(199, generator=torch.Generator().manual_seed(0))])
    ).double()
    (found,) = block_eigenvalues(lambda v: v @ matrix, 200, [torch.arange(200)], dtype=torch.float64)
    assert found.n < 12


def test_an_empty_block_is_refused():
    with pytest.raises(UsageError, match="found an empty one"):
        block_eigenvalues(lambda v: v, 3, [torch.arange(0)])
