"""The Lanczos recurrence with full reorthogonalization, and the Krylov basis that all Lanczos methods here use."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator, random_rows
from landscape.linalg.products import MatVec, Products, norm
from landscape.linalg.vector_store import Place, Rows, orthonormal_rows


class KrylovBasis:
    """Orthonormal rows V, extended one product at a time, with the projection V H Vᵀ of the operator.

    Rows [locked, locked + size) have been multiplied; the next row, if any, has not. New rows are kept orthogonal to locked
    rows, which are otherwise unused. The projection contains all Gram-Schmidt coefficients, not only the two that are nonzero
    in exact arithmetic, so it is the true Rayleigh quotient after a restart from any rows.

    Args:
        capacity: rows to allocate besides the locked ones: the largest `size`, plus one if a full basis must keep its next row.
        locked: (l, P) orthonormal rows.
        place: where the rows are stored.
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
        device: torch.device | str,
        locked: Float[Tensor, "l P"] | None = None,
        place: Place | None = None,
    ) -> None:
        self.locked = 0 if locked is None else len(locked)
        self.dim, self.generator = dim, generator
        self.dtype, self.device = dtype, device
        self.store = Rows(self.locked + capacity, dim, dtype, device, place)
        if locked is not None:
            self.store[: self.locked] = self.store.part(locked)
        self.projection = np.zeros((capacity, capacity))
        self.size = 0
        self.beta = 0.0
        self.scale = 0.0

    @property
    def rows(self) -> Float[Tensor, "size P"]:
        """The rows whose product is known; a view if they are on the device."""
        return self.store[self.locked : self.locked + self.size]

    @property
    def diagonal(self) -> Float[np.ndarray, " size"]:
        """The diagonal of the projection: in a run without a restart the coefficients alpha."""
        return np.diag(self.projection)[: self.size].copy()

    def combine(self, coefficients: np.ndarray) -> Float[Tensor, "*k P"]:
        """coefficients @ rows; coefficients (size,) or (k, size)."""
        return self.store.combine(self.locked, coefficients)

    @property
    def exhausted(self) -> bool:
        """Whether the rows span the whole space."""
        return self.locked + self.size >= self.dim

    @property
    def next_row(self) -> Float[Tensor, "1 P"]:
        """The row to multiply next, as a block of one."""
        end = self.locked + self.size
        return self.store[end : end + 1]

    def begin(self, start: Float[Tensor, " P"] | None) -> None:
        """Set the next row to the part of `start` orthogonal to all rows; to a random one if that part is zero."""
        end = self.locked + self.size
        if start is not None:
            length = norm(start)
            w = self.store.part(start)
            if length > 0:
                w, _ = self.store.orthogonalize(w / length, end)
            rest = self.store.norm(w)
            if rest > 100 * torch.finfo(w.dtype).eps:
                w, _ = self.store.orthogonalize(w / rest, end)
                self.store[end] = w / self.store.norm(w)
                return
        self._random_next()

    def absorb(self, product: Float[Tensor, " P"]) -> float:
        """Add the product of the next row; returns beta, the norm of its new component, 0 if the rows became invariant."""
        end = self.locked + self.size + 1
        w, coefficients = self.store.orthogonalize(self.store.part(product), end)
        column = coefficients[self.locked :].cpu().numpy()
        self.projection[: self.size + 1, self.size] = self.projection[self.size, : self.size + 1] = column
        self.size += 1
        beta = self.store.norm(w)
        self.scale = max(self.scale, float(np.hypot(np.linalg.norm(column), beta)))
        # A smaller remainder is rounding error of the product: the rows span an invariant subspace.
        self.beta = beta if beta > 10 * torch.finfo(w.dtype).eps * self.scale else 0.0
        if not self.exhausted and end < len(self.store):
            if self.beta > 0:
                self.store[end] = w / beta
            else:
                self._random_next()
        return self.beta

    def restart(self, coefficients: np.ndarray, values: np.ndarray) -> None:
        """Replace the rows by coefficientsᵀ @ rows, whose projection is diag(values); the next row is kept."""
        old, kept = coefficients.shape
        self.store.rotate(self.locked, coefficients)
        if not self.exhausted and self.locked + old < len(self.store):
            self.store.move(self.locked + old, self.locked + kept)
        self.reset(values)

    def reset(self, values: np.ndarray, vectors: Float[Tensor, "k P"] | None = None) -> None:
        """Set the first len(values) rows to `vectors` if given, and their projection to diag(values); drop the other rows."""
        if vectors is not None:
            self.store[self.locked : self.locked + len(vectors)] = self.store.part(vectors)
        self.size = len(values)
        self.projection[:] = 0
        self.projection[np.diag_indices(self.size)] = values

    def _random_next(self) -> None:
        """A random next row orthogonal to all rows."""
        end = self.locked + self.size
        while True:
            w = self.store.part(random_rows(1, self.store.width, "gaussian", self.generator, self.dtype, self.device)[0])
            for _ in range(2):  # in a nearly exhausted space the first pass cancels most digits
                w, _ = self.store.orthogonalize(w / self.store.norm(w), end)
            # With one dimension left the draw may lie almost inside the span: draw again instead of keeping rounding error.
            length = self.store.norm(w)
            if length > 0.5:
                self.store[end] = w / length
                return


