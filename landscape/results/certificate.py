"""What a rescaling of the weights did to every measure."""

from dataclasses import dataclass, field
from typing import Any, Literal

from landscape.results.estimate import Estimate
from landscape.results.sharpness import aligned

Verdict = Literal["invariant", "moved", "unmoved here", "CLAIM BROKEN", "not comparable"]


@dataclass(frozen=True)
class CertificateRow:
    """One measure before and after.

    Attributes:
        name: the measure.
        before, after: its values at the two sets of weights.
        claimed: whether the registry claims that this rescaling leaves it unchanged.
        verdict: "invariant" (claimed, and it did not move), "moved" (not claimed, and it moved: rescaling can fake it),
            "unmoved here" (not claimed, but this rescaling left it within the tolerance), "CLAIM BROKEN" (claimed, and it
            moved), "not comparable" (a value is not finite or not converged).
    """

    name: str
    before: Estimate
    after: Estimate
    claimed: bool
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """after / before; nan where the value before is 0."""
        return self.after.value / self.before.value if self.before.value else float("nan")


@dataclass(frozen=True)
class Certificate:
    """Proof that two networks compute the same function, beside what each measure says of them.

    Attributes:
        rows: one a measure.
        symmetry: "layer" or "node".
        max_delta_logit: largest |difference| of any output over the samples, in float64.
        logit_scale: largest |output| before, to read `max_delta_logit` against.
        same_function: max_delta_logit <= tolerance * logit_scale.
        samples: data points behind the comparison.
        scaling: name of the rescaled units -> (smallest, largest) factor.
        provenance: seed, dtype, versions.
    """

    rows: tuple[CertificateRow, ...]
    symmetry: Literal["layer", "node"]
    max_delta_logit: float
    logit_scale: float
    same_function: bool
    samples: int
    scaling: dict[str, tuple[float, float]]
    provenance: dict[str, Any] = field(default_factory=dict)

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """(measure, before, after, ratio, verdict) as the tables show them."""
        return [(r.name, f"{r.before.value:.6g}", f"{r.after.value:.6g}", f"{r.ratio:.6g}", r.verdict) for r in self.rows]

    def function_line(self) -> str:
        """The comparison of the outputs in one line."""
        word = "the same function" if self.same_function else "NOT THE SAME FUNCTION"
        return (
            f"{word}: max |Δlogit| = {self.max_delta_logit:.2e} in float64, largest |logit| {self.logit_scale:.3g}, "
            f"{self.samples} samples"
        )

    def __str__(self) -> str:
        return "\n".join((self.function_line(), *aligned([("measure", "before", "after", "ratio", "verdict"), *self.table()])))

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        rows = [
            {
                "name": r.name,
                "before": r.before.to_json(),
                "after": r.after.to_json(),
                "ratio": None if r.ratio != r.ratio else r.ratio,
                "claimed_invariant": r.claimed,
                "verdict": r.verdict,
            }
            for r in self.rows
        ]
        return {
            "symmetry": self.symmetry,
            "same_function": self.same_function,
            "max_delta_logit": self.max_delta_logit,
            "logit_scale": self.logit_scale,
            "samples": self.samples,
            "scaling": {k: list(v) for k, v in self.scaling.items()},
            "rows": rows,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Certificate":
        """Inverse of `to_json`; keys that are not a certificate's are left alone."""
        rows = tuple(
            CertificateRow(
                r["name"], Estimate.from_json(r["before"]), Estimate.from_json(r["after"]), r["claimed_invariant"], r["verdict"]
            )
            for r in data["rows"]
        )
        scaling = {k: (v[0], v[1]) for k, v in data["scaling"].items()}
        own = {k: data[k] for k in ("symmetry", "max_delta_logit", "logit_scale", "same_function", "samples", "provenance")}
        return cls(rows=rows, scaling=scaling, **own)
