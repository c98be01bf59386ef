"""The doubt of a number that comes from having only these samples, and the interval that may be called 95 %."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from landscape.machine.json_values import finite_or_none

# Fewer samples that carry a mean than this, and it has no interval: for draws of 250 from networks' own curvatures the one
# below covers 94 to 96 % where some 30 or more carry the mean, 87 to 92 % where 5 to 15 do. Draws that lack the rare large
# values seem to be carried by more: near the threshold these are the ones that have an interval.
FEWEST = 20.0
# Up to so many, what a few probes add to the spread over samples is not taken off again: how much it is, is told from so few
# samples too badly. Beyond, as much less of it is left in. A heuristic.
_CAUTIOUS = 25.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """What the samples say of a number that was computed on them, at fixed weights.

    The samples count as independent draws from a population, and the number asked for is its value on that whole population, at
    the very same weights: not for a network trained anew, and not for data of another kind.

    Attributes:
        stderr: standard deviation of the value over draws of so many samples, in the unit of the value.
        n: samples that count.
        kind: "mean" of one value a sample, which has an interval; or "maximum", such as an eigenvalue: fitted to these very
            samples it is too large on average, the more so the more directions compete, so it has a spread and no interval.
        skew: third standardized moment of the samples' own values.
        carried_by: how many samples carry the mean: 1 / sum of their squared shares of it (of the sizes of their values).
        floor, ceiling: what the value cannot be below and above: 0 where no sample's own value is negative, 1 for an accuracy;
            None for no bound.
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
        """Of a weighted mean over samples; None where fewer than two of them count, or a value is not finite.

        Args:
            values: (k, n); what k random probes see of every sample, or one row of what is known exactly.
            weights: of the samples in the mean.
            probes: how many probes the number itself was made with; None for no error of that kind. Between two probes the
                samples covary as their own values do, within one they vary by the probe's noise too: of that
                the number has 1 / probes.
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
        apart = n * share * (values - (values @ share)[:, None])  # so that the plain mean varies as the weighted one does
        within = float((apart**2).sum(1).mean()) / (n - 1)
        k, middle = len(values), apart.mean(0)
        spread, each = float(middle @ middle) / (n - 1), np.abs(values.mean(0)) * share
        carried = float(each.sum() ** 2 / (each @ each)) if each.any() else math.inf
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
            float((middle**3).mean()) / spread**1.5 if spread > 0 else 0.0,
            carried,
            0.0 if (values >= 0).all() else None,
            ceiling,
        )

    @property
    def known(self) -> bool:
        """Whether there is an interval: of a mean that enough samples carry."""
        return self.kind == "mean" and self.carried_by >= FEWEST

    def interval(self, value: float, method: tuple[float, float], level: float = 0.95) -> tuple[float, float] | None:
        """Interval that holds the population's value with probability `level`, the method's doubt in it; None if not `known`.

        Hall's transformation takes the skewness out of Student's statistic, whose degrees of freedom are those of the samples
        that carry the mean: they decide how well its spread is known. Its distances and those of the method's interval
        add up as squares, each side for itself (variance estimates recovery).

        Args:
            value: the number.
            method: distances down and up to the ends of the method's own interval.
            level: its coverage.

        Accuracy: covers 93 to 97 % at 95 % for 250 samples and more, as far as the samples show how far the population's values
            reach: rare ones that are not among them nobody can know of. Where about `FEWEST` samples carry the mean, the draws
            without such ones are those that have an interval, and some 80 to 90 % of these cover. See
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
        """Its attributes, and the 95 % interval that follows, null where there is none."""
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
    """The studentized mean, over sqrt(n), at which Hall's cubic of it is t."""
    if abs(skew) < 1e-9:
        return t
    return float(3 / skew * (np.cbrt(1 + skew * (t - skew / (6 * n))) - 1))
