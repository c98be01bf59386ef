"""Sampling error of a number that is computed on a finite number of samples, and its confidence interval."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from landscape.machine.json_values import finite_or_none

# A mean with a smaller effective number of samples has no interval. For draws of 250 samples from the curvatures of networks,
# a 95 % interval covers 94 to 96 % if the effective number is about 30 or more, and 87 to 92 % if it is 5 to 15. Draws without
# the rare large values have a larger effective number: near the threshold these are the draws that have an interval.
FEWEST = 20.0
# Up to this effective number of samples the variance that probes add is not subtracted from the variance over samples, because
# it is poorly estimated; above, a decreasing part of it is kept. A heuristic.
_CAUTIOUS = 25.0


def effective_number(parts: Float[np.ndarray, " n"]) -> float:
    """Effective number of the samples that carry a sum: 1 / sum of squared shares of the sum of |parts|; inf if all are 0.

    Example:
        >>> effective_number(np.ones(8)), effective_number(np.array([0.0, 3.0])), effective_number(np.zeros(2))
        (8.0, 1.0, inf)
    """
    sizes = np.abs(parts)
    return float(sizes.sum() ** 2 / (sizes * sizes).sum()) if sizes.any() else math.inf


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling error of a number, at fixed weights.

    The samples are taken as independent draws from a population. The target is the value on the whole population at the same
    weights, not that of a retrained network or of other data.

    Attributes:
        stderr: standard deviation of the value over draws of n samples, in the unit of the value.
        n: number of samples with positive weight.
        kind: "mean" of one value per sample, which has an interval; or "maximum", such as an eigenvalue. A maximum is fitted to
            these samples, so it is biased upwards, more in higher dimension: it has a standard deviation but no interval.
        skew: third standardized moment of the samples' values.
        carried_by: `effective_number` of the samples' values times their weights.
        floor, ceiling: bounds of the value: 0 below if no sample's value is negative, 1 above for an accuracy; None for no
            bound.
    """

    stderr: float
    n: int
    kind: Literal["mean", "maximum"] = "mean"
    skew: float = 0.0
    carried_by: float = math.inf
    floor: float | None = None
    ceiling: float | None = None

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "k n"],
        weights: Float[np.ndarray, " n"],
        probes: int | None = None,
        kind: Literal["mean", "maximum"] = "mean",
        ceiling: float | None = None,
    ) -> "Sampling | None":
        """Sampling error of a weighted mean; None for fewer than two samples, or if a value is not finite.

        Args:
            values: (k, n); estimates of every sample's value from k random probes, or one row of exact values.
            weights: weights of the samples in the mean.
            probes: number of probes in the estimate of the mean; None if it has no probe error. The covariance between probes
                is that of the samples' values; the variance within a probe also contains its noise, of which the mean
                has 1 / probes.
            kind, ceiling: as the attributes.

        Example:
            >>> found = Sampling.of(np.array([[0.0, 1.0, 2.0, 3.0]]), np.ones(4))
            >>> round(found.stderr, 6), round(found.carried_by, 6)
            (0.645497, 2.571429)
        """
        counted = weights > 0
        values, share = values[:, counted], weights[counted] / weights[counted].sum()
        n = values.shape[1]
        if n < 2 or not np.isfinite(values).all():
            return None
        # Sums and not products of vectors: a BLAS divides those of 10,000 numbers among threads, which wait for one another.
        means = (values * share).sum(1)
        apart = n * share * (values - means[:, None])  # their plain mean has the variance of the weighted mean
        within = float((apart * apart).sum(1).mean()) / (n - 1)
        k, middle = len(values), apart.mean(0)
        squares = middle * middle
        spread, carried = float(squares.sum()) / (n - 1), effective_number(values.mean(0) * share)
        variance = within
        if k > 1:
            between = max((k * spread - within) / (k - 1), 0.0)
            least = 0.0 if probes is None else 1 / probes
            part = least + max(1 / k - least, 0.0) * min(1.0, _CAUTIOUS / carried)
            variance = between + part * max(within - between, 0.0)
        return cls(
            math.sqrt(variance / n),
            n,
            kind,
            float((squares * middle).mean()) / spread**1.5 if spread > 0 else 0.0,
            carried,
            0.0 if (values >= 0).all() else None,
            ceiling,
        )

    @property
    def known(self) -> bool:
        """Whether there is an interval: for a mean whose effective number of samples is large enough."""
        return self.kind == "mean" and self.carried_by >= FEWEST

    @property
    def carriers(self) -> str:
        """How many samples carry the value, in words: "carried by 7 samples"."""
        n = round(self.carried_by) if math.isfinite(self.carried_by) else self.n
        return f"carried by {n} sample{'s' if n != 1 else ''}"

    def interval(self, value: float, method: tuple[float, float], level: float = 0.95) -> tuple[float, float] | None:
        """Confidence interval for the population's value, including the method's error; None if not `known`.

        Hall's transformation corrects Student's statistic for skewness. The degrees of freedom are the effective number of
        samples minus 1. The distances to the ends of this interval and of the method's interval are added in quadrature, on
        each side separately (method of variance estimates recovery, MOVER).

        Args:
            value: the number.
            method: distances from the value down and up to the ends of the method's interval.
            level: nominal coverage.

        Accuracy: at 95 % it covers 93 to 97 % for 250 samples or more, unless the population has rare large values that are
            not among the samples. If the effective number of samples is about `FEWEST`, the draws without such values are
            those that have an interval, and 80 to 90 % of these intervals cover. See
            `tests/measures/test_interval_coverage.py`.

        Reference: Hall 1992, J. R. Statist. Soc. B 54:221; Zou and Donner 2008, Statistics in Medicine 27:1693.
        """
        if not self.known:
            return None
        t = float(stdtrit(min(self.n, self.carried_by) - 1, (1 + level) / 2)) / math.sqrt(self.n)
        scale = self.stderr * math.sqrt(self.n)
        down, up = (abs(scale * _hall(sign * t, self.skew, self.n)) for sign in (1, -1))
        low, high = value - math.hypot(down, method[0]), value + math.hypot(up, method[1])
        return (
            low if self.floor is None else max(low, min(self.floor, value)),
            high if self.ceiling is None else min(high, max(self.ceiling, value)),
        )

    def to_json(self, interval: tuple[float, float] | None) -> dict[str, Any]:
        """The attributes and the 95 % interval, null if there is none."""
        return {
            "kind": self.kind,
            "stderr": finite_or_none(self.stderr),
            "interval": None if interval is None else [finite_or_none(b) for b in interval],
            "n": self.n,
            "skew": finite_or_none(self.skew),
            "carried_by": finite_or_none(self.carried_by),
            "floor": self.floor,
            "ceiling": self.ceiling,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> "Sampling | None":
        """Inverse of `to_json`."""
        if data is None or data["stderr"] is None:
            return None
        carried = math.inf if data["carried_by"] is None else data["carried_by"]
        return cls(data["stderr"], data["n"], data["kind"], data["skew"] or 0.0, carried, data["floor"], data["ceiling"])


def _hall(t: float, skew: float, n: int) -> float:
    """Inverse of Hall's cubic transformation: the studentized mean over sqrt(n) that it maps to t."""
    if abs(skew) < 1e-9:
        return t
    return float(3 / skew * (np.cbrt(1 + skew * (t - skew / (6 * n))) - 1))
