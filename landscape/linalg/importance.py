"""Sums of many terms by importance: the heaviest exactly, the others by draws in proportion to weights that are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit

# Terms that a pilot finds exactly; it draws twice as many of the others.
PILOT = 16
# The fewest draws of an estimate: with fewer, the rare large term is missed too often for the interval to cover.
LEAST = 64
# Heaviest terms among which the number to be found exactly is chosen.
_MOST_HEAVY = 1 << 14
# Draws are made in blocks of this size, so that more of them begin with the same.
_BLOCK = 64


@dataclass(frozen=True)
class Part:
    """An estimate of a sum, by quantity.

    Attributes:
        value, variance: (q,) of the estimate; the variance is 0 where all is exact.
        freedom: degrees of freedom of the variance.
    """

    value: Float[np.ndarray, " q"]
    variance: Float[np.ndarray, " q"]
    freedom: float

    def interval_factor(self) -> float:
        """Student's 97.5 % quantile."""
        return float(stdtrit(self.freedom, 0.975))


class Terms:
    """Terms x_i of a sum, each found at a cost, and weights w_i > 0 to which they are roughly proportional.

    sum_i x_i = sum of the c heaviest + W E[x_i / w_i] for i drawn with probability w_i / W from the others, whose weights sum
    to W (Hansen and Hurwitz 1943). The estimate is unbiased for all weights; its error is that of the ratio x_i / w_i. A
    term is found once, however often it is drawn or asked for.

    Args:
        weights: (M,) not negative.
        find: (indices (k,), ascending) -> (k, q) float64, the terms of q sums.
        seed: of the draws.

    Example:
        >>> terms = Terms(np.array([4.0, 3.0, 2.0, 1.0]), lambda i: np.array([[8.0], [6.0], [4.0], [2.0]])[i], seed=0)
        >>> float(terms.estimate(heavy=1, draws=20).value[0])
        20.0
    """

    def __init__(
        self, weights: Float[np.ndarray, " M"], find: Callable[[Int[np.ndarray, " k"]], Float[np.ndarray, "k q"]], seed: int
    ) -> None:
        self.length = len(weights)
        alive = np.flatnonzero(weights > 0)
        self.order = alive[np.argsort(-weights[alive], kind="stable")]
        self.weights = weights[self.order]
        self._sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        self._find, self._seed = find, seed
        self._known: dict[int, Float[np.ndarray, " q"]] = {}
        self._streams: dict[tuple[int, int], list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.order)

    def rest(self, heavy: int) -> float:
        """The weight of all but the heaviest."""
        return float(self._sums[-1] - self._sums[heavy])

    def of(self, ranks: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k q"]:
        """The terms at these places in the order of the weights."""
        missing = np.array([r for r in np.unique(ranks) if int(r) not in self._known], dtype=np.int64)
        if len(missing):
            indices = self.order[missing]
            by_index = np.argsort(indices)
            values = self._find(indices[by_index])
            self._known.update(zip(missing[by_index].tolist(), values, strict=True))
        return np.stack([self._known[int(r)] for r in ranks])

    def drawn(self, heavy: int, draws: int, stage: int = 0) -> Int[np.ndarray, " k"]:
        """The first draws from all but the heaviest: their places. The same, however many are asked for later.

        Draws of another stage are independent: those of a pilot that says how many to make are not among those that are made.
        """
        stream = self._streams.setdefault((heavy, stage), [])
        while len(stream) * _BLOCK < draws:
            key = ((self._seed * 1_000_003 + heavy) * 4_099 + len(stream)) * 2 + stage
            g = torch.Generator().manual_seed(key & 0x7FFF_FFFF_FFFF_FFFF)
            at = self._sums[heavy] + torch.rand(_BLOCK, generator=g, dtype=torch.float64).numpy() * self.rest(heavy)
            found = np.searchsorted(self._sums, at, side="right") - 1
            stream.append(np.clip(found, heavy, len(self) - 1))
        return np.concatenate(stream)[:draws]

    def ratios(self, heavy: int, draws: int, stage: int = 0) -> Float[np.ndarray, "k q"]:
        """x / w of the first draws."""
        at = self.drawn(heavy, draws, stage)
        return self.of(at) / self.weights[at][:, None]

    def estimate(self, heavy: int, draws: int, stage: int = 0) -> Part:
        """The sum, from the heaviest and the first draws of the others; exact where there are no others."""
        exact = self.of(np.arange(heavy)).sum(0) if heavy else 0.0
        if heavy == len(self):
            return Part(np.asarray(exact, dtype=float), np.zeros_like(exact), np.inf)
        ratios, rest = self.ratios(heavy, draws, stage), self.rest(heavy)
        return Part(exact + rest * ratios.mean(0), rest**2 * variance_of_mean(ratios), draws - 1.0)

    def heaviest(self, spread: float, mean: float, deviation: float) -> int:
        """How many to find exactly, for the least terms in all: c + `draws_to` for the others.

        Args:
            spread, mean: standard deviation and mean of a ratio x / w.
            deviation: of the estimate that is wanted.
        """
        first, last = min(PILOT, len(self)), min(len(self), _MOST_HEAVY)
        heavy = np.arange(first, last + 1)
        rest = self._sums[-1] - self._sums[heavy]
        draws = np.where(heavy < len(self), np.maximum(LEAST, draws_to(deviation, spread * rest, mean * rest)), 0)
        return int(heavy[np.argmin(heavy + draws)])


class Redrawn(Terms):
    """Terms that are themselves drawn: x_i is an unbiased estimate of the term, with new random numbers at every draw.

    None can be found exactly, so that the number of heaviest ones is 0.

    Args:
        weights, seed: as for `Terms`.
        find: (numbers of draws (k,), their terms' indices (k,)) -> (k, q) float64.
    """

    def __init__(
        self,
        weights: Float[np.ndarray, " M"],
        find: Callable[[Int[np.ndarray, " k"], Int[np.ndarray, " k"]], Float[np.ndarray, "k q"]],
        seed: int,
    ) -> None:
        super().__init__(weights, lambda indices: find(indices, indices), seed)
        self._again, self._seen = find, [np.zeros((0, 0))] * 2

    def ratios(self, heavy: int, draws: int, stage: int = 0) -> Float[np.ndarray, "k q"]:
        """x / w of the first draws."""
        seen = self._seen[stage]
        if draws > len(seen):
            fresh = np.arange(len(seen), draws)
            at = self.drawn(0, draws, stage)[fresh]
            found = self._again(fresh * 2 + stage, self.order[at]) / self.weights[at][:, None]
            seen = self._seen[stage] = np.concatenate([seen, found]) if len(seen) else found
        return seen[:draws]

    def heaviest(self, spread: float, mean: float, deviation: float) -> int:
        """None."""
        return 0


def variance_of_mean(draws: Float[np.ndarray, "n q"]) -> Float[np.ndarray, " q"]:
    """Variance of a mean of n draws that may be skewed: s^2 / n, and (2 mean / n)^2 for what they may not have shown.

    In n draws an event of probability 3 / n goes unseen one time in twenty (rule of three). The second term is that of such an
    event of the size of the mean; it goes with 1 / n, so that it counts for few draws only. Student's interval alone covers
    too little there: the ratios of the lightest terms are skewed, and their spread is small where the rare large one is missed.
    """
    n = len(draws)
    return draws.var(0, ddof=1) / n + (2.0 * draws.mean(0) / n) ** 2


def draws_to(deviation: float, spread: np.ndarray | float, mean: np.ndarray | float) -> Any:
    """The number of draws n for which `variance_of_mean` is deviation^2: the root of n^2 d^2 = n spread^2 + (2 mean)^2.

    Example:
        >>> n = draws_to(0.1, spread=1.0, mean=5.0)
        >>> round(float(1.0**2 / n + (2 * 5.0 / n) ** 2), 9)
        0.01
    """
    least = max(deviation, 1e-100)  # the square of which is a number, too
    square = np.square(spread / least)
    return np.minimum((square + np.hypot(square, 4.0 * mean / least)) / 2.0, 1e12)


def combined(*parts: Part) -> Part:
    """The sum of independent estimates; degrees of freedom after Welch and Satterthwaite, for the first quantity."""
    value, variance = np.sum([p.value for p in parts], axis=0), np.sum([p.variance for p in parts], axis=0)
    below = sum(float(p.variance[0]) ** 2 / p.freedom for p in parts)
    return Part(value, variance, float(variance[0]) ** 2 / below if below > 0 else np.inf)
