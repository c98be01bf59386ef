"""Mutual information of a layer with added Gaussian noise, from distances to nearest neighbours."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import digamma

from landscape.errors import UsageError
from landscape.information_plane.kernel_bounds import squared_distances
from landscape.linalg.probes import default_generator
from landscape.results import MutualInformation


def nearest_neighbours(
    activations: Float[np.ndarray, "N d"],
    labels: Int[np.ndarray, " N"] | None = None,
    *,
    noise: float = 1e-3,
    neighbours: int = 1,
    copies: int = 8,
    generator: torch.Generator | None = None,
) -> MutualInformation:
    """I(T + e; X) and I(T + e; Y) by Ross's estimator of continuous against discrete variables, with e ~ N(0, noise I).

    Every sample's activation is drawn `copies` times with noise. X is the number of the sample, Y its class. For one noisy
    point of every sample, r is the Euclidean distance to its k-th neighbour among the points with the same value z of X (or
    Y), n_z the number of those points, and m the number of all points within r, itself included:

        I = psi(N copies) + psi(k) - mean psi(n_z) - mean psi(m),    psi the digamma function.

    Args:
        activations: (N, d), one row a sample.
        labels: (N,) class of each sample.
        noise: variance of the noise in every unit, in squared units of the activation.
        neighbours: k, less than `copies`.
        copies: noisy points for each sample.
        generator: of the noise; default seed 0.

    Returns:
        Bits, cut to [0, log2 N] and [0, H(Y)], where the true values lie.

    Raises:
        UsageError: the noise is not positive, or k is not below the number of copies.

    Cost: copies N^2 distances.

    Accuracy: an estimate of the quantity that `kernel_bounds` bounds. It assumes that the density is constant within r. In many
        dimensions it is not, and a true value between 0 and log2 N is underestimated: of 1,000 Gaussian activations in 10
        dimensions 4.9 bits come out as 4.2, of 1,347 in 64 dimensions 4.3 bits as 1.8. More neighbours increase that bias;
        fewer increase the random error, about 1.8 / sqrt(k N) bits. Strong dependence is limited by log2 N. The noise is
        assumed, as in the kernel bounds.

    Reference: Ross 2014, PLoS ONE 9:e87357, equation 4, as `sklearn.feature_selection.mutual_info_classif` has it for single
        features; Kraskov, Stögbauer and Grassberger 2004, arXiv:cond-mat/0305641. Deviation: noisy copies, for which
        X is discrete.

    Example:
        >>> round(nearest_neighbours(np.arange(64.0)[:, None], np.arange(64) % 2).labels, 2)
        1.0
    """
    if not noise > 0:
        raise UsageError(f"expected noise with a positive variance, found {noise}")
    if not 1 <= neighbours < copies:
        raise UsageError(f"expected at least 1 neighbour and more copies than that, found {neighbours} and {copies}")
    n, d = activations.shape
    random = torch.randn((copies, n, d), generator=default_generator(generator), dtype=torch.float32).numpy()
    points = (activations + np.sqrt(noise) * random).reshape(copies * n, d)
    inputs = ross(points, np.tile(np.arange(n), copies), neighbours, n)
    found = None
    if labels is not None:
        shares = np.unique(labels, return_counts=True)[1] / n
        found = min(ross(points, np.tile(labels, copies), neighbours, n), float(-(shares * np.log2(shares)).sum()))
    return MutualInformation(min(inputs, float(np.log2(n))), found)


def ross(
    points: Float[np.ndarray, "M d"],
    values: Int[np.ndarray, " M"],
    neighbours: int,
    asked: int | None = None,
) -> float:
    """Mutual information in bits of continuous points with their discrete values, at least 0; see `nearest_neighbours`.

    Args:
        points: (M, d).
        values: (M,) discrete value of each point, each at least twice.
        neighbours: k; a value with fewer other points than that uses all of them.
        asked: the mean is over the first so many points; default: all.
    """
    which, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
    asked = len(points) if asked is None else asked
    mine = counts[which[:asked]]
    k = np.minimum(neighbours, mine - 1)
    within = np.empty(asked)
    for rows, squares in squared_distances(points[:asked], points):
        block = np.arange(len(squares))
        squares[block, np.arange(rows.start, rows.stop)] = 0.0  # a point itself, which rounding must not move
        same = np.where(which[rows, None] == which, squares, np.inf)
        # The k-th neighbour is the entry k of the row, because the first one is the point itself.
        nearest = np.partition(same, np.unique(k[rows]), axis=1)[block, k[rows]]
        within[rows] = (squares < nearest[:, None]).sum(1)
    bits = digamma(len(points)) + (digamma(k) - digamma(mine) - digamma(np.maximum(within, 1))).mean()
    return max(0.0, float(bits / np.log(2)))
