"""Spectral density by stochastic Lanczos quadrature."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.special import stdtrit

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.krylov.quadrature_error import Rule, around, kernel_error, smoothed_bounds
from landscape.linalg.krylov.recurrence import Recurrence
from landscape.linalg.probes import default_generator, random_rows
from landscape.linalg.products import MatVec, Products
from landscape.linalg.vector_store import Place
from landscape.machine import progress
from landscape.results import SpectralDensity

# The grid reaches this many sigma beyond the outermost nodes; the kernel's mass outside is 2e-9.
MARGIN = 6.0
# Largest default width on the log scale, in u: a factor of 1.28 in t. A wider kernel, as few steps would ask for, puts mass a
# decade beyond the largest eigenvalue, where there is none; that few steps do not resolve this finely is what the band says.
WIDEST = 0.25
# Level of the band for the whole curve: Student's interval at every point, its tails divided by the number of steps
# (Bonferroni). A pointwise level is not enough: a spectrum that is one narrow bulk is right or wrong as a whole.
LEVEL = 0.95
# Without a stored basis, the copies of an eigenvalue lie within this many eps of the largest; 5 were measured in float64.
ROUNDING = 20.0


def spectral_density(
    matvec: MatVec,
    dim: int,
    *,
    probes: int = 10,
    steps: int = 80,
    scale: Literal["linear", "log"] = "linear",
    points: int = 1024,
    sigma: float | None = None,
    linthresh: float | None = None,
    memory: float = 4e9,
    stored: bool = True,
    seen: Callable[[KrylovBasis], None] | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    place: Place | None = None,
) -> SpectralDensity:
    """Density of the eigenvalues of H, smoothed by a Gaussian, with a band.

    φ(t) = (1/P) Σ_i g_σ(t - λ_i), estimated as the mean over random unit vectors v of Σ_j τ_j² g_σ(t - θ_j), with θ_j the
    Ritz values and τ_j the first components of the eigenvectors of v's Lanczos matrix: a Gauss quadrature of v's spectral
    measure. On the log scale the kernel has constant width in u = arcsinh(t / linthresh) and the Jacobian du/dt is applied, so
    φ integrates to 1 over t on both scales.

    Args:
        matvec: maps (k, P) to (k, P); all probes advance together, one block for each step.
        dim: P.
        probes: n >= 2 independent vectors, uniform on the sphere.
        steps: m, Lanczos steps of each probe (at most P).
        scale: "linear", or "log": symmetric logarithm.
        points: number of grid points; the grid covers all nodes of all probes and six sigma more on both sides.
        sigma: width of the kernel, in the unit of H (linear) or of u (log). Default: range of the nodes / steps, near the
            resolution of an m-point rule; on the log scale at most 0.25.
        linthresh: where the log scale becomes linear. Default: the resolution around zero, at least max |node| * 1e-4.
        memory: byte budget of the Krylov bases, in each process; the probes run in sub-batches that fit. If the bases are not
            stored, of all vectors: two a probe, the blocks of a product (one a probe each, before and after), and one at work.
        stored: whether the bases are stored; if not, each probe holds its last two vectors only (see Accuracy).
        seen: called with each probe's Krylov basis before it is released: its outer Ritz vectors are a start for `eigenpairs`.
        generator: of the probes; seed 0 if None.
        dtype, device: of the operator.
        place: where the Krylov bases are stored; see `landscape.linalg.Place`.

    Returns:
        SpectralDensity: grid, density (unit 1 / unit of H), band, resolution, nodes and weights. The band is a 95 % t-interval
        over probes, for the whole curve at once, of the bounds that each quadrature sets on its own measure. A probe whose
        Krylov space closes early (few distinct eigenvalues) repeats its last node with weight 0; it is exact.

    Raises:
        UsageError: an option is out of range, the grid cannot resolve sigma, or the budget is too small for one probe.
        NumericalError: a product is not finite.

    Cost: probes * steps products, in `steps` blocks for each sub-batch; memory probes * steps * P values, at most `memory`
    bytes; if the bases are not stored, two vectors a probe, and the blocks of a product: (4 * probes + 1) * P values.

    Accuracy: full reorthogonalization, so weights are those of exact arithmetic. Where the bases are not stored, an outer
    eigenvalue may appear as several nodes, which share its weight (`landscape.linalg.krylov.recurrence`), and P steps are not
    exact; bands and resolution take copies as one. m nodes do not determine how the mass lies between them: between two
    neighbours the share below t is known only within the sum of their weights (Chebyshev, Markov, Stieltjes). A kernel that is
    close to a polynomial of degree 2m - 1 is integrated with an error of at most twice that distance. The band uses the tighter
    of the two bounds at every point: the second where the kernel is wide compared with range / m, the first near zero on the
    log scale, where nothing finer than `resolution` is resolved.

    Reference: Ubaru, Chen, Saad 2017, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature; Lin, Saad, Yang 2016,
    arXiv:1308.5467; Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159. Bounds: see `landscape.linalg.krylov.quadrature_error`.

    Example:
        >>> density = spectral_density(lambda v: 2.0 * v, 50, probes=3, sigma=0.1)
        >>> round(float(density.grid[density.density.argmax()]), 2)
        2.0
        >>> round(float(np.trapezoid(density.density, density.grid)), 6)
        1.0
    """
    if scale not in get_args(Literal["linear", "log"]):
        raise UsageError(f"expected scale 'linear' or 'log', found {scale!r}", fix="choose one of the two")
    for name, value, least in (("probes", probes, 2), ("steps", steps, 1), ("points", points, 16)):
        if value < least:
            raise UsageError(f"expected {name} >= {least}, found {value}", fix=f"raise {name}")
    for name, width in (("sigma", sigma), ("linthresh", linthresh)):
        if width is not None and not 0 < width < np.inf:
            raise UsageError(f"expected {name} > 0, found {width}", fix=f"leave {name} out for the default")
    steps = min(steps, dim)
    row = dtype.itemsize * -(-dim // (place.group.size if place else 1))
    # Without bases: the last two vectors, one in each block of a product, and the new one of an orthogonalization.
    one, work = (steps * row, 0) if stored else (2 * row + 2 * dtype.itemsize * dim, row)
    fitting = int((memory - work) // one)
    if fitting < 1:
        most = int(memory // row)
        what = "a Krylov basis" if stored else "vectors"
        raise UsageError(
            f"expected {what} of at most {memory:.3g} bytes, found {one + work:.3g} for one probe",
            fix=f"raise memory, or use steps <= {most}" if most and stored else "raise memory",
        )
    generator = default_generator(generator)
    rules: list[Rule] = []
    with progress.stage("spectral density", probes * steps) as advance:
        products = Products(matvec, dim, dtype, device, advance)
        for begin in range(0, probes, fitting):
            rules += _quadratures(
                products, min(fitting, probes - begin), steps, generator, seen if stored else None, place, stored
            )
    nodes, weights = np.empty((probes, steps)), np.zeros((probes, steps))
    for i, rule in enumerate(rules):
        nodes[i] = rule.nodes[-1]
        nodes[i, : len(rule.nodes)], weights[i, : len(rule.nodes)] = rule.nodes, rule.weights
    if not stored:
        rules = [rule.distinct(ROUNDING * torch.finfo(dtype).eps) for rule in rules]
    largest = float(np.abs(nodes).max())
    if scale == "linear":
        linthresh = None
        grid, sigma = _grid(nodes, sigma, points, 0.01 * largest or 1.0)
        slope = np.ones(points)
    else:
        linthresh = linthresh or max(1e-4 * largest, float(around(rules, np.zeros(1))[0])) or 1.0
        grid, sigma = _grid(np.arcsinh(nodes / linthresh), sigma, points, 0.1, WIDEST)
        slope = linthresh * np.cosh(grid)  # dt/du
    places = grid if linthresh is None else linthresh * np.sinh(grid)

    def onto(t: np.ndarray) -> np.ndarray:
        return t if linthresh is None else np.arcsinh(t / linthresh)

    error = kernel_error(grid, sigma, onto, nodes, steps)
    each = np.empty((3, probes, points))  # lower bound, estimate, upper bound
    for i, rule in enumerate(rules):
        each[:, i] = smoothed_bounds(grid, sigma, onto(rule.nodes), rule, error)
    lower, mean, upper = each.mean(axis=1)
    spread = stdtrit(probes - 1, 1 - (1 - LEVEL) / (2 * steps)) * each.std(axis=1, ddof=1) / np.sqrt(probes)
    peak = 1 / (sigma * np.sqrt(2 * np.pi))  # no smoothed density exceeds that of a point mass
    return SpectralDensity(
        places,
        mean / slope,
        np.maximum(lower - spread[0], 0) / slope,
        np.minimum(upper + spread[2], np.maximum(peak, mean)) / slope,
        nodes,
        weights,
        sigma * slope,
        scale,
        linthresh,
        dim,
        products.count,
        around(rules, places),
    )


def _quadratures(
    products: Products,
    count: int,
    steps: int,
    generator: torch.Generator,
    seen: Callable[[KrylovBasis], None] | None,
    place: Place | None,
    stored: bool,
) -> list[Rule]:
    """Gauss rules of `count` random vectors, which advance together in one block product for each step."""
    starts = random_rows(count, products.dim, "gaussian", generator, products.dtype, products.device)
    # Random vectors after breakdowns must not shift the next probes' numbers, or sub-batches would change the result.
    unused = torch.Generator().manual_seed(0)
    like: Any = {"dim": products.dim, "dtype": products.dtype, "device": products.device, "place": place}
    bases = [KrylovBasis(steps, generator=unused, **like) if stored else Recurrence(**like) for _ in range(count)]
    for basis, start in zip(bases, starts, strict=True):
        basis.begin(start)
    del starts, start  # a view, which would hold them all
    betas: list[list[float]] = [[] for _ in bases]
    active = list(range(count))
    for _ in range(steps):
        block = products(torch.cat([bases[i].next_row for i in active]))
        for i, product in zip(active, block, strict=True):
            betas[i].append(bases[i].absorb(product))
        del block, product  # before the next ones
        # After a breakdown the rule is exact for this vector; further nodes would have weight zero.
        active = [i for i in active if betas[i][-1] > 0]
        if not active:
            break
    rules = []
    for basis, beta in zip(bases, betas, strict=True):
        if seen is not None and isinstance(basis, KrylovBasis):
            seen(basis)
        theta, vectors = eigh_tridiagonal(basis.diagonal, np.array(beta[:-1]))
        # P steps of a recurrence that loses its orthogonality do not close the space.
        exact = beta[-1] == 0 or (stored and len(theta) == products.dim)
        rules.append(Rule(theta, vectors[0] ** 2, exact))
    return rules


def _grid(
    nodes: np.ndarray, sigma: float | None, points: int, fallback: float, widest: float = np.inf
) -> tuple[np.ndarray, float]:
    """Uniform grid over all nodes, and the width of the kernel, in any coordinate; the default width is at most `widest`."""
    low, high = float(nodes.min()), float(nodes.max())
    span = high - low
    if sigma is None:
        # Rounding can leave a relative spread of some 1e-7 between nodes of a single eigenvalue.
        sigma = min(span / nodes.shape[1], widest) if span > 1e-5 * max(abs(low), abs(high)) else fallback
    grid = np.linspace(low - MARGIN * sigma, high + MARGIN * sigma, points)
    step = grid[1] - grid[0]
    if step > sigma:
        enough = int(np.ceil(span / sigma + 2 * MARGIN)) + 2
        raise UsageError(
            f"expected a grid step of at most sigma = {sigma:.3g}, found {step:.3g}",
            fix=f"use points >= {enough}, or a larger sigma",
        )
    return grid, sigma
