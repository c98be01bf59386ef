"""Extreme eigenpairs of a symmetric operator: thick-restart Lanczos with true residuals."""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import vectors_of
from landscape.linalg.krylov.thick_restart import ThickRestart, end_indices, rayleigh_ritz
from landscape.linalg.probes import default_generator
from landscape.linalg.products import MatVec, Products
from landscape.linalg.small_matrices import eigh
from landscape.linalg.vector_store import Place
from landscape.machine import progress
from landscape.results import Eigenpairs
from landscape.results.spectra.spectrum import Which


def eigenpairs(
    matvec: MatVec,
    dim: int,
    *,
    k: int = 1,
    which: Which = "largest",
    tol: float = 1e-4,
    value_tol: float | None = None,
    max_matvecs: int | None = None,
    basis_size: int | None = None,
    sweep: int | None = None,
    start: Float[Tensor, "..."] | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    place: Place | None = None,
) -> Eigenpairs:
    """The k largest or smallest eigenpairs of a symmetric operator, or both ends in one run.

    H v = λ v with ||v|| = 1. The order is algebraic, never by magnitude: λ_1 >= ... >= λ_P, "largest" is λ_1..λ_k and
    "smallest" is λ_{P-k+1}..λ_P. Values come in decreasing order, so the smallest eigenvalue is always `values[-1]` of
    "smallest" and of "both".

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        k: pairs to find at each end.
        which: "largest", "smallest", or "both": the k largest, then the k smallest. If 2k >= P, "both" returns all P pairs
            once.
        tol: a pair is converged when its true residual ||H v - λ v|| <= tol * max |λ|, the maximum over all Ritz values seen.
        value_tol: instead of `tol`: every value's error is to be <= value_tol * max |λ| by `Eigenpairs.bounds`, which go with
            the square of the residual; at least ten times the rounding of dtype (1.2e-6 in float32).
        max_matvecs: bound on all products, including those for the residuals; max(300, 50 * k) if None.
        basis_size: vectors in the Krylov basis before a restart; max(40, 2 * wanted + 16) if None. If P is at most this
            default, the matrix itself is formed, P products in one block, and the answer is exact.
        sweep: steps of the search for copies of multiple eigenvalues (see Accuracy), 0 disables it; default 8, or 4 for a
            tolerance of at least 1e-3.
        start: (P,) or (j, P): eigenvectors of a similar operator, for instance of the last training step; only a hint.
        generator: of the random vectors; seed 0 if None.
        dtype, device: of the operator.
        place: where the Krylov basis is stored; see `landscape.linalg.Place`.

    Returns:
        Eigenpairs. An eigenvalue of H lies within `residuals[i]` of `values[i]`. `converged` is based on true residuals: with a
        noisy matvec (float32), a tolerance below the noise is abandoned once the residuals stop halving, and reported as not
        converged.

    Raises:
        UsageError: k > P, or an option is out of range.
        NumericalError: a product is not finite; the message gives its number.

    Cost: Lanczos steps (one product each) until the residuals that the recurrence estimates are below tol, tested at every
    step; if k > 1, `sweep` more products, and two or more for each copy found; then one block of products for the true
    residuals. If tol is above 1000 times the rounding of dtype (1.2e-4 in float32) this block is omitted: Hv is the linear
    combination of earlier products that v is of the basis, equal up to rounding. Memory (basis_size + 1 + 3 * wanted) * P
    values; with a basis_size below its default (basis_size + 4) * P, the vectors of the result among them.

    Accuracy: a Krylov space contains one vector of each eigenspace, so a copy of a multiple eigenvalue can be missed. The
    sweep runs `sweep` Lanczos steps orthogonal to the pairs found, from a random vector and a part of what the search would do
    next; if a wanted value rises, it is converged and the sweep is repeated. A copy that is separated from the rest shows
    within a few steps; one within tol * max |λ| of a value already found does not change the values. Eigenvalues are Rayleigh
    quotients: their error is about residual² / gap. With `value_tol` it is bounded: the i-th largest eigenvalue lies in
    [values[i], values[i] + bounds[i]], of the smallest below. The near end is proven. The far one follows from the true
    residuals and the Ritz values beyond (`value_bounds` in linalg/krylov) if no eigenvalue was missed, which no residual can
    tell: no gap counts for more than 0.3 % of max |λ|, and if k > 1 the sweep looks for missed ones. Wanted values inside a
    dense bulk are missed. Rounding of the products comes on top. To 1e-2 or 1e-3 this takes as many products as `tol`, to 1e-5
    fewer.

    Reference: Wu and Simon 2000, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
    Appl. 22(2); Stewart 2001 (Krylov-Schur). Deviations: the full projection is kept instead of its arrow form, and the
    sweep.

    Example:
        >>> diagonal = torch.arange(1.0, 101.0)
        >>> pairs = eigenpairs(lambda v: diagonal * v, 100, k=2, which="both")
        >>> pairs.values.round(2).tolist()
        [100.0, 99.0, 2.0, 1.0]
    """
    if which not in get_args(Which):
        raise UsageError(
            f"expected which 'largest', 'smallest' or 'both', found {which!r}", fix="choose an end of the spectrum"
        )
    if not 1 <= k <= dim:
        raise UsageError(f"expected 1 <= k <= {dim} eigenpairs, found k={k}", fix=f"the operator has {dim}")
    by_value = value_tol is not None
    if value_tol is not None:
        least = 10 * torch.finfo(dtype).eps
        if not least <= value_tol < 1:
            raise UsageError(
                f"expected {least:.1e} <= value_tol < 1, found {value_tol}", fix="use dtype float64 for more digits of a value"
            )
        tol = value_tol
    if sweep is None:
        sweep = 4 if tol >= 1e-3 else 8
    if not tol > 0 or sweep < 0:
        raise UsageError(f"expected tol > 0 and sweep >= 0, found tol={tol}, sweep={sweep}", fix="tol is relative, e.g. 1e-4")
    high = k if which != "smallest" else 0
    low = min(k, dim - high) if which != "largest" else 0
    wanted = high + low
    small = max(40, 2 * wanted + 16)
    if basis_size is None:
        basis_size = small
    if max_matvecs is None:
        max_matvecs = max(300, 50 * k)
    if max_matvecs < 2 * wanted:
        raise UsageError(
            f"expected max_matvecs >= {2 * wanted}, found {max_matvecs}", fix="each pair needs a step and a residual"
        )
    if basis_size < min(dim, wanted + 2):
        raise UsageError(
            f"expected basis_size >= {min(dim, wanted + 2)}, found {basis_size}", fix="use two vectors more than pairs"
        )
    generator = default_generator(generator)
    hint = None if start is None else vectors_of(start, dim, "start", dtype, device)
    with progress.stage("eigenvalues", max_matvecs) as advance:
        products = Products(matvec, dim, dtype, device, advance)
        if dim <= min(small, basis_size) and dim + wanted <= max_matvecs:
            vectors, scale = _dense(products, high, low)
        else:
            size, short = min(basis_size, dim), basis_size < min(small, dim)
            run = ThickRestart(products, size, high, low, max_matvecs, generator, place, short, by_value)
            return run.solve(hint, tol, sweep if k > 1 else 0, which)
        values, residuals, _ = rayleigh_ritz(products, vectors)
    scale = max(scale, float(np.abs(values).max()))
    bounds = np.sqrt(np.cumsum(residuals**2)) if by_value else None  # rounding alone
    converged = (residuals if bounds is None else bounds) <= tol * scale
    return Eigenpairs(values, vectors, residuals, converged, products.count, which, bounds=bounds)


def _dense(products: Products, high: int, low: int) -> tuple[Float[Tensor, "k P"], float]:
    """Wanted eigenvectors from the dense matrix, and max |λ|; correct for any multiplicity."""
    eye = torch.eye(products.dim, dtype=products.dtype, device=products.device)
    matrix = products(eye).double().cpu().numpy()
    values, vectors = eigh((matrix + matrix.T) / 2)
    chosen = np.array(vectors[:, end_indices(len(values), high, low)].T, order="C")
    return torch.from_numpy(chosen).to(device=products.device, dtype=products.dtype), float(np.abs(values).max())
