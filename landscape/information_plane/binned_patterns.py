"""Mutual information from binned activations: discrete entropies of the patterns of a layer."""

import numpy as np
from jaxtyping import Float, Int, Shaped

from landscape.errors import UsageError
from landscape.results import MutualInformation


def binned(
    activations: Float[np.ndarray, "N d"],
    labels: Int[np.ndarray, " N"] | None = None,
    *,
    bins: int = 30,
    span: tuple[float, float] | None = None,
) -> MutualInformation:
    """I(T; X) and I(T; Y) of a layer whose activations are sorted into bins.

    Every unit's activation is replaced by the number of its bin, of `bins` equal ones over the range of the whole layer. T is
    the pattern of a sample's bins. Entropies are those of the frequencies of patterns (plug-in). The network is deterministic,
    so H(T | X) = 0 and I(T; X) = H(T); I(T; Y) = H(T) + H(Y) - H(T, Y).

    Args:
        activations: (N, d), one row a sample.
        labels: (N,) class of each sample.
        bins: number of bins.
        span: lower and upper end of the bins; values outside are counted in the first and the last one. Default: smallest and
            largest activation of the layer on these samples.

    Returns:
        Bits.

    Raises:
        UsageError: fewer than two bins.

    Cost: sorts N patterns of d bytes.

    Accuracy: exact for the binned layer on these N samples. The binning is an assumed noise: the information of the layer
        itself, if its units are continuous, is infinite. The number depends on the width of the bins, and on the range: a unit
        that saturates, or one large activation of another unit, puts many values into one bin. It saturates: with more patterns
        than samples I(T; X) is log2 N and I(T; Y) is H(Y), for a random layer too. As an estimate for a population H(T) is
        biased downwards by about (patterns - 1) / (2 N ln 2), and I(T; Y) upwards.

    Reference: Shwartz-Ziv and Tishby 2017, arXiv:1703.00810; 30 bins as theirs. Deviation: theirs lie over [-1, 1].

    Example:
        Two of four samples share a pattern, so T has 1.5 bits.
        >>> binned(np.array([[0.0], [0.01], [0.5], [1.0]]), np.array([0, 0, 1, 1]))
        MutualInformation(inputs=1.5, labels=1.0)
    """
    if bins < 2:
        raise UsageError(f"expected at least 2 bins, found {bins}")
    low, high = (float(activations.min()), float(activations.max())) if span is None else span
    width = (high - low) / bins or 1.0  # a layer that never changes has one pattern
    codes = np.clip(np.floor((activations - low) / width), 0, bins - 1).astype(np.min_scalar_type(bins - 1))
    pattern = _numbered(codes)
    if labels is None:
        return MutualInformation(_entropy(pattern))
    label = _numbered(labels[:, None])
    both = pattern * (label.max() + 1) + label
    inputs = _entropy(pattern)
    return MutualInformation(inputs, max(0.0, inputs + _entropy(label) - _entropy(both)))


def entropy(labels: Int[np.ndarray, " N"]) -> float:
    """H(Y) of the frequencies of the labels, in bits."""
    return _entropy(_numbered(labels[:, None]))


def _numbered(rows: Shaped[np.ndarray, "N d"]) -> Int[np.ndarray, " N"]:
    """Equal rows get the same number, from 0 on."""
    rows = np.ascontiguousarray(rows)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(packed, return_inverse=True)[1].ravel()


def _entropy(numbers: Int[np.ndarray, " N"]) -> float:
    """Plug-in entropy of the frequencies of non-negative numbers, in bits."""
    _, counts = np.unique(numbers, return_counts=True)
    p = counts / len(numbers)
    return max(0.0, float(-(p * np.log2(p)).sum()))
