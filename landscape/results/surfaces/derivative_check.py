"""Derivatives of a surface at one place: from its own values, and from automatic differentiation of the loss."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.surfaces.check_summary import CheckSummary

AGREE = 0.02  # share of the largest by which derivatives may differ, from rounding and from the step of a difference


def disagreement(surface: dict[str, float], products: dict[str, float], loss: float, resolution: float = 0.0) -> float:
    """Largest difference between two sets of curvatures, relative to the largest of them; infinite if one is not finite.

    Curvatures below 10^-6 of the loss are rounding, and no picture shows them. Nor does a difference below `resolution` count,
    what rounding can make of it.
    """
    both = [*surface.values(), *products.values()]
    if not all(math.isfinite(v) for v in both):
        return math.inf
    size = max((abs(v) for v in (*both, 1e-6 * loss, resolution / AGREE)), default=0.0)
    return max((abs(v - products[k]) for k, v in surface.items()), default=0.0) / size if size else 0.0


@dataclass(frozen=True)
class Derivatives:
    """Second derivatives of a surface at one place, and its first ones beside it, each from two sides.

    Attributes:
        values: second derivatives from differences of the surface's values, keyed "11", "12", "22".
        products: the same from Hessian-vector products; empty where they would be of another function.
        slopes: the same from differences of the slopes, where a rectifier's kink lay between the values; else empty.
        loss: the surface at the place.
        slope_error: first derivatives beside the place: largest difference between those from values and those from
            gradients, relative to the largest; None where there is no number, or no gradient of the same function.
        samples: all of it is on the first so many samples; None for all of them.
        under: what the surface is normalized by, where that is neither what it is drawn with nor fixed.
        reason: why there are no products; empty where there are. It begins with "could not be made" where there are no
            derivatives at all, as of a network that cannot be differentiated twice: a surface needs none.
        resolution: what the network's rounding can make of a second difference of its values.
    """

    values: dict[str, float] = field(default_factory=dict)
    products: dict[str, float] = field(default_factory=dict)
    slopes: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0
    slope_error: float | None = None
    samples: int | None = None
    under: str = ""
    reason: str = ""
    resolution: float = 0.0

    @property
    def unresolved(self) -> bool:
        """Whether rounding can make as much of a second difference as what there is, so that nothing could have been wrong."""
        return (
            not self.reason
            and max(map(abs, (*self.second.values(), *self.products.values())), default=0.0) < self.resolution / AGREE
        )

    @property
    def second(self) -> dict[str, float]:
        """The surface's second derivatives: from its slopes where its values have a kink between them."""
        return self.slopes or self.values

    @property
    def brief_reason(self) -> str:
        """The first words of `reason`, as they stand under a figure."""
        return self.reason.partition(":")[0].partition(",")[0]

    @property
    def problems(self) -> list[str]:
        """What does not agree, in words."""
        return [*self.summary().failed]

    def summary(self) -> CheckSummary:
        """Slopes and curvature: whether each agrees, or why it was not compared."""
        if self.reason and self.slope_error is None:
            return CheckSummary.part("slopes and curvature", reason=self.brief_reason)
        problem = reason = None
        if self.slope_error is None:
            reason = "no finite number"
        elif not self.slope_error <= AGREE:
            problem = "slopes of the surface differ from its gradients"
        slopes = CheckSummary.part("slopes", problem, reason)
        problem = reason = None
        if not self.reason and not disagreement(self.second, self.products, self.loss, self.resolution) <= AGREE:
            problem = "curvatures of the surface differ from those of the Hessian (or a kink lies in the weights themselves)"
        elif self.reason or self.unresolved or not self.values:
            reason = self.brief_reason or ("too small to tell from rounding" if self.values else "no values")
        return slopes + CheckSummary.part("curvature", problem, reason)

    def lines(self, place: str = "") -> list[str]:
        """Both sides in words, one fact a line."""
        on = self.under + ("" if self.samples is None else f", on {self.samples:,} samples")
        out = []
        for key, value in self.second.items():
            kind = "surface"
            if self.slopes:
                kind = f"surface's slopes ({self.values[key]:.4g} from its values, with kinks between them)"
            against = "" if self.reason else f", {self.products[key]:.4g} from products with H"
            out.append(f"curvature {key}{place}: {value:.4g} from the {kind}{against}{on}")
        if self.reason and not self.values:
            out.append(f"derivatives{place}: {self.reason}")
        elif self.reason:
            out.append(f"curvature{place}: not compared with products: {self.reason}")
        elif self.unresolved:
            out.append(
                f"curvature{place}: no difference counts below {self.resolution:.1g}, what the network's rounding can make"
            )
        if self.slope_error is not None:
            out.append(f"slope: differences of values and gradients differ by {self.slope_error:.1g} of the largest")
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Derivatives":
        """Inverse of `to_json`; a null that stands for a number comes back as nan."""
        numbers = {k: {n: number_or_nan(v) for n, v in data[k].items()} for k in ("values", "products", "slopes")}
        return cls(**(dict(data) | numbers | {"loss": number_or_nan(data["loss"])}))
