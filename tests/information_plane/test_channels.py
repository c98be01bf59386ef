"""Estimators of mutual information on channels whose mutual information is known."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score

from landscape import mutual_information
from landscape.errors import NumericalError, UsageError
from landscape.information_plane import kernel_bounds as kernels
from landscape.information_plane.binned_patterns import binned, entropy
from landscape.information_plane.kernel_bounds import kernel_bounds
from landscape.information_plane.nearest_neighbours import nearest_neighbours, ross


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def h2(p: float) -> float:
    """Entropy of a coin, in bits."""
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def of_mixture(t: np.ndarray, noise: float, draws: int = 20, seed: int = 7) -> float:
    """I(T + e; X) in bits with X uniform on the rows of t, from its definition by simulation: mean log p(t | x) / p(t)."""
    rng, (n, d) = random(seed), t.shape
    found = []
    for _ in range(draws):
        e = rng.normal(size=(n, d)) * math.sqrt(noise)
        apart = ((t + e)[:, None] - t[None]) ** 2
        found.append(np.mean(-(e**2).sum(1) / (2 * noise) - logsumexp(-apart.sum(2) / (2 * noise), axis=1) + math.log(n)))
    return float(np.mean(found)) / math.log(2)


# --- binned ---


@pytest.mark.parametrize("flip", [0.0, 0.11, 0.3, 0.5])
def test_binary_symmetric_channel(flip):
    n, rng = 40_000, random()
    sent = rng.integers(0, 2, n)
    received = sent ^ (rng.random(n) < flip)
    found = binned(received[:, None].astype(float), sent)
    exact = 1.0 if flip == 0 else 1 - h2(flip)
    assert abs(found.labels - exact) < 0.01  # standard deviation below 0.004
    assert abs(found.inputs - 1.0) < 1e-3


def test_a_discrete_map_keeps_the_entropy_of_its_image():
    """X uniform on 32 values, each once for each of 4 samples; T = X mod 8, on two units; Y = X // 4 has 2 bits in common."""
    x = np.tile(np.arange(32), 4)
    t = np.stack([(x % 8) // 4, x % 4], 1).astype(float)
    found = binned(t, x // 4, bins=4)
    assert found.inputs == pytest.approx(3.0)  # 8 patterns
    assert found.labels == pytest.approx(1.0)  # of T only x // 4 % 2 is known from Y
    assert entropy(x // 4) == pytest.approx(3.0)


def test_binned_agrees_with_sklearn_on_one_unit():
    rng = random()
    t, y = rng.normal(size=500), rng.integers(0, 3, 500)
    t += y
    codes = np.digitize(t, np.linspace(t.min(), t.max(), 31)[1:-1])
    assert binned(t[:, None], y).labels == pytest.approx(mutual_info_score(y, codes) / math.log(2), abs=1e-12)


def test_bins_lie_over_the_range_of_the_whole_layer():
    t = np.array([[0.0, 0.1], [0.0, 0.2], [0.0, 0.3], [0.0, 10.0]])
    assert binned(t, bins=4).inputs == pytest.approx(h2(0.25))  # the second unit's small values share a bin
    assert binned(t, bins=4, span=(0.0, 0.4)).inputs == pytest.approx(1.5)  # 10 counts as the last bin, with 0.3
    moved = binned(3 - 5 * t, bins=4).inputs
    assert moved == pytest.approx(binned(t, bins=4).inputs)


def test_many_bins_and_a_constant_layer():
    t = np.arange(1000.0)[:, None]
    assert binned(t, bins=1000).inputs == pytest.approx(math.log2(1000))
    assert binned(np.ones((50, 3)), np.arange(50) % 2).inputs == 0
    with pytest.raises(UsageError, match="at least 2 bins"):
        binned(t, bins=1)


# --- kernel bounds ---


def test_kernel_bounds_are_their_definition():
    rng = random()
    t, y, noise = rng.normal(size=(40, 3)), rng.integers(0, 3, 40), 0.4
    found = kernel_bounds(t, y, noise=noise)

    def bits(rows: np.ndarray, c: float) -> float:
        """The entropy of a mixture over that of its noise."""
        sums = [math.fsum(math.exp(-(math.dist(a, b) ** 2) / (c * noise)) for b in rows) / len(rows) for a in rows]
        return -math.fsum(map(math.log2, sums)) / len(rows)

    for name, c in (("kde_lower", 8), ("kde_upper", 2)):
        assert found[name].inputs == pytest.approx(bits(t, c), abs=1e-10)
        classes = sum(np.mean(y == k) * bits(t[y == k], c) for k in range(3))
        assert found[name].labels == pytest.approx(bits(t, c) - classes, abs=1e-10)


@pytest.mark.parametrize(("d", "noise"), [(1, 0.01), (1, 1.0), (3, 0.1), (3, 1.0), (10, 1.0)])
def test_kernel_bounds_enclose_the_gaussian_channel(d, noise):
    """Each of d independent channels has 0.5 log2(1 + snr) bits; 600 samples have a little less, at most log2 600."""
    t = random().normal(size=(600, d))
    found, here = kernel_bounds(t, noise=noise), of_mixture(t, noise, draws=6)
    assert found["kde_lower"].inputs <= here + 0.02  # 0.02: the simulation's error
    assert here <= found["kde_upper"].inputs + 0.02
    exact = d / 2 * math.log2(1 + 1 / noise)
    if exact < math.log2(600) / 2:
        assert found["kde_lower"].inputs < exact < found["kde_upper"].inputs
        assert abs(here - exact) < 0.15


def test_kernel_bounds_far_from_the_origin_and_in_blocks(monkeypatch):
    t, y = random().normal(size=(64, 2)), np.arange(64) % 4
    near = kernel_bounds(t, y, noise=0.1)
    far = kernel_bounds(t + 1e6, y, noise=0.1)
    monkeypatch.setattr(kernels, "_BLOCK", 8 * 64 * 5)  # five rows at a time
    parts = kernel_bounds(t, y, noise=0.1)
    for name in near:
        assert far[name].inputs == pytest.approx(near[name].inputs, abs=1e-6)
        assert parts[name].inputs == pytest.approx(near[name].inputs, abs=1e-12)
        assert parts[name].labels == pytest.approx(near[name].labels, abs=1e-12)


# --- nearest neighbours ---


@pytest.mark.parametrize("k", [1, 3])
def test_ross_agrees_with_sklearn_on_one_feature(k):
    rng = random()
    y = rng.integers(0, 3, 400)
    t = rng.normal(size=(400, 1)) + 0.8 * y[:, None]
    theirs = mutual_info_classif(t, y, discrete_features=False, n_neighbors=k, random_state=0)[0]
    assert ross(t, y, k) == pytest.approx(theirs / math.log(2), abs=1e-6)


@pytest.mark.parametrize(("d", "noise", "allowed"), [(1, 0.01, 0.12), (1, 1.0, 0.12), (2, 0.1, 0.15), (3, 1.0, 0.15)])
def test_neighbours_find_the_gaussian_channel(d, noise, allowed):
    t = random().normal(size=(1000, d))
    found = nearest_neighbours(t, noise=noise).inputs
    assert abs(found - of_mixture(t, noise, draws=2)) < allowed
    assert abs(found - d / 2 * math.log2(1 + 1 / noise)) < allowed + 0.1


def test_neighbours_are_too_low_in_many_dimensions():
    """The bias that the docstring states."""
    t = random().normal(size=(500, 20))
    found, here = nearest_neighbours(t, noise=3.0).inputs, of_mixture(t, 3.0, draws=2)
    assert 1 < here < math.log2(500) - 1
    assert found < here - 0.5


def test_gaussian_classes():
    """Y a fair coin, T = ±1 with Gaussian noise of variance 1: by integration 0.486 bits."""
    y = random().integers(0, 2, 1500)
    t = (2.0 * y - 1)[:, None]
    z = np.linspace(-12, 12, 20_001)
    p = np.exp(-((z - 1) ** 2) / 2) / math.sqrt(2 * math.pi)
    exact = float(np.trapezoid(p * (1 - np.log2(1 + np.exp(-2 * z))), z))
    assert exact == pytest.approx(0.486, abs=1e-3)
    assert nearest_neighbours(t, y, noise=1.0).labels == pytest.approx(exact, abs=0.06)
    bounds = kernel_bounds(t, y, noise=1.0)
    assert bounds["kde_lower"].labels < exact < bounds["kde_upper"].labels


# --- all three ---


def test_independent_labels():
    rng = random()
    t, y = rng.normal(size=(2000, 1)), rng.integers(0, 2, 2000)
    found = mutual_information(t, y, bins=10, noise=0.3)
    assert found["binned"].labels < 20 / (2 * 2000 * math.log(2)) + 0.01  # its known bias
    assert found["kde_upper"].labels < 0.01
    assert found["knn"].labels < 0.1


def test_an_invertible_map_has_no_more_bits_than_samples_can_show():
    """T = exp(X) is one to one, so I(T; X) is infinite; every estimate is log2 N, whatever the labels."""
    x = np.linspace(-3, 3, 256)
    t = np.stack([np.exp(x), 100 * x], 1)
    y = random().integers(0, 2, 256)
    found = mutual_information(t, y, bins=4096, noise=1e-4)
    for name, one in found.items():
        assert one.inputs == pytest.approx(8.0, abs=1e-6 if name != "knn" else 0.1), name
        assert one.labels == pytest.approx(entropy(y), abs=1e-6 if name != "knn" else 0.1), name
        assert one.inputs <= 8.0 + 1e-12


def test_a_wide_random_layer_seems_to_know_the_labels():
    """The saturation that the docstrings state: 40 units of noise have 'all' information on random labels."""
    rng = random()
    t, y = rng.normal(size=(300, 40)), rng.integers(0, 2, 300)
    found = mutual_information(t, y)
    for one in found.values():
        assert one.labels > 0.9 * entropy(y)
        assert one.inputs > 0.95 * math.log2(300)


def test_mistakes_are_told():
    t = np.zeros((8, 2))
    with pytest.raises(UsageError, match="expected estimators among binned, kde, knn, found 'mine'"):
        mutual_information(t, estimators=["mine"])
    with pytest.raises(UsageError, match="expected one label for each of 8 samples"):
        mutual_information(t, np.zeros(7, int))
    with pytest.raises(UsageError, match="positive variance"):
        mutual_information(t, estimators=["kde"], noise=0.0)
    with pytest.raises(UsageError, match="more copies than that, found 3 and 3"):
        mutual_information(t, estimators=["knn"], neighbours=3, copies=3)
    with pytest.raises(NumericalError, match="finite activations of relu"):
        mutual_information(np.full((8, 2), np.nan), name="relu")
    one = mutual_information(random().normal(size=30), estimators=["knn"], generator=torch.Generator().manual_seed(3))
    again = mutual_information(random().normal(size=30), estimators=["knn"], generator=torch.Generator().manual_seed(3))
    assert one == again
    assert one["knn"].labels is None