class Lanczos(NamedTuple):
    """Q H Qᵀ = tridiag(beta[:-1], alpha, beta[:-1]) with orthonormal rows Q.

    Attributes:
        alpha: (m,) float64 diagonal.
        beta: (m,) float64 norms of the remainders: beta[j] couples rows j and j + 1 and is 0 at a breakdown; the last is the
            norm of the component outside the basis.
        basis: (m, P) orthonormal rows.
    """

    alpha: np.ndarray
    beta: np.ndarray
    basis: Tensor


def lanczos(
    matvec: MatVec,
    dim: int,
    *,
    steps: int,
    start: Float[Tensor, " P"] | None = None,
    locked: Float[Tensor, "l P"] | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    place: Place | None = None,
) -> Lanczos:
    """Lanczos tridiagonalization of a symmetric operator, with full reorthogonalization.

    H qⱼ = βⱼ₋₁ qⱼ₋₁ + αⱼ qⱼ + βⱼ qⱼ₊₁ with orthonormal q. When the rows span an invariant subspace (βⱼ = 0: few distinct
    eigenvalues, zero operator, identity), the recurrence continues with a random vector orthogonal to them, so that always m =
    min(steps, P - l) steps are made; T is then block diagonal.

    Args:
        matvec: maps (k, P) to (k, P); called here with k = 1.
        dim: P.
        steps: m, the number of products.
        start: (P,) first vector, of any length; random if None.
        locked: (l, P) vectors to stay orthogonal to; T is then that of (I - LᵀL) H (I - LᵀL).
        generator: of the start and of vectors after a breakdown; seed 0 if None.
        dtype, device: of the vectors.
        place: where the basis is stored; see `Place`.

    Returns:
        alpha, beta, basis; see `Lanczos`.

    Raises:
        UsageError: steps < 1, or start or locked has another shape or is not finite.
        NumericalError: a product is not finite.

    Cost: m products; memory (m + l) * P values; 8 * m² * P flops for the orthogonalization.

    Accuracy: the rows are orthonormal to rounding, so there are no ghost copies of converged eigenvalues.

    Reference: Lanczos 1950; Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13.

    Example:
        >>> diagonal = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
        >>> alpha, beta, basis = lanczos(lambda v: diagonal * v, 3, steps=10, dtype=torch.float64)
        >>> t = np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
        >>> np.linalg.eigvalsh(t).round(12).tolist()
        [1.0, 1.0, 3.0]
    """
    if steps < 1:
        raise UsageError(f"expected steps >= 1, found {steps}", fix="one step is one product")
    generator = default_generator(generator)
    products = Products(matvec, dim, dtype, device)
    if locked is not None:
        locked = orthonormal_rows(vectors_of(locked, dim, "locked", dtype, device))
        if len(locked) >= dim:
            raise UsageError(
                f"expected fewer than {dim} independent locked vectors, found {len(locked)}", fix="leave room for one step"
            )
    m = min(steps, dim - (0 if locked is None else len(locked)))
    krylov = KrylovBasis(m, dim, generator=generator, dtype=dtype, device=device, locked=locked, place=place)
    krylov.begin(None if start is None else vectors_of(start, dim, "start", dtype, device)[0])
    beta = np.array([krylov.absorb(products(krylov.next_row)[0]) for _ in range(m)])
    return Lanczos(np.diag(krylov.projection).copy(), beta, krylov.rows)


def vectors_of(given: Tensor, dim: int, name: str, dtype: torch.dtype, device: torch.device | str) -> Float[Tensor, "k P"]:
    """Check (P,) or (k, P) input and convert it to a finite block in the operator's dtype and on its device."""
    if given.ndim not in (1, 2) or given.shape[-1] != dim or given.numel() == 0:
        raise UsageError(
            f"expected {name} of shape ({dim},) or (k, {dim}), found {tuple(given.shape)}", fix="pass one vector in each row"
        )
    block = given.detach().reshape(-1, dim).to(device=device, dtype=dtype)
    if not bool(torch.isfinite(block).all()):
        raise UsageError(f"expected finite values in {name}, found others", fix=f"leave {name} out to start at random")
    return block
