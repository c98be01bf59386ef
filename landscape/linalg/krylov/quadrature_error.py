"""Uncertainty of a Gauss rule about its measure: bounds on the smoothed density, and the resolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

# The outermost node of a Gauss-Legendre rule lies 1.45 range / m^2 from the end of the measure; this is twice that.
_BEYOND = 3.0
# Chebyshev points for the coefficients of a kernel, and the share of the error that their last eighth may have. A kernel that
# is too narrow for them (some 2e-3 of the range) has no bound.
_POINTS, _LAST = 4096, 0.01


@dataclass(frozen=True, eq=False)
class Rule:
    """A Gauss rule: m nodes in increasing order and weights that sum to 1; exact if the Krylov space closed."""

    nodes: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    exact: bool = False

    def distinct(self, rounding: float) -> "Rule":
        """The rule with nodes within a relative distance of `rounding` as one, at their mean, and without those of no weight.

        Without reorthogonalization one eigenvalue appears as several nodes, and a copy that begins to form, anywhere, has a
        weight below what arithmetic resolves. The distance of such nodes says nothing about the measure.
        """
        keep = self.weights > np.finfo(float).eps ** 2 * self.weights.max()
        nodes, weights = self.nodes[keep], self.weights[keep]
        width, starts = rounding * float(np.abs(nodes).max()), [0]
        for i, node in enumerate(nodes):  # from the first of a group, so that a dense bulk does not become one node
            if node - nodes[starts[-1]] > width:
                starts.append(i)
        total = np.add.reduceat(weights, starts)
        return Rule(np.add.reduceat(nodes * weights, starts) / total, total, self.exact)


def smoothed_bounds(
    grid: Float[np.ndarray, " p"],
    sigma: float,
    nodes: Float[np.ndarray, " m"],
    rule: Rule,
    error: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "3 p"]:
    """Lower bound, estimate and upper bound of the density of a rule's measure, smoothed by a Gaussian of width sigma.

    Between neighbouring nodes j and j + 1 the cumulative share F of the measure lies between the weights up to j - 1 and those
    up to j + 1. The smoothed density is the integral of F times the slope of the kernel. It is therefore largest for the least
    F below t and the greatest F above, and smallest for the opposite; every measure with these moments lies between.

    Args:
        grid: points t, in the coordinate in which the kernel has constant width.
        sigma: that width.
        nodes: of the rule, in that coordinate.
        rule: for the weights; an exact rule has no error.
        error: (p,) bound for any rule with as many nodes, from `kernel_error`; the tighter bound is used.

    Cost: p * m kernel evaluations.

    Reference: Chebyshev, Markov and Stieltjes; Szego 1939, Orthogonal Polynomials, section 3.41.
    """
    w, peak = rule.weights, 1 / (sigma * np.sqrt(2 * np.pi))
    kernel = np.exp(-0.5 * ((grid[:, None] - nodes) / sigma) ** 2) * peak
    mean = kernel @ w
    if rule.exact:
        return np.stack([mean, mean, mean])
    upto = np.cumsum(w)
    # Bounds of F in the m + 1 intervals between nodes, and their increments at each node.
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
    """Largest error of an m-point Gauss rule for the kernel around each grid point.

    The rule is exact for polynomials of degree 2m - 1, so its error is at most twice the kernel's distance from them, which is
    at most the sum of the magnitudes of its higher Chebyshev coefficients. Infinite if these do not decay.

    Args:
        grid, sigma: of the kernels, in the coordinate `onto(t)`.
        onto: the map from t to that coordinate.
        nodes: of all rules; their range, slightly extended, is the range of the measure.
        steps: m.

    Cost: a cosine transform of 4096 values for each grid point.
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
        unresolved = size[:, -_POINTS // 8 :].sum(1) > _LAST * out[part] + 1e-15 * size.max()
        out[part][unresolved] = np.inf
    return out


def around(rules: Sequence[Rule], places: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """The resolution: distance of the two nodes around each place, the median over the rules; 0 for a single node.

    How the measure lies between two nodes is unknown. Beyond the outermost nodes the distance of the outermost pair is used.
    """
    gaps = np.zeros((len(rules), len(places)))
    for gap, rule in zip(gaps, rules, strict=True):
        if len(rule.nodes) > 1:
            index = np.clip(np.searchsorted(rule.nodes, places), 1, len(rule.nodes) - 1)
            gap[:] = np.diff(rule.nodes)[index - 1]
    return np.median(gaps, axis=0)
