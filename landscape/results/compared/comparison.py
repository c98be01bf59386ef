"""Comparison of groups of checkpoints: values by group, differences, rank correlations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from landscape.machine.json_values import plain
from landscape.results.compared.group_statistics import Difference, GroupValue
from landscape.results.compared.rank_statistics import Granulated, PartialCorrelation, RankCorrelation, SignError
from landscape.results.drawing import drawing, panels
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed
from landscape.results.sharpness import Sharpness

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Comparison(Printed):
    """Measures of groups of checkpoints, their differences, and their correlation with the generalization gap.

    Attributes:
        groups: name -> the runs' Sharpness, in the order given.
        gaps: name -> training accuracy minus test accuracy of every run; None without a test split.
        table: measure -> group -> GroupValue.
        rank_correlation: measure -> Kendall's tau-b with the gap over all runs; empty for fewer than three runs.
        partial: measure -> partial Spearman correlation with the gap, hyperparameters and training loss held fixed.
        sign_error: measure -> sign error for the gap in the worst environment; empty without hyperparameters, or gap.
        memorization: measure -> difference between all runs that memorized and all others; its AUC says how well the measure
            tells them apart. Empty unless it is known of every run, and both kinds are there.
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
    partial: dict[str, PartialCorrelation] = field(default_factory=dict)
    sign_error: dict[str, SignError] = field(default_factory=dict)
    memorization: dict[str, Difference] = field(default_factory=dict)
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

    def partial_rows(self) -> list[tuple[str, ...]]:
        """(measure, partial correlation with its interval, q, worst sign error with its interval, its environment)."""
        out: list[tuple[str, ...]] = []
        for name in self.rank_correlation:
            r, e = self.partial.get(name), self.sign_error.get(name)
            if r is None and e is None:
                continue
            rho = ("–", "–") if r is None else (interval_cell(r.rho, r.low, r.high, "+.2f"), f"{r.q:.2g}")
            error = ("–", "") if e is None else (interval_cell(e.worst, e.low, e.high, ".2f"), e.environment or "")
            out.append((name, *rho, *error))
        return out

    def memorization_rows(self) -> list[tuple[str, ...]]:
        """(measure, AUC for runs that memorized with its interval, p, q)."""
        return [
            (
                name,
                interval_cell(d.auc, d.auc_low, d.auc_high, ".2f"),
                f"{d.p:.2g}" if d.exact else f"{d.p:.2g} (random)",
                f"{d.q:.2g}{' *' if d.found else ''}",
            )
            for name, d in self.memorization.items()
        ]

    def cells(self) -> Cells:
        """The medians of the groups and the rank correlation, then the remarks."""
        return Cells(("", *self.groups, "tau"), self.rows(), after=self.remarks)

    def records(self) -> list[Mapping[str, Any]]:
        """One row per quantity and group: the median, and its interval or the range of the runs."""
        return [
            {"quantity": name, "group": group, "median": v.median, "low": v.low, "high": v.high, "runs": v.n}
            for name, values in (*self.conditions.items(), *self.table.items())
            for group, v in values.items()
        ]

    @drawing
    def plot(
        self, axes: "Sequence[Axes] | None" = None, *, measures: "Sequence[str] | None" = None, caption: bool = False
    ) -> "list[Axes]":
        """Draw every measure of the groups, one panel each, with the medians' intervals and the q-value of two groups.

        Args:
            axes: one for each panel; None makes a figure.
            measures: names of measures; default: all.
            caption: whether the new figure has a title and its provenance.
        """
        found: list[Axes] = panels(self, axes, caption, measures=measures)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "groups": {name: [s.to_json() for s in runs] for name, runs in self.groups.items()},
            "gaps": self.gaps,
            "table": _grouped(self.table),
            "rank_correlation": {m: plain(t._asdict()) for m, t in self.rank_correlation.items()},
            "partial": {m: plain(r._asdict()) for m, r in self.partial.items()},
            "sign_error": {m: e.to_json() for m, e in self.sign_error.items()},
            "memorization": {m: d.to_json() for m, d in self.memorization.items()},
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
            partial={
                m: PartialCorrelation(**r | {"controls": tuple(r["controls"])}) for m, r in data.get("partial", {}).items()
            },
            sign_error={m: SignError(**e) for m, e in data.get("sign_error", {}).items()},
            memorization={m: Difference.from_json(d) for m, d in data.get("memorization", {}).items()},
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
