"""Counted and checked products with a symmetric operator, and dense kernels that all solvers here share."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from landscape.errors import NumericalError, UsageError

MatVec = Callable[[Tensor], Tensor]
"""A symmetric operator: maps a block (k, P), one vector in each row, to the block of its k products."""

# Columns processed at a time in float64; bounds the temporary copy of a block to 8 * rows * CHUNK bytes.
CHUNK = 1 << 17
# Values whose squares are summed at a time in float32.
PIECE = 1 << 7


class Products:
    """The operator as the solvers call it: counts products, checks shape and finiteness, and detaches from autograd.

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        dtype, device: of the vectors.
        advance: called with the number of new products after each call (see `landscape.machine.progress.stage`).
    """

    def __init__(
        self,
        matvec: MatVec,
        dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        if dim < 1:
            raise UsageError(f"expected dim >= 1, found {dim}", fix="pass the number of parameters")
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(
                f"expected dtype float32 or float64, found {dtype}", fix="curvature needs at least float32 arithmetic"
            )
        self.matvec, self.dim, self.dtype, self.device = matvec, dim, dtype, device
        self.advance = advance
        self.count = 0

    def __call__(self, block: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        product = self.matvec(block)
        if product.shape != block.shape:
            raise UsageError(
                f"expected products of shape {tuple(block.shape)}, found {tuple(product.shape)}",
                fix="matvec must map a block (k, P) to a block (k, P)",
            )
        product = product.detach().to(device=self.device, dtype=self.dtype)
        finite = torch.ones(len(product), dtype=torch.bool, device=product.device)
        for i, row in enumerate(product):
            finite[i] = _all_finite(row)
        if not bool(finite.all()):
            number = self.count + int((~finite).nonzero()[0, 0]) + 1
            raise NumericalError(
                f"expected finite products, found a value that is not finite in product {number}",
                fix="check the loss and its derivatives at these weights, or use dtype float64",
            )
        self.count += len(block)
        if self.advance is not None:
            self.advance(len(block))
        return product


def column_chunks(dim: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices that cover `dim` columns, `size` at a time."""
    return (slice(i, min(i + size, dim)) for i in range(0, dim, size))


def inner_products(rows: Float[Tensor, "m P"], w: Float[Tensor, " P"]) -> Float[Tensor, " m"]:
    """rows @ w in float64, summed over short pieces in the dtype of the rows.

    A float32 GEMV on the CPU sums a row almost sequentially: at P = 2e6 its relative error is 1e-4, and that of the eigenvalues
    would be the same. A GPU sums in a tree and allows longer pieces, which saves kernel launches.
    """
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for columns in column_chunks(len(w), 1 << 13 if rows.device.type == "cpu" else 1 << 17):
        total += torch.mv(rows[:, columns], w[columns])
    return total


def gram(a: Num[Tensor, "j P"], b: Float[Tensor, "k P"]) -> np.ndarray:
    """A Bᵀ as a (j, k) float64 array, accumulated in float64 for any dtype of the rows."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for columns in column_chunks(a.shape[1]):
        total += a[:, columns].double() @ b[:, columns].double().T
    return total.cpu().numpy()


def rotate_rows(rows: Float[Tensor, "m P"], coefficients: np.ndarray) -> None:
    """Overwrite the first k rows by coefficientsᵀ @ rows, in float64 and without a second copy of the block.

    float64 also avoids reduced-precision matrix multiplication (TF32), whatever the global flags.
    """
    size, kept = coefficients.shape
    turn = torch.from_numpy(np.array(coefficients.T, order="C")).to(rows.device)
    for columns in column_chunks(rows.shape[1]):
        rows[:kept, columns] = (turn @ rows[:size, columns].double()).to(rows.dtype)


def norm(w: Float[Tensor, " P"]) -> float:
    """Euclidean norm, accumulated in float64; of float32 on the CPU, from norms of short pieces (relative error 1e-7).

    PyTorch's own norm in float64 converts a float32 vector on one core, and takes six times as long. It is left the short
    vectors, and those with squares that float32 cannot hold.
    """
    pieces = len(w) // PIECE * PIECE
    if w.dtype != torch.float32 or len(w) < CHUNK or w.device.type != "cpu":
        return float(torch.linalg.vector_norm(w, dtype=torch.float64))
    lengths = torch.linalg.vector_norm(w[:pieces].reshape(-1, PIECE), dim=1)
    length = math.hypot(*(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in (lengths, w[pieces:])))
    return length if 1e-12 < length < 1e18 else float(torch.linalg.vector_norm(w, dtype=torch.float64))


def _all_finite(row: Float[Tensor, " P"]) -> bool:
    """Whether no value is infinite or NaN, by one pass without a copy: both extremes carry a NaN on. An empty row has none."""
    if row.numel() == 0:
        return True
    low, high = torch.aminmax(row)
    return bool(low.isfinite() & high.isfinite())
