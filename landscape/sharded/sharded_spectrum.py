"""Eigenvalues and trace of the Hessian of a sharded network, with vectors and Krylov basis sharded as the weights are."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from landscape.errors import UsageError
from landscape.linalg.krylov.thick_restart import ThickRestart
from landscape.linalg.products import Products
from landscape.linalg.vector_store import Place
from landscape.machine import progress
from landscape.results import Eigenpairs, Estimate
from landscape.results.spectra.spectrum import Which

if TYPE_CHECKING:
    from landscape.sharded.sharded_objective import ShardedObjective


def eigenpairs(
    objective: "ShardedObjective",
    k: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    basis_size: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """The k largest or smallest eigenpairs of the Hessian, or both ends in one run, by thick-restart Lanczos.

    Args:
        objective: the sharded network.
        k: pairs at each end.
        which: "largest", "smallest" or "both", in algebraic order.
        tol: a pair is converged if its residual, with the error of differences, is at most tol * max |lambda|.
        max_matvecs: bound on the products; max(100, 40 * k) if None.
        basis_size: vectors in the basis before a restart; max(24, 2 * wanted + 12) if None.
        seed: of the random start.

    Returns:
        Eigenpairs, whose `vectors` are this process's columns and whose `products` names their method. `values` are Rayleigh
        quotients of exact or Richardson-extrapolated products; `residuals` are ||Hv - lambda v|| plus the error of Hv, so an
        eigenvalue lies within.

    Raises:
        UsageError: k or the sizes are out of range.
        NumericalError: a product is not finite, in any process.

    Cost: the products, and one for each pair at the end (of differences four gradients); per product two all-reduces of
        basis_size numbers and a few of one. Memory (basis_size + 6 + 3 * wanted) * P / processes values.

    Accuracy: copies of a multiple eigenvalue can be missed: no sweep looks for them.
    """
    wanted = k * (2 if which == "both" else 1)
    basis_size = max(24, 2 * wanted + 12) if basis_size is None else basis_size
    max_matvecs = max(100, 40 * k) if max_matvecs is None else max_matvecs
    if which not in ("largest", "smallest", "both") or not 1 <= wanted <= objective.dim:
        raise UsageError(f"expected 1 <= k <= {objective.dim} pairs at an end, found k={k}, which={which!r}")
    size = min(basis_size, objective.dim)
    if size < min(objective.dim, wanted + 2) or max_matvecs < 2 * wanted or not tol > 0:
        raise UsageError(
            f"expected basis_size >= {wanted + 2}, max_matvecs >= {2 * wanted} and tol > 0, found {basis_size}, {max_matvecs}, "
            f"{tol}"
        )
    high, low = (k if which != "smallest" else 0), (k if which != "largest" else 0)
    products = objective.products
    before = products.count
    place = Place(group=objective.members, own=objective.weights.own)
    # Random vectors are drawn where they are stored: other numbers in each process.
    generator = torch.Generator().manual_seed(seed * 1_000_003 + objective.members.rank)
    with progress.stage("eigenvalues", max_matvecs) as advance:
        operator = Products(products, objective.dim, objective.weights.dtype, objective.weights.device, advance)
        run = ThickRestart(operator, size, high, low, max_matvecs, generator, place)
        run.krylov.begin(None)
        run.advance(tol / 2)
        run.compress()
        vectors = run.krylov.rows.clone()
        values, residuals = [], []
        for v in vectors:
            image, error, _ = products.with_error(v)
            quotient, square = objective.weights.dots((v, image), (v, v))
            values.append(quotient / square)
            residuals.append(objective.weights.norm(image - values[-1] * v) + error)
    scale = max(run.scale, float(np.abs(values).max()))
    residual = np.array(residuals)
    return Eigenpairs(
        np.array(values), vectors, residual, residual <= tol * scale, products.count - before, which, products.name
    )


def trace(objective: "ShardedObjective", *, probes: int = 16, seed: int = 0) -> Estimate:
    """Trace of the Hessian, tr H = E z^T H z over probes of +-1 (Hutchinson 1990).

    Args:
        objective: the sharded network.
        probes: n >= 2 probes; the same for every number of processes.
        seed: of the probes.

    Returns:
        Kind "t": a t-interval over the probes, widened by the error of differences, of which the first two probes give a
        Richardson pair; `reason` names the method of the products.

    Raises:
        UsageError: fewer than two probes.

    Cost: a product a probe; with differences four gradients more. Memory of six vectors.
    """
    if probes < 2:
        raise UsageError(f"expected at least 2 probes, found {probes}", fix="an interval needs two")
    weights, products = objective.weights, objective.products
    forms, errors = [], []
    with progress.stage("probes", probes) as advance:
        for i in range(probes):
            z = weights.random(seed * 1_000_003 + i, "rademacher")
            if i < 2:
                image, _, form = products.with_error(z)
                forms.append(weights.dots((z, image))[0])
                errors.append(abs(forms[-1] - form))
            else:
                forms.append(weights.dots((z, objective.hvp(z)))[0])
            advance(1)
    spread = float(np.std(forms, ddof=1)) / probes**0.5
    remark = f"products: {products.name}"
    return Estimate(float(np.mean(forms)), float(np.hypot(spread, max(errors))), "t", probes, reason=remark)
