"""Largest eigenvalues of many small diagonal blocks of one operator, several blocks in each product."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.probes import default_generator
from landscape.linalg.products import MatVec, Products
from landscape.linalg.small_matrices import eigh
from landscape.machine import progress
from landscape.results import Estimate

_LONGEST = 100


def block_eigenvalues(
    matvec: MatVec,
    dim: int,
    blocks: Sequence[Int[Tensor, "..."]],
    *,
    tol: float = 1e-3,
    together: int = 8,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> list[Estimate]:
    """Largest eigenvalue, in algebraic order, of each diagonal block H[b, b] of a symmetric operator.

    Each block has its own Lanczos run in its few coordinates; runs of different blocks are rows of one product. Two blocks
    cannot share a row, because the product of one block's vector has components in the other's coordinates.

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        blocks: (n,) coordinates of each block; they may overlap and differ in size.
        tol: relative residual at which a block is converged; a residual below the products' rounding error also suffices.
        together: blocks in one product; affects time and memory, and the result only by rounding.
        generator: of the start vectors; seed 0 if None.
        dtype, device: of the operator.

    Returns:
        One Estimate of kind "residual" for each block, with the true residual ||H_bb v - lambda v||.

    Raises:
        UsageError: a block is empty.
        NumericalError: a product is not finite.

    Cost: some 5 to 15 products for each block, at most its size plus one; memory 100 vectors of a block's size.

    Example:
        >>> diagonal = torch.tensor([5.0, 1.0, 2.0, 4.0])
        >>> estimates = block_eigenvalues(lambda v: diagonal * v, 4, [torch.tensor([0, 1]), torch.tensor([1, 2])])
        >>> [round(e.value, 5) for e in estimates]
        [5.0, 2.0]
    """
    if any(len(b) == 0 for b in blocks):
        raise UsageError("expected blocks of at least one coordinate, found an empty one")
    random = default_generator(generator)
    out: dict[int, Estimate] = {}
    noise = 0.0
    waiting, active = deque(range(len(blocks))), dict[int, _Run]()
    with progress.stage("blocks", len(blocks)) as advance:
        products = Products(matvec, dim, dtype, device)
        while waiting or active:
            while waiting and len(active) < together:
                i = waiting.popleft()
                # Each block has its own random stream, so that its start does not depend on the order of the blocks.
                stream = torch.Generator().manual_seed(random.initial_seed() + i)
                active[i] = _Run(len(blocks[i]), tol, stream, dtype, device)
            rows = torch.zeros(len(active), dim, dtype=dtype, device=device)
            for row, (i, run) in zip(rows, active.items(), strict=True):
                row[blocks[i]] = run.asked
            images = products(rows)
            noise = max(noise, 30 * torch.finfo(dtype).eps * float(torch.linalg.vector_norm(images, dim=1).max()))
            for row, i in zip(images, list(active), strict=True):
                estimate = active[i].take(row[blocks[i]], noise)
                if estimate is not None:
                    out[i] = estimate
                    del active[i]
                    advance(1)
    return [out[i] for i in range(len(blocks))]


class _Run:
    """Lanczos on one block, one product at a time; the last product is that of the Ritz vector, for its true residual."""

    def __init__(
        self, size: int, tol: float, generator: torch.Generator, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.basis = KrylovBasis(min(size, _LONGEST) + 1, size, generator=generator, dtype=dtype, device=device)
        self.basis.begin(None)
        self.tol, self.size, self.count = tol, size, 0
        self.ritz: tuple[float, Float[Tensor, " n"]] | None = None

    @property
    def asked(self) -> Float[Tensor, " n"]:
        """The vector to multiply next."""
        return self.basis.next_row[0] if self.ritz is None else self.ritz[1]

    def take(self, product: Float[Tensor, " n"], noise: float) -> Estimate | None:
        """Process a product; returns the estimate when done. A residual below the products' rounding error also suffices."""
        self.count += 1
        if self.ritz is not None:
            value, vector = self.ritz
            residual = float(torch.linalg.vector_norm((product - value * vector).double()))
            done = residual <= max(2 * self.tol * abs(value), noise) or self.count > self.size
            reason = None if done else f"relative residual {residual / (abs(value) or 1.0):.1e} after {self.count} products"
            return Estimate(value, residual, "residual", self.count, done, reason)
        beta = self.basis.absorb(product)
        m = self.basis.size
        values, vectors = eigh(self.basis.projection[:m, :m])
        last = beta * abs(vectors[-1, -1])
        if last <= max(self.tol * np.abs(values).max(), noise) or m >= min(self.size, _LONGEST):
            v = self.basis.combine(vectors[:, -1])
            self.ritz = float(values[-1]), v / torch.linalg.vector_norm(v)
        return None
