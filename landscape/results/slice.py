"""A loss surface cut along one or two directions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.plain import plain
from landscape.results.barrier import Barrier

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class SliceCheck:
    """Evidence that a slice is what its title says; printed and stored with every surface.

    Attributes:
        cosine: cosine between the two axes; None for a line.
        norm_ratio: per axis, the smallest and largest ||d_ij|| / ||theta_ij|| over filters: both 1 under filter normalization;
            None where the axis is not filter-normalized.
        centre_is_exact: the value on the grid at the origin equals the checkpoint's loss to the bit; None if 0 is not on the
            grid.
        centre_value: the checkpoint's loss.
        symmetric: every axis runs from -a to a.
        curvature: second derivatives of the surface at the centre from its own values, keyed "11", "12", "22".
        curvature_hvp: the same from Hessian-vector products, d_i^T H d_j.
    """

    cosine: float | None
    norm_ratio: tuple[tuple[float, float] | None, ...]
    centre_is_exact: bool | None
    centre_value: float
    symmetric: bool
    curvature: dict[str, float] = field(default_factory=dict)
    curvature_hvp: dict[str, float] = field(default_factory=dict)

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
                out.append(f"axis {i}: ||d||/||theta|| per filter between {ratio[0]:.6f} and {ratio[1]:.6f} (1 is right)")
        centre = {True: "equal to the bit", False: "DIFFERENT", None: "0 is not on the grid"}[self.centre_is_exact]
        out.append(f"centre: checkpoint's loss {self.centre_value:.6g}, {centre}")
        if not self.symmetric:
            out.append("span: not symmetric about the centre")
        for key, value in self.curvature.items():
            product = self.curvature_hvp[key]
            kinks = "" if abs(value - product) <= 0.02 * abs(product) else " (a rectifier's kinks add to the first)"
            out.append(f"curvature {key}: {value:.4g} from the surface, {product:.4g} from products with H{kinks}")
        return out


@dataclass(frozen=True, eq=False)
class Slice:
    """Values of the objective on theta + a d1 (+ b d2).

    Attributes:
        axes: a name for each direction, with its seed where it was random.
        coordinates: one (n_i,) array an axis.
        values: name -> array over the grid, indexed [i, j] as (axis 1, axis 2): "loss", "accuracy", and "test_loss",
            "test_accuracy" where a test set was given. A point that is not finite is kept as it is.
        stderr: the same names -> standard error over samples, where there is one.
        check: the evidence that the slice is right; None for a line between two minima.
        title: what it is, for the figure.
        provenance: checkpoint, seed, samples, dtype, versions.
        barriers: quantity -> Barrier, of a line between two minima.
    """

    axes: tuple[str, ...]
    coordinates: tuple[np.ndarray, ...]
    values: dict[str, np.ndarray]
    stderr: dict[str, np.ndarray]
    check: SliceCheck | None
    title: str
    provenance: dict[str, Any]
    barriers: dict[str, Barrier] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """1 for a line, 2 for a plane."""
        return len(self.axes)

    def barrier(self, quantity: str = "loss") -> float:
        """Height of the barrier on a line between two minima: largest value less the mean of the ends (Frankle et al. 2020).

        For an accuracy it is the depth of the valley: the mean of the ends less the smallest value.
        """
        values = self.values[quantity]
        ends = (values[0] + values[-1]) / 2
        return float(ends - values.min()) if "accuracy" in quantity else float(values.max() - ends)

    def plot(self, ax: "Axes | None" = None, *, quantity: str = "loss", view: str = "contour") -> "Axes":
        """Draw one quantity. `view` is "contour" or "3d" for a plane and is not looked at for a line."""
        from landscape.report.axes import draw_slice  # the drawing room is above this one: looked up only when asked

        return draw_slice(self, ax, quantity=quantity, view=view)

    def to_json(self) -> dict[str, Any]:
        """Everything as lists; values that are not finite become None."""

        def listed(a: np.ndarray) -> Any:
            return plain(a.tolist())

        check = None
        if self.check is not None:
            check = {name: plain(getattr(self.check, name)) for name in self.check.__dataclass_fields__}
        found = {"barriers": {k: b.to_json() for k, b in self.barriers.items()}} if self.barriers else {}
        return found | {
            "axes": list(self.axes),
            "coordinates": [c.tolist() for c in self.coordinates],
            "values": {k: listed(v) for k, v in self.values.items()},
            "stderr": {k: listed(v) for k, v in self.stderr.items()},
            "check": check,
            "title": self.title,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Slice":
        """Inverse of `to_json`; a null comes back as nan."""
        check = data["check"]
        if check is not None:
            ratios = tuple(None if r is None else (r[0], r[1]) for r in check["norm_ratio"])
            numbers = {k: {n: _number(v) for n, v in check[k].items()} for k in ("curvature", "curvature_hvp")}
            check = SliceCheck(**(check | numbers | {"norm_ratio": ratios, "centre_value": _number(check["centre_value"])}))
        return cls(
            tuple(data["axes"]),
            tuple(np.asarray(c, float) for c in data["coordinates"]),
            {k: np.asarray(v, float) for k, v in data["values"].items()},
            {k: np.asarray(v, float) for k, v in data["stderr"].items()},
            check,
            data["title"],
            data["provenance"],
            {k: Barrier.from_json(b) for k, b in data.get("barriers", {}).items()},
        )


def _number(x: float | None) -> float:
    """A number from JSON, where null stands for one that was not finite."""
    return float("nan") if x is None else float(x)
