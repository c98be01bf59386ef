"""Derivatives of a surface at one point, from finite differences of its values and from automatic differentiation."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.surfaces.check_summary import CheckSummary

AGREE = 0.02  # relative tolerance, for rounding and the truncation error of finite differences


def disagreement(surface: dict[str, float], products: dict[str, float], loss: float, resolution: float = 0.0) -> float:
    """Largest difference between two sets of curvatures, relative to the largest curvature; infinite if one is not finite.

    Curvatures below 10^-6 of the loss are rounding and invisible in a figure. A difference below `resolution`, the rounding
    error of a second difference, does not count either.
    """
    both = [*surface.values(), *products.values()]
    if not all(math.isfinite(v) for v in both):
        return math.inf
    size = max((abs(v) for v in (*both, 1e-6 * loss, resolution / AGREE)), default=0.0)
    return max((abs(v - products[k]) for k, v in surface.items()), default=0.0) / size if size else 0.0


@dataclass(frozen=True)
class Derivatives:
    """Second derivatives of a surface at one point and first derivatives nearby, each computed in two ways.

    Attributes:
        values: second derivatives from finite differences of the surface's values, keyed "11", "12", "22".
        products: the same from Hessian-vector products; empty if these would belong to another function.
        slopes: the same from differences of gradients, if a kink of a rectifier lies between the values; else empty.
        loss: value of the surface at the point.
        slope_error: first derivatives near the point: largest difference between those from values and those from gradients,
            relative to the largest; None if it is not finite, or if there is no gradient of the same function.
        samples: number of first samples used; None for all.
        under: BatchNorm statistics used here, if they are neither fixed nor those of the drawn surface.
        reason: why there are no products; empty if there are. It begins with "could not be made" if there are no derivatives
            at all, as for a network that cannot be differentiated twice: a surface does not need them.
        resolution: rounding error of a second difference of the network's values.
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
        """Whether all second derivatives are below their rounding error, so that the comparison could not fail."""
        return (
            not self.reason
            and max(map(abs, (*self.second.values(), *self.products.values())), default=0.0) < self.resolution / AGREE
        )

    @property
    def second(self) -> dict[str, float]:
        """The surface's second derivatives: from gradients if a kink lies between the values, else from values."""
        return self.slopes or self.values

    @property
    def brief_reason(self) -> str:
        """The first words of `reason`, for the line below a figure."""
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
        """Both results as text, one per line."""
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
            out.append(f"curvature{place}: differences below {self.resolution:.1g}, the rounding error, are not tested")
        if self.slope_error is not None:
            out.append(f"slope: finite differences and gradients differ by {self.slope_error:.1g} of the largest")
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Derivatives":
        """Inverse of `to_json`; a null in place of a number becomes nan."""
        numbers = {k: {n: number_or_nan(v) for n, v in data[k].items()} for k in ("values", "products", "slopes")}
        return cls(**(dict(data) | numbers | {"loss": number_or_nan(data["loss"])}))
