"""Groups of checkpoints side by side."""

from dataclasses import dataclass, field
from typing import Any

from landscape.plain import finite_or_none
from landscape.results.sharpness import Sharpness


@dataclass(frozen=True)
class GroupValue:
    """One measure over one group of runs.

    Attributes:
        median: over the runs.
        low, high: 95 % bootstrap interval of the median where the group has at least five runs, else its smallest and
            largest value.
        n: runs.
        is_interval: whether low and high are an interval; a range of fewer than five runs says nothing about other runs.
    """

    median: float
    low: float
    high: float
    n: int
    is_interval: bool


@dataclass(frozen=True)
class Comparison:
    """Measures of groups of checkpoints, and how they go with generalization.

    Attributes:
        groups: name -> the runs' Sharpness, in the order given.
        gaps: name -> training accuracy less test accuracy of every run; None where there is no test split.
        table: measure -> group -> GroupValue.
        rank_correlation: measure -> (Kendall's tau-b with the gap over all runs, its two-sided p-value); empty below three
            runs.
        barriers: "A to B" -> {"loss": height, "test_loss": height, ...} of straight lines between runs.
        remarks: what cannot be concluded, and why.
    """

    groups: dict[str, list[Sharpness]]
    gaps: dict[str, list[float]] | None
    table: dict[str, dict[str, GroupValue]]
    rank_correlation: dict[str, tuple[float, float]]
    barriers: dict[str, dict[str, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """(measure, one cell a group, tau) as the table shows them."""
        out = []
        for measure, values in self.table.items():
            cells = [f"{v.median:.4g} [{v.low:.4g}, {v.high:.4g}]" for v in values.values()]
            tau = self.rank_correlation.get(measure)
            out.append((measure, *cells, "" if tau is None else f"{tau[0]:+.2f} (p = {tau[1]:.2g})"))
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "groups": {name: [s.to_json() for s in runs] for name, runs in self.groups.items()},
            "gaps": self.gaps,
            "table": {
                measure: {
                    group: {
                        "median": finite_or_none(v.median), "low": finite_or_none(v.low), "high": finite_or_none(v.high),
                        "n": v.n, "is_interval": v.is_interval,
                    }
                    for group, v in values.items()
                }
                for measure, values in self.table.items()
            },
            "rank_correlation": {m: {"tau": t, "p": p} for m, (t, p) in self.rank_correlation.items()},
            "barriers": self.barriers,
            "remarks": list(self.remarks),
        }  # fmt: skip
