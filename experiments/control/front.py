"""Trade-offs between memorized wrong labels, which should be few, and test accuracy, which should be high."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

CHANCE = 0.1
_DRAWS = 10_000
Seeds = Sequence[float]


def undominated(memorized: NDArray[np.float64], tested: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other point beats: memorizes no more and tests no worse, and is strictly better in one of the two.

    Args:
        memorized, tested: (..., K) numbers of K points.

    Returns:
        (..., K) mask.
    """
    m, t = memorized[..., :, None], tested[..., :, None]
    others_m, others_t = memorized[..., None, :], tested[..., None, :]
    beats = (others_m <= m) & (others_t >= t) & ((others_m < m) | (others_t > t))
    return np.logical_not(beats.any(axis=-1))


def on_front(points: Mapping[str, tuple[Seeds, Seeds]]) -> dict[str, float]:
    """How often each setting is on the front of the means when the seeds are drawn again (the same seeds for all settings).

    Args:
        points: setting -> (memorized share, test accuracy) for each seed.
    """
    memorized, tested = _drawn_means(points)
    return dict(zip(points, undominated(memorized, tested).mean(axis=0).tolist(), strict=True))


def dominated_area(memorized: Seeds, tested: Seeds, chance: float = CHANCE) -> float:
    """Area of the trade-offs that some of these points beat, out of 1: its corners are all memorized at chance, none at 100 %.

    A trade-off (m, t) is beaten by a point that memorizes at most m and tests at least t. This is the hypervolume indicator of
    multi-objective optimization (Zitzler and Thiele 1998), with the reference point (1, chance).

    Example:
        >>> round(dominated_area([0.5, 1.0], [0.55, 1.0]), 3)
        0.75
    """
    area, best = 0.0, chance
    order = sorted(zip(memorized, tested, strict=True), key=lambda p: (p[0], -p[1]))
    for m, t in order:
        if t > best:
            area += (1 - m) * (t - best)
            best = t
    return area / (1 - chance)


def best_of(points: Mapping[str, tuple[Seeds, Seeds]], limit: float) -> dict[str, float]:
    """How often each setting tests best among those that memorize at most `limit`, by means over seeds that are drawn again.

    Settings that never do are left out. Draws in which none memorizes that little count for none.
    """
    memorized, tested = _drawn_means(points)
    tested = np.where(memorized <= limit, tested, -np.inf)
    won = np.where(np.isfinite(tested.max(axis=1)), tested.argmax(axis=1), -1)
    return {name: float((won == k).mean()) for k, name in enumerate(points) if (won == k).any()}


def chosen_by_halves(right: NDArray[np.bool_]) -> tuple[tuple[int, int], float]:
    """Early stopping by one half of the test set, reported on the other, both ways.

    Args:
        right: (E, M) which of M test samples are predicted after each of E epochs. The halves are the even samples and the odd.

    Returns:
        The rows of the two chosen epochs (the first of the best ones), and the accuracy: that of each on the half that did not
        choose it, averaged over samples.
    """
    even, odd = right[:, ::2], right[:, 1::2]
    by_even, by_odd = int(even.mean(axis=1).argmax()), int(odd.mean(axis=1).argmax())
    hits = odd[by_even].sum() + even[by_odd].sum()
    return (by_even, by_odd), float(hits / right.shape[1])


def _drawn_means(points: Mapping[str, tuple[Seeds, Seeds]]) -> NDArray[np.float64]:
    """Means over seeds that are drawn again: (2, draws, settings), memorized share and test accuracy."""
    numbers = np.array([points[name] for name in points], dtype=float)  # (settings, 2, seeds)
    n = numbers.shape[-1]
    drawn = np.random.default_rng(0).integers(n, size=(_DRAWS, n))
    return np.moveaxis(numbers[..., drawn].mean(axis=-1), 0, -1)
