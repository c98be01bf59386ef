"""Comparison of groups of checkpoints: values by group, differences, rank correlations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from landscape.machine.json_values import finite_or_none, plain
from landscape.results.estimate import Estimate
from landscape.results.sharpness import Sharpness

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
    def superiority(self) -> float:
        """P(a > b) + P(a = b) / 2."""
        return (1 + self.delta) / 2

    @property
    def found(self) -> bool:
        """Whether the difference is significant: q <= FALSE_DISCOVERY."""
        return self.q <= FALSE_DISCOVERY

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        out = {k: plain(getattr(self, k)) for k in self.__dataclass_fields__}
        return out | {"superiority": self.superiority, "found": self.found}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Difference":
        """Inverse of `to_json`."""
        own = {k: data[k] for k in cls.__dataclass_fields__} | {"n": (data["n"][0], data["n"][1])}
        return cls(**own)


class RankCorrelation(NamedTuple):
    """Kendall's tau-b of a measure with the generalization gap over all runs.

    Attributes:
        tau: rank correlation, in [-1, 1].
        p: two-sided p-value; the null hypothesis is no association between independent runs.
        q: p adjusted for all measures (Benjamini-Hochberg).
        low, high: 95 % bootstrap interval; None for fewer than eight runs.
        n: number of runs.
    """

    tau: float
    p: float
    q: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Granulated:
    """Granulated rank correlation Psi of a measure with the generalization gap.

    Attributes:
        psi: mean over hyperparameters; None if no two runs differ in a single one.
        low, high: 95 % bootstrap interval; None if there are too few pairs.
        by_hyperparameter: psi of each hyperparameter with at least one pair.
        pairs: for each varying hyperparameter, the number of pairs of runs that differ in it alone.
        reason: why a value is missing; None if none is.
    """

    psi: float | None
    low: float | None
    high: float | None
    by_hyperparameter: dict[str, float]
    pairs: dict[str, int]
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {k: plain(getattr(self, k)) for k in self.__dataclass_fields__}


@dataclass(frozen=True)
class Comparison:
    """Measures of groups of checkpoints, their differences, and their correlation with the generalization gap.

    Attributes:
        groups: name -> the runs' Sharpness, in the order given.
        gaps: name -> training accuracy minus test accuracy of every run; None without a test split.
        table: measure -> group -> GroupValue.
        rank_correlation: measure -> Kendall's tau-b with the gap over all runs; empty for fewer than three runs.
        barriers: "A to B" -> {"loss": height, "test_loss": height, ...} of straight lines between runs.
        remarks: limits of the conclusions, with reasons; warnings come first.
        warnings: the first of the remarks: read them before trusting a difference.
        scores: "train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap" -> group -> one Estimate per run, as far
            as they are known.
        conditions: the same names -> group -> GroupValue.
        differences: one per measure and pair of groups, then one per condition and pair of groups.
        granulated: measure -> Psi over the recorded hyperparameters; empty if there are none, or no gap.
        hyperparameters: group -> one dictionary per run, with the hyperparameters that vary over the runs.
        left_out: measure -> why it is not tested.
        excluded: (group, checkpoint, reason) of runs that were left out.
    """

    groups: dict[str, list[Sharpness]]
    gaps: dict[str, list[float]] | None
    table: dict[str, dict[str, GroupValue]]
    rank_correlation: dict[str, RankCorrelation]
    barriers: dict[str, dict[str, float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    scores: dict[str, dict[str, list[Estimate]]] = field(default_factory=dict)
    conditions: dict[str, dict[str, GroupValue]] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    granulated: dict[str, Granulated] = field(default_factory=dict)
    hyperparameters: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    excluded: tuple[tuple[str, str, str], ...] = ()

    def rows(self) -> list[tuple[str, ...]]:
        """(quantity, one cell per group, tau with the gap): conditions first, then measures."""
        out = []
        for name, values in (*self.conditions.items(), *self.table.items()):
            tau = self.rank_correlation.get(name)
            out.append((name, *map(group_cell, values.values()), "" if tau is None else f"{tau.tau:+.2f} (p = {tau.p:.2g})"))
        return out

    def difference_rows(self, names: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """(quantity, pair, Cliff's delta, ratio of medians, p, q) of every pair of groups."""
        return [
            (
                d.name,
                f"{d.a} / {d.b}",
                interval_cell(d.delta, d.delta_low, d.delta_high, "+.2f"),
                interval_cell(d.ratio, d.ratio_low, d.ratio_high, ".3g"),
                f"{d.p:.2g}" if d.exact else f"{d.p:.2g} (random)",
                f"{d.q:.2g}{' *' if d.found else ''}",
            )
            for d in self.differences
            if names is None or d.name in names
        ]

    def correlation_rows(self) -> list[tuple[str, ...]]:
        """(measure, Kendall's tau with its interval, p, q, Psi with its interval)."""
        out: list[tuple[str, ...]] = []
        for name, t in self.rank_correlation.items():
            psi = self.granulated.get(name)
            cell = "" if psi is None else interval_cell(psi.psi, psi.low, psi.high, "+.2f")
            out.append((name, interval_cell(t.tau, t.low, t.high, "+.2f"), f"{t.p:.2g}", f"{t.q:.2g}", cell))
        return out

    def __str__(self) -> str:
        from landscape.results.sharpness import aligned

        return "\n".join((*aligned([("", *self.groups, "tau"), *self.rows()]), *self.remarks))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "groups": {name: [s.to_json() for s in runs] for name, runs in self.groups.items()},
            "gaps": self.gaps,
            "table": _grouped(self.table),
            "rank_correlation": {m: plain(t._asdict()) for m, t in self.rank_correlation.items()},
            "barriers": plain(self.barriers),
            "remarks": list(self.remarks),
            "scores": {
                name: {group: [e.to_json() for e in runs] for group, runs in by_group.items()}
                for name, by_group in self.scores.items()
            },
            "conditions": _grouped(self.conditions),
            "differences": [d.to_json() for d in self.differences],
            "granulated": {m: g.to_json() for m, g in self.granulated.items()},
            "hyperparameters": plain(self.hyperparameters),
            "left_out": dict(self.left_out),
            "excluded": [dict(zip(("group", "checkpoint", "reason"), run, strict=True)) for run in self.excluded],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Comparison":
        """Inverse of `to_json`; other keys are ignored."""
        return cls(
            groups={name: [Sharpness.from_json(s) for s in runs] for name, runs in data["groups"].items()},
            gaps=data["gaps"],
            table=_ungrouped(data["table"]),
            rank_correlation={m: RankCorrelation(**t) for m, t in data["rank_correlation"].items()},
            barriers=data["barriers"],
            remarks=tuple(data["remarks"]),
            scores={
                name: {group: [Estimate.from_json(e) for e in runs] for group, runs in by_group.items()}
                for name, by_group in data["scores"].items()
            },
            conditions=_ungrouped(data["conditions"]),
            differences=tuple(Difference.from_json(d) for d in data["differences"]),
            granulated={m: Granulated(**g) for m, g in data["granulated"].items()},
            hyperparameters=data["hyperparameters"],
            left_out=data["left_out"],
            excluded=tuple((run["group"], run["checkpoint"], run["reason"]) for run in data["excluded"]),
        )


def group_cell(value: GroupValue) -> str:
    """A group's median with its interval in brackets, or with the range of too few runs in braces."""
    if not value.n:
        return "not defined"
    if value.n == 1:
        return f"{value.median:.4g}"
    left, right = "[]" if value.is_interval else "{}"
    return f"{value.median:.4g} {left}{value.low:.3g}, {value.high:.3g}{right}"


def interval_cell(value: float | None, low: float | None, high: float | None, form: str) -> str:
    """A value, with its interval if there is one; a dash for None."""
    if value is None:
        return "–"
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _grouped(table: Mapping[str, Mapping[str, GroupValue]]) -> dict[str, dict[str, Any]]:
    """A table of GroupValues as plain dictionaries."""
    return {name: {group: v.to_json() for group, v in values.items()} for name, values in table.items()}


def _ungrouped(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, GroupValue]]:
    """Inverse of `_grouped`."""
    return {name: {group: GroupValue.from_json(v) for group, v in values.items()} for name, values in table.items()}
