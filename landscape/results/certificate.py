"""Every measure before and after a change of the weights that keeps the function."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from landscape.machine.json_values import finite_or_none
from landscape.results.drawing import drawing, plotted
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Verdict = Literal["invariant", "moved", "within doubt", "unmoved here", "CLAIM BROKEN", "not comparable", "not defined"]

HEAD = ("measure", "before", "after", "ratio", "verdict")


@dataclass(frozen=True)
class CertificateRow:
    """One measure before and after a change of the weights.

    Attributes:
        name: the measure.
        before, after: its values at the two sets of weights.
        claimed: whether the registry claims that the measure is invariant to this change.
        verdict: one of

            - "invariant": claimed invariant, and unchanged.
            - "CLAIM BROKEN": claimed invariant, but changed.
            - "moved": not claimed invariant, and changed, although the function did not.
            - "within doubt": not claimed invariant; the change is smaller than the two intervals explain.
            - "unmoved here": not claimed invariant, but this change moved it by rounding only.
            - "not comparable": a value is not finite or not converged, or the functions differ.
            - "not defined": the measure does not exist for this network; `before` has the reason.
    """

    name: str
    before: Estimate
    after: Estimate
    claimed: bool
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """after / before; 1 if both are 0, nan if only `before` is 0."""
        if self.before.value == 0:
            return 1.0 if self.after.value == 0 else math.nan
        return self.after.value / self.before.value

    @property
    def factor(self) -> float:
        """Factor by which the measure changed, up or down: max(ratio, 1 / ratio); inf if the sign changed."""
        ratio = self.ratio
        if not ratio > 0:
            return math.nan if math.isnan(ratio) else math.inf
        return max(ratio, 1 / ratio)


@dataclass(frozen=True)
class Certificate(Printed):
    """Evidence that two networks compute the same function, with every measure of both.

    Attributes:
        rows: one per measure.
        symmetry: the family of symmetries, or several joined by " + "; None for a change of no known family, to which no claim
            applies.
        max_delta_logit: largest |difference| of any output over the samples, in float64.
        logit_scale: largest |output| before the change, the scale of `max_delta_logit`.
        same_function: max_delta_logit <= tolerance * logit_scale.
        samples: number of samples on which the outputs were compared.
        scaling: changed parameter -> (smallest, largest) factor; empty unless every weight was multiplied by a positive factor.
        provenance: seed, dtype, versions.
        nearly: whether the outputs differ by more than rounding, because of a normalization's eps.
        constant: whether the outputs of each sample moved by a constant that the loss ignores; `max_delta_logit` is without it.
    """

    rows: tuple[CertificateRow, ...]
    symmetry: str | None
    max_delta_logit: float
    logit_scale: float
    same_function: bool
    samples: int
    scaling: dict[str, tuple[float, float]]
    provenance: dict[str, Any] = field(default_factory=dict)
    nearly: bool = False
    constant: bool = False

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """Cells under `HEAD`, one row per measure: the values with the method's error (95 %)."""
        return [
            (r.name, _shown(r.before), _shown(r.after), f"{r.ratio:.6g}" if math.isfinite(r.ratio) else "–", r.verdict)
            for r in self.rows
        ]

    @property
    def broken(self) -> list[str]:
        """Measures that are claimed invariant but changed."""
        return [r.name for r in self.rows if r.verdict == "CLAIM BROKEN"]

    def verdict_line(self) -> str:
        """All verdicts in one line: the claims that hold or fail, and the largest change of the other measures."""
        count = Counter(r.verdict for r in self.rows)
        parts = [] if self.symmetry is not None else ["unknown change: no claim applies"]
        if self.broken:
            parts.append(f"CLAIM BROKEN: {', '.join(self.broken)}")
        if count["invariant"]:
            parts.append(f"{count['invariant']} invariant, as claimed")
        moved = [r for r in self.rows if r.verdict == "moved"]
        if moved:
            furthest = max(moved, key=lambda r: r.factor if r.factor == r.factor else 0.0)
            far = f"by up to a factor of {furthest.factor:.4g} ({furthest.name})" if furthest.factor < math.inf else ""
            parts.append(f"{len(moved)} moved {far or f'({furthest.name} changed its sign)'}")
        parts += [f"{count[v]} {v}" for v in ("within doubt", "unmoved here", "not comparable", "not defined") if count[v]]
        return "; ".join(parts)

    def function_line(self) -> str:
        """The comparison of the two networks' outputs in one line."""
        relative = self.max_delta_logit / self.logit_scale if self.logit_scale else 0.0
        word = "the same function" if self.same_function else "NOT THE SAME FUNCTION"
        if self.same_function and self.nearly:
            word = f"nearly the same function, {relative:.2e} relative, because of eps"
        constant = " but for one constant a sample, which the loss ignores" if self.constant else ""
        return (
            f"{word}: max |Δlogit| = {self.max_delta_logit:.2e} in float64{constant}, largest |logit| {self.logit_scale:.3g}, "
            f"{self.samples} samples"
        )

    def cells(self) -> Cells:
        """Whether the function is the same, the measures before and after, and the verdict."""
        return Cells(HEAD, self.table(), (self.function_line(),), (self.verdict_line(),))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per measure."""
        return [
            {"measure": r.name, "before": r.before.value, "after": r.after.value, "ratio": r.ratio, "verdict": r.verdict}
            | {"claimed_invariant": r.claimed}
            for r in self.rows
        ]

    @drawing
    def plot(self, ax: "Axes | None" = None, *, caption: bool = False) -> "Axes":
        """Draw every measure's ratio after / before, a row each."""
        return plotted(self, ax, caption)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        rows = [
            {
                "name": r.name,
                "before": r.before.to_json(),
                "after": r.after.to_json(),
                "ratio": finite_or_none(r.ratio),
                "claimed_invariant": r.claimed,
                "verdict": r.verdict,
            }
            for r in self.rows
        ]
        return {
            "symmetry": self.symmetry,
            "same_function": self.same_function,
            "nearly": self.nearly,
            "constant": self.constant,
            "max_delta_logit": self.max_delta_logit,
            "logit_scale": self.logit_scale,
            "samples": self.samples,
            "scaling": {k: list(v) for k, v in self.scaling.items()},
            "rows": rows,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Certificate":
        """Inverse of `to_json`; other keys are ignored."""
        rows = tuple(
            CertificateRow(
                r["name"], Estimate.from_json(r["before"]), Estimate.from_json(r["after"]), r["claimed_invariant"], r["verdict"]
            )
            for r in data["rows"]
        )
        scaling = {k: (v[0], v[1]) for k, v in data["scaling"].items()}
        own = {k: data[k] for k in ("symmetry", "max_delta_logit", "logit_scale", "same_function", "samples", "provenance")}
        own |= {k: data.get(k, False) for k in ("nearly", "constant")}
        return cls(rows=rows, scaling=scaling, **own)


def _shown(estimate: Estimate) -> str:
    """A value with the method's error, short enough for a table of 130 columns."""
    if math.isnan(estimate.value):
        return "–"
    text = f"{estimate.value:.5g}"
    bounds = estimate.interval()
    if estimate.kind == "lower bound":
        text = f"≥ {text}"
    elif bounds is not None and estimate.kind != "exact":
        text += f" ± {(bounds[1] - bounds[0]) / 2:.2g}"
    return text if estimate.converged else f"{text}, not converged"
