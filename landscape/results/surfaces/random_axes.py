"""What random axes show of the curvature at the centre of a slice, and what they hide."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.estimate import Estimate

# A smallest eigenvalue is clearly negative beyond this share of the largest, and beyond this many of its residuals: what lies
# below may be the rounding of products in float32.
_SHARE, _RESIDUALS = 1e-2, 3


@dataclass(frozen=True)
class RandomAxis:
    """The curvature along one random axis d, and what is expected of it.

    Attributes:
        measured: d^T H d, from a product.
        expected: E d^T H d over the axes that other seeds would give, from probes.
        scatter: bound on the standard deviation of d^T H d over these axes.
        length: sqrt(E ||d||^2).
    """

    measured: float
    expected: Estimate
    scatter: float
    length: float

    def line(self, axis: str, on: str) -> str:
        """The axis as text."""
        each = self.expected.value / self.length**2
        return (
            f"curvature along random axis {axis}: {self.measured:.4g}, expected {self.expected} "
            f"(sd of one axis at most {self.scatter:.2g}), {each:.3g} per unit length{on}"
        )


@dataclass(frozen=True)
class RandomAxes:
    """The curvature on a slice with random axes, beside the extreme eigenvalues of the Hessian that such axes do not show.

    A random axis sees the mean of the eigenvalues (tr H / P for axes of equal variances), so that a few large positive ones
    hide many negative ones.

    Attributes:
        axes: number of each random axis, "1" or "2" -> its curvature.
        lowest: the smallest curvature v^T H v / v^T v over all directions v of the slice.
        lambda_min, lambda_max: the smallest and the largest eigenvalue of H, over all weights; None if there are none.
        samples: number of first samples used; None for all.
        reason: why there are no numbers; empty if there are.
        whole: v^T H v of all samples along the eigenvector v of `lambda_min`, where that is of some and clearly negative; no
            smaller than the smallest eigenvalue of all. None if it was not computed.
    """

    axes: dict[str, RandomAxis]
    lowest: float = 0.0
    lambda_min: Estimate | None = None
    lambda_max: Estimate | None = None
    samples: int | None = None
    reason: str = ""
    whole: float | None = None

    @property
    def falls_here(self) -> bool:
        """Whether H of these samples has a clearly negative eigenvalue."""
        return self.lambda_min is not None and self._clearly(self.lambda_min.value)

    @property
    def falls(self) -> bool:
        """Whether H of all samples has a clearly negative eigenvalue: the checkpoint is no minimum of the loss.

        A few samples may have one that all do not have, so that `whole` decides where there are only some.
        """
        return self.falls_here and (self.samples is None or (self.whole is not None and self._clearly(self.whole)))

    def _clearly(self, low: float) -> bool:
        """Whether a curvature is below 0 beyond the residual of the eigenvalue, and beside the largest eigenvalue."""
        if self.lambda_min is None or self.lambda_max is None:
            return False
        return -low > max(_RESIDUALS * (self.lambda_min.stderr or 0.0), _SHARE * abs(self.lambda_max.value))

    @property
    def hidden_saddle(self) -> bool:
        """Whether the loss curves upwards along every direction of the slice, while H has a clearly negative eigenvalue."""
        return self.lowest > 0 and self.falls

    def lines(self) -> list[str]:
        """The comparison as text, one line for each axis, one for the eigenvalues, and one for a saddle that is not seen."""
        if self.lambda_min is None or self.lambda_max is None:
            return [f"random axes: {self.reason}"]
        on = "" if self.samples is None else f", on {self.samples:,} samples"
        out = [axis.line(number, on) for number, axis in self.axes.items()]
        out.append(
            f"eigenvalues: lambda_min {self.lambda_min}, lambda_max {self.lambda_max}; "
            f"the lowest curvature on the axes is {self.lowest:.3g} per unit length{on}"
        )
        if self.hidden_saddle:
            share = 100 * abs((self.lambda_min.value if self.whole is None else self.whole) / self.lambda_max.value)
            out.append(
                f"A SADDLE LOOKS LIKE A MINIMUM: at the checkpoint every direction drawn curves upwards, but lambda_min is "
                f"negative, {share:.2g} % of lambda_max; --curvature maps it"
            )
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, with `hidden_saddle`; numbers that are not finite are null."""
        ends = {"lambda_min": self.lambda_min, "lambda_max": self.lambda_max}
        return dict(
            plain(
                {
                    "axes": {
                        number: {
                            "measured": axis.measured,
                            "expected": axis.expected.to_json(),
                            "scatter": axis.scatter,
                            "length": axis.length,
                        }
                        for number, axis in self.axes.items()
                    },
                    "lowest": self.lowest,
                    **{name: None if end is None else end.to_json() for name, end in ends.items()},
                    "samples": self.samples,
                    "whole": self.whole,
                    "reason": self.reason,
                    "hidden_saddle": self.hidden_saddle,
                }
            )
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RandomAxes":
        """Inverse of `to_json`; a null in place of a number becomes nan."""
        axes = {
            number: RandomAxis(
                number_or_nan(axis["measured"]),
                Estimate.from_json(axis["expected"]),
                number_or_nan(axis["scatter"]),
                number_or_nan(axis["length"]),
            )
            for number, axis in data["axes"].items()
        }
        low, high = (None if data[name] is None else Estimate.from_json(data[name]) for name in ("lambda_min", "lambda_max"))
        return cls(axes, number_or_nan(data["lowest"]), low, high, data["samples"], data["reason"], data.get("whole"))
