"""What a Gauss rule leaves open about the measure that it stands for: bounds of the smoothed density, and the resolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

# The outermost node of a Gauss-Legendre rule lies 1.45 range / m^2 from the end of the measure; twice that.
_BEYOND = 3.0
# Chebyshev points for the coefficients of a kernel, and the share of the error that the last eighth of them may have: a kernel
# that is narrower than they can follow (some 2e-3 of the range) has no bound.
_POINTS, _LAST = 4096, 0.01


@dataclass(frozen=True, eq=False)
class Rule:
    """A Gauss rule: m nodes in increasing order and weights that sum to 1; exact where the Krylov space closed."""

    nodes: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    exact: bool = False


def smoothed_bounds(
    grid: Float[np.ndarray, " p"],
    sigma: float,
    nodes: Float[np.ndarray, " m"],
    rule: Rule,
    error: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "3 p"]:
    """Lower bound, estimate and upper bound of the density of a rule's measure, smoothed by a Gaussian of width sigma.

    Between neighbouring nodes j and j + 1 the share F of the measure lies between the weights up to j - 1 and those up to
    j + 1. Since the smoothed density is the integral of F times the slope of the kernel, it is largest for the least F below t
    and the greatest above it, smallest the other way round; no measure with these moments is outside.

    Args:
        grid: places t, in the coordinate in which the kernel has one width.
        sigma: that width.
        nodes: of the rule, in that coordinate.
        rule: for the weights; an exact one has no error.
        error: (p,) of any rule with so many nodes, from `kernel_error`; the tighter bound is taken.

    Cost: p * m kernels.

    Reference: Chebyshev, Markov and Stieltjes; Szego 1939, Orthogonal Polynomials, section 3.41.
    """
    w, peak = rule.weights, 1 / (sigma * np.sqrt(2 * np.pi))
    kernel = np.exp(-0.5 * ((grid[:, None] - nodes) / sigma) ** 2) * peak
    mean = kernel @ w
    if rule.exact:
        return np.stack([mean, mean, mean])
    upto = np.cumsum(w)
    # F in the m + 1 intervals that the nodes make, at least and at most; and by how much these grow at every node.
    least, most = np.concatenate([[0.0, 0.0], upto[:-1]]), np.concatenate([upto, upto[-1:]])
    slow, fast = np.diff(least), np.diff(most)
    interval = np.searchsorted(nodes, grid)
    below = np.arange(len(nodes)) < interval[:, None]
    open_here = (most - least)[interval] * peak
    upper = (kernel * np.where(below, slow, fast)).sum(1) + open_here
    lower = (kernel * np.where(below, fast, slow)).sum(1) - open_here
    return np.stack([np.maximum(np.maximum(lower, mean - error), 0), mean, np.minimum(upper, mean + error)])


def kernel_error(
    grid: Float[np.ndarray, " p"],
    sigma: float,
    onto: Callable[[np.ndarray], np.ndarray],
    nodes: Float[np.ndarray, "k m"],
    steps: int,
) -> Float[np.ndarray, " p"]:
    """How far an m-point Gauss rule can be from the integral of the kernel around each place of the grid.

    The rule is exact for polynomials of degree 2m - 1, so that its error is at most twice the kernel's distance from them,
    which is at most the sum of the sizes of its further Chebyshev coefficients. Infinite where these do not end.

    Args:
        grid, sigma: of the kernels, in the coordinate `onto(t)`.
        onto: from t to the coordinate.
        nodes: of all rules; they and a little more are the range of the measure.
        steps: m.

    Cost: a cosine transform of 4096 values for every place.
    """
    low, high = float(nodes.min()), float(nodes.max())
    more = _BEYOND * (high - low) / steps**2
    angles = np.pi * (np.arange(_POINTS) + 0.5) / _POINTS
    t = (low + high) / 2 + ((high - low) / 2 + more) * np.cos(angles)
    out, places = np.empty(len(grid)), onto(t)
    for begin in range(0, len(grid), 256):
        part = slice(begin, begin + 256)
        kernel = np.exp(-0.5 * ((grid[part, None] - places) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        size = np.abs(dct(kernel, axis=1)) / _POINTS
        out[part] = 2 * size[:, 2 * steps :].sum(1)
        lost = size[:, -_POINTS // 8 :].sum(1) > _LAST * out[part] + 1e-15 * size.max()
        out[part][lost] = np.inf
    return out


def around(rules: Sequence[Rule], places: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """The resolution: how far apart the two nodes around each place are, the median over the rules; 0 for a single node.

    How the measure lies between them is not seen. Beyond the outermost nodes it is that of the outermost pair.
    """
    gaps = np.zeros((len(rules), len(places)))
    for gap, rule in zip(gaps, rules, strict=True):
        if len(rule.nodes) > 1:
            at = np.clip(np.searchsorted(rule.nodes, places), 1, len(rule.nodes) - 1)
            gap[:] = np.diff(rule.nodes)[at - 1]
    return np.median(gaps, axis=0)
