"""Statistics of groups of runs: medians, and differences between two groups."""

import math
from dataclasses import dataclass
from typing import Any

from landscape.machine.json_values import finite_or_none, plain

# Expected share of false discoveries among the differences that are called significant.
FALSE_DISCOVERY = 0.05


@dataclass(frozen=True)
class GroupValue:
    """One quantity over one group of runs.

    Attributes:
        median: median over the runs.
        low, high: 95 % bootstrap interval of the median if the group has at least five runs, else the smallest and largest
            value.
        n: number of runs with a value.
        is_interval: whether low and high are a confidence interval; the range of fewer than five runs is none.
    """

    median: float
    low: float
    high: float
    n: int
    is_interval: bool

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        ends = {k: finite_or_none(getattr(self, k)) for k in ("median", "low", "high")}
        return ends | {"n": self.n, "is_interval": self.is_interval}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "GroupValue":
        """Inverse of `to_json`."""
        median, low, high = (math.nan if data[k] is None else float(data[k]) for k in ("median", "low", "high"))
        return cls(median, low, high, data["n"], data["is_interval"])


@dataclass(frozen=True)
class Difference:
    """Difference of one quantity between two groups: its significance and its size.

    Attributes:
        name: the measure, or "train_loss", "gap", ...
        a, b: names of the groups.
        n: number of runs in each.
        p: two-sided p-value of a permutation test on ranks; the null hypothesis is that the runs are exchangeable.
        exact: whether p enumerates all permutations; else it samples them, with p = (b + 1) / (m + 1).
        smallest_p: the smallest p-value that groups of these sizes can give.
        q: p adjusted by Benjamini and Hochberg, over all tests of the comparison or over its family (measures, or losses,
            accuracies and gap), whichever is larger. A difference is significant if q <= FALSE_DISCOVERY.
        delta: Cliff's delta, P(a > b) - P(a < b) over pairs of runs, in [-1, 1].
        delta_low, delta_high: its 95 % interval; None for fewer than five runs in a group.
        ratio: median of a / median of b; None unless all values are positive and finite.
        ratio_low, ratio_high: its 95 % interval; None for fewer than five runs in a group.
    """

    name: str
    a: str
    b: str
    n: tuple[int, int]
    p: float
    exact: bool
    smallest_p: float
    q: float
    delta: float
    delta_low: float | None
    delta_high: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None

    @property
    def auc(self) -> float:
        """Area under the ROC curve of this quantity for telling a from b: P(a > b) + P(a = b) / 2 = (1 + delta) / 2.

        1 if every run of a has the larger value, 0 if every run of b has, 1/2 for chance.
        """
        return (1 + self.delta) / 2

    @property
    def auc_low(self) -> float | None:
        """Lower end of the 95 % interval of the AUC; None for fewer than five runs in a group."""
        return None if self.delta_low is None else (1 + self.delta_low) / 2

    @property
    def auc_high(self) -> float | None:
        """Upper end of the 95 % interval of the AUC; None for fewer than five runs in a group."""
        return None if self.delta_high is None else (1 + self.delta_high) / 2

    @property
    def found(self) -> bool:
        """Whether the difference is significant: q <= FALSE_DISCOVERY."""
        return self.q <= FALSE_DISCOVERY

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        out = {k: plain(getattr(self, k)) for k in self.__dataclass_fields__}
        return out | {k: getattr(self, k) for k in ("auc", "auc_low", "auc_high", "found")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Difference":
        """Inverse of `to_json`."""
        own = {k: data[k] for k in cls.__dataclass_fields__} | {"n": (data["n"][0], data["n"][1])}
        return cls(**own)
