"""The evidence that a slice of the loss surface is what its title says."""

import math
from dataclasses import dataclass, field
from typing import Any

AGREE = 0.02  # share of the largest curvature by which curvatures may differ, from rounding and from the step of a difference
_SAME = 1e-3  # the like for filter norms, and for values computed anew: far from the centre float32 loses some digits


def disagreement(surface: dict[str, float], products: dict[str, float], loss: float) -> float:
    """Largest difference between two sets of curvatures, relative to the largest of them; infinite if one is not finite.

    Curvatures below 10^-6 of the loss are rounding, and no picture shows them.
    """
    both = [*surface.values(), *products.values()]
    if not all(math.isfinite(v) for v in both):
        return math.inf
    size = max((abs(v) for v in (*both, 1e-6 * loss)), default=0.0)
    return max((abs(v - products[k]) for k, v in surface.items()), default=0.0) / size if size else 0.0


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
        curvature: second derivatives of the surface at the centre from its own values (or slopes), keyed "11", "12", "22".
        curvature_hvp: the same from Hessian-vector products, d_i^T H d_j.
        norms: per axis, what was normalized: "filter", "layer" or "none".
        own_value: the checkpoint's loss under its own statistics, where the slice has re-estimated ones at the origin.
        curvature_samples: both curvatures are those of the first so many samples; None for all of them.
        recomputed: some places of the grid were computed anew: the largest difference, relative to the largest value; None if
            the values there are not finite.
        from_slopes: whether `curvature` is from differences of the surface's slopes, since a rectifier's kink lay between the
            values.
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
    recomputed: float | None = None
    from_slopes: bool = False

    @property
    def passed(self) -> bool:
        """Whether centre, values computed anew, filter norms and curvatures are what they should be."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is not as it should be, in words."""
        out = []
        if self.centre_is_exact is False:
            out.append("the centre differs from the checkpoint's loss")
        if self.recomputed is not None and not self.recomputed <= _SAME:
            out.append("values on the grid differ from those computed anew")
        for i, ratio in enumerate(self.norm_ratio, 1):
            if ratio is not None and not all(abs(end - 1) < _SAME for end in ratio):
                out.append(f"axis {i} is not {self.norms[i - 1] if self.norms else 'filter'}-normalized")
        if not disagreement(self.curvature, self.curvature_hvp, self.centre_value) <= AGREE:
            out.append("curvatures of the surface differ from those of the Hessian (or a kink lies in the weights themselves)")
        return out

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
        if self.recomputed is not None:
            out.append(f"grid: values computed anew differ by {self.recomputed:.1g} of the largest")
        if not self.symmetric:
            out.append("span: not symmetric about the centre")
        for key, value in self.curvature.items():
            product = self.curvature_hvp[key]
            on = "" if self.curvature_samples is None else f", on {self.curvature_samples:,} samples"
            kind = "surface's slopes" if self.from_slopes else "surface"
            out.append(f"curvature {key}: {value:.4g} from the {kind}, {product:.4g} from products with H{on}")
        return out + [f"WRONG: {problem}" for problem in self.problems]

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
