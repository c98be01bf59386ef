"""The evidence that a slice of the loss surface is what its title says."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SliceCheck:
    """Evidence that a slice is what its title says; printed and stored with every surface.

    Attributes:
        cosine: cosine between the two axes; None for a line.
        norm_ratio: per axis, the smallest and largest ||d_ij|| / ||theta_ij|| over filters (or layers): both 1 under that
            normalization; None where the axis is not normalized.
        centre_is_exact: the value on the grid at the origin equals the checkpoint's loss to the bit; None if 0 is not on the
            grid.
        centre_value: the checkpoint's loss, under the BatchNorm statistics that the slice has at the origin.
        symmetric: every axis runs from -a to a.
        curvature: second derivatives of the surface at the centre from its own values, keyed "11", "12", "22".
        curvature_hvp: the same from Hessian-vector products, d_i^T H d_j.
        norms: per axis, what was normalized: "filter", "layer" or "none".
        own_value: the checkpoint's loss under its own statistics, where the slice has re-estimated ones at the origin.
        curvature_samples: both curvatures are those of the first so many samples; None for all of them.
    """

    cosine: float | None
    norm_ratio: tuple[tuple[float, float] | None, ...]
    centre_is_exact: bool | None
    centre_value: float
    symmetric: bool
    curvature: dict[str, float] = field(default_factory=dict)
    curvature_hvp: dict[str, float] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    own_value: float | None = None
    curvature_samples: int | None = None

    @property
    def passed(self) -> bool:
        """Whether centre, filter norms and curvatures are what they should be.

        A rectifier's kinks add to the curvature of the surface, not to that of the Hessian: the two are only asked to differ by
        less than half of the largest one.
        """
        norms = all(r is None or (abs(r[0] - 1) < 1e-3 and abs(r[1] - 1) < 1e-3) for r in self.norm_ratio)
        size = max((abs(v) for v in (*self.curvature.values(), *self.curvature_hvp.values())), default=0.0)
        curvatures = all(abs(v - self.curvature_hvp[k]) <= 0.5 * size for k, v in self.curvature.items())
        return self.centre_is_exact is not False and norms and curvatures

    def lines(self) -> list[str]:
        """The check in words, one fact a line."""
        out = []
        if self.cosine is not None:
            out.append(f"cosine of the axes: {self.cosine:+.4f}")
        for i, ratio in enumerate(self.norm_ratio, 1):
            if ratio is not None:
                group = self.norms[i - 1] if self.norms else "filter"
                out.append(f"axis {i}: ||d||/||theta|| per {group} between {ratio[0]:.6f} and {ratio[1]:.6f} (1 is right)")
        centre = {True: "equal to the bit", False: "DIFFERENT", None: "0 is not on the grid"}[self.centre_is_exact]
        under = "" if self.own_value is None else f" under re-estimated statistics (its own: {self.own_value:.6g})"
        out.append(f"centre: checkpoint's loss {self.centre_value:.6g}{under}, {centre}")
        if not self.symmetric:
            out.append("span: not symmetric about the centre")
        for key, value in self.curvature.items():
            product = self.curvature_hvp[key]
            on = "" if self.curvature_samples is None else f", on {self.curvature_samples:,} samples"
            kinks = "" if abs(value - product) <= 0.02 * abs(product) else " (a rectifier's kinks add to the first)"
            out.append(f"curvature {key}: {value:.4g} from the surface, {product:.4g} from products with H{on}{kinks}")
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SliceCheck":
        """From the fields as JSON has them; a null that stands for a number comes back as nan."""
        ratios = tuple(None if r is None else (_number(r[0]), _number(r[1])) for r in data["norm_ratio"])
        numbers = {k: {n: _number(v) for n, v in data[k].items()} for k in ("curvature", "curvature_hvp")}
        read = {"norm_ratio": ratios, "centre_value": _number(data["centre_value"]), "norms": tuple(data.get("norms", ()))}
        return cls(**(data | numbers | read))


def _number(x: float | None) -> float:
    """A number from JSON, where null stands for one that was not finite."""
    return float("nan") if x is None else float(x)
