"""Bounds of the mutual information of a layer with added Gaussian noise, from distances between all pairs of samples."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics.pairwise import euclidean_distances

from landscape.errors import UsageError
from landscape.results import MutualInformation

# Bytes of the distances that are held at once.
_BLOCK = 1 << 26


def kernel_bounds(
    activations: Float[np.ndarray, "N d"],
    labels: Int[np.ndarray, " N"] | None = None,
    *,
    noise: float = 1e-3,
) -> dict[str, MutualInformation]:
    """Lower and upper bound of I(T + e; X), and the two estimates of I(T + e; Y), with noise e ~ N(0, noise I).

    With X uniform on the N samples, T + e is a mixture of N Gaussians of one covariance. Its entropy lies between two averages
    over pairs, with the squared distance D of two samples' activations:

        I(T + e; X) = -1/N sum_i log2 1/N sum_j exp(-D_ij / (c noise)),    c = 8: a lower bound, c = 2: an upper bound.

    I(T + e; Y) is the difference of such entropies of all samples and of the samples of each class, both with the same c. That
    is an estimate, and no bound.

    Args:
        activations: (N, d), one row a sample.
        labels: (N,) class of each sample.
        noise: variance of the noise in every unit, in squared units of the activation.

    Returns:
        {"kde_lower": bits, "kde_upper": bits}.

    Raises:
        UsageError: the noise is not positive.

    Cost: N^2 distances and exponentials, in blocks; 2 d N^2 operations.

    Accuracy: exact bounds for these N samples up to float64 rounding. The noise is assumed, and the numbers depend on it: with
        little noise every sample is told from every other, and both bounds are log2 N; with much noise both go to 0. The scale
        of a rectified layer is arbitrary, so its bits change when its weights are rescaled, although the network computes the
        same function. A population may have more than log2 N bits; these bounds never do.

    Reference: Kolchinsky and Tracey 2017, arXiv:1706.02419, equation 10 with the Bhattacharyya distance (c = 8) and the
        Kullback-Leibler divergence (c = 2); used on networks by Saxe et al. 2018, whose code has the noise 1e-3.

    Example:
        Two samples that the noise cannot confuse: one bit. Two equal ones: none.
        >>> kernel_bounds(np.array([[0.0], [9.0]]))["kde_lower"].inputs
        1.0
        >>> kernel_bounds(np.array([[9.0], [9.0]]))["kde_upper"].inputs
        0.0
    """
    if not noise > 0:
        raise UsageError(f"expected noise with a positive variance, found {noise}")
    n = len(activations)
    classes, which = (np.zeros(1), np.zeros(n, int)) if labels is None else np.unique(labels, return_inverse=True)
    members = np.eye(len(classes))[which]
    names = {"kde_lower": 8.0, "kde_upper": 2.0}
    inputs, between = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for rows, squares in squared_distances(activations, activations):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = 0.0  # not exactly, as computed
        for name, c in names.items():
            sums = np.exp(-squares / (c * noise)) @ members  # of every sample with every class
            own = sums[np.arange(len(sums)), which[rows]]
            of_all = sums.sum(1) / n
            inputs[name] -= float(np.log2(of_all).sum()) / n
            between[name] += float(np.log2(own / members.sum(0)[which[rows]] / of_all).sum()) / n
    return {k: MutualInformation(max(0.0, inputs[k]), None if labels is None else max(0.0, between[k])) for k in names}


def squared_distances(
    points: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"]
) -> Iterator[tuple[slice, Float[np.ndarray, "b m"]]]:
    """Squared distances of some points at a time to all others, float64, with the rows that they are of."""
    centre = others.mean(0, dtype=np.float64)  # |a|^2 - 2 a.b + |b|^2 loses digits far from the origin
    a, b = points - centre, others - centre
    lengths = np.einsum("ij,ij->i", b, b)
    step = max(1, _BLOCK // (8 * len(others)))
    for start in range(0, len(points), step):
        rows = slice(start, min(start + step, len(points)))
        yield rows, euclidean_distances(a[rows], b, Y_norm_squared=lengths, squared=True)
