"""The evidence that a slice of the loss surface is what its title says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.surfaces.check_summary import CheckSummary
from landscape.results.surfaces.derivative_check import Derivatives

SAME = 1e-3  # relative difference of filter norms, and of values computed anew: far from the centre float32 loses some digits


@dataclass(frozen=True)
class NormRatios:
    """||d_ij|| / ||theta_ij|| of one axis, filter by filter (or layer by layer); all 1 under that normalization.

    Attributes:
        group: "filter" or "layer".
        smallest, largest: over those that move; infinite where one moves whose weights are all zero.
        count: how many should move: those with a weight that is not zero, of the kinds of parameters that are not held.
        still: how many of them do not.
        orthogonalized: the axis was normalized, then made orthogonal to another: its ratios are told, not judged.
    """

    group: str
    smallest: float
    largest: float
    count: int
    still: int = 0
    orthogonalized: bool = False

    def problems(self, axis: int) -> list[str]:
        """What is not as it should be, in words."""
        if self.orthogonalized:
            return []
        out = []
        if not all(abs(end - 1) < SAME for end in (self.smallest, self.largest)):
            out.append(f"axis {axis} is not {self.group}-normalized")
        if self.still:
            out.append(f"axis {axis}: {self.still:,} of {self.count:,} {self.group}s that should move do not")
        return out

    def line(self, axis: int) -> str:
        """The ratios in words."""
        about = ", orthogonalized" if self.orthogonalized else ""
        right = "" if self.orthogonalized else " (1 is right)"
        still = f", {self.still:,} of them still" if self.still else ""
        between = f"between {self.smallest:.6f} and {self.largest:.6f}"
        return f"axis {axis}{about}: ||d||/||theta|| per {self.group} {between}{right}, {self.count:,} {self.group}s{still}"


@dataclass(frozen=True)
class SliceCheck:
    """Evidence that a line or a plane is what its title says; printed and stored with it.

    Attributes:
        cosine: cosine between the two axes; None for a line.
        norm_ratio: per axis, the ratios of its filters' norms; None where the axis is not normalized.
        centre_is_exact: the value on the grid at the origin equals the checkpoint's loss to the bit; None if 0 is not on the
            grid.
        centre_value: the checkpoint's loss, under the BatchNorm statistics that the slice has at the origin.
        symmetric: every axis runs from -a to a.
        derivatives: curvatures d_i^T H d_j of the surface at the centre, from the surface and from products.
        own_value: the checkpoint's loss under its own statistics, where the slice has re-estimated ones at the origin.
        recomputed: some places of the grid were computed anew: the largest difference, relative to the largest value; None if
            the values there are not finite.
        precision: of the values, where it is not the objective's own, such as "bfloat16"; `centre_value` is in it.
    """

    cosine: float | None
    norm_ratio: tuple[NormRatios | None, ...]
    centre_is_exact: bool | None
    centre_value: float
    symmetric: bool
    derivatives: Derivatives = field(default_factory=Derivatives)
    own_value: float | None = None
    recomputed: float | None = None
    precision: str = ""

    @property
    def curvature(self) -> dict[str, float]:
        """Second derivatives of the surface at the centre, keyed "11", "12", "22"."""
        return self.derivatives.second

    @property
    def curvature_hvp(self) -> dict[str, float]:
        """The same from Hessian-vector products, d_i^T H d_j; empty where they are of another function."""
        return self.derivatives.products

    @property
    def from_slopes(self) -> bool:
        """Whether `curvature` is from differences of slopes, since a rectifier's kink lay between the values."""
        return bool(self.derivatives.slopes)

    @property
    def passed(self) -> bool:
        """Whether centre, values computed anew, filter norms and derivatives are what they should be."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is not as it should be, in words."""
        parts = self._centre(), self._axes(), self._norms(), self.derivatives.summary()
        return [problem for part in parts for problem in part.failed]

    def summary(self) -> CheckSummary:
        """The check in one line: axes (values computed anew), norm, centre, slopes, curvature."""
        return self._axes() + self._norms() + self._centre() + self.derivatives.summary()

    def _axes(self) -> CheckSummary:
        """Whether places off the diagonals have the values that the axes say."""
        wrong = self.recomputed is not None and not self.recomputed <= SAME
        return CheckSummary.part(
            "axes",
            "values on the grid differ from those computed anew" if wrong else None,
            "no value computed anew" if self.recomputed is None else None,
        )

    def _centre(self) -> CheckSummary:
        """Whether the value at the origin is the checkpoint's loss."""
        return CheckSummary.part(
            "centre",
            "the centre differs from the checkpoint's loss" if self.centre_is_exact is False else None,
            "0 is not on the grid" if self.centre_is_exact is None else None,
        )

    def _norms(self) -> CheckSummary:
        """Of the axes that are normalized; one that was made orthogonal afterwards is not judged."""
        normalized = [(i, ratio) for i, ratio in enumerate(self.norm_ratio, 1) if ratio is not None]
        found, right = CheckSummary(), []
        for i, ratio in normalized:
            problems = ratio.problems(i)
            found += CheckSummary(failed=tuple(problems))
            if ratio.orthogonalized:
                found += CheckSummary.part(f"norm of axis {i}", reason="orthogonalized")
            elif not problems:
                right.append(i)
        if not right:
            return found
        return found + CheckSummary(("norm" if len(right) == len(normalized) else f"norm of axis {right[0]}",))

    def lines(self) -> list[str]:
        """The check in words, one fact a line."""
        out = []
        if self.cosine is not None:
            out.append(f"cosine of the axes: {self.cosine:+.4f}")
        out += [ratio.line(i) for i, ratio in enumerate(self.norm_ratio, 1) if ratio is not None]
        centre = {True: "equal to the bit", False: "DIFFERENT", None: "0 is not on the grid"}[self.centre_is_exact]
        rounded = f" in {self.precision}" if self.precision else ""
        under = "" if self.own_value is None else f" under re-estimated statistics (its own: {self.own_value:.6g})"
        out.append(f"centre: checkpoint's loss {self.centre_value:.6g}{rounded}{under}, {centre}")
        if self.recomputed is not None:
            out.append(f"grid: values computed anew differ by {self.recomputed:.1g} of the largest")
        if not self.symmetric:
            out.append("span: not symmetric about the centre")
        return out + self.derivatives.lines() + [f"WRONG: {problem}" for problem in self.problems]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SliceCheck":
        """Inverse of `to_json`; a null that stands for a number comes back as nan."""
        ratios = tuple(
            None if r is None else NormRatios(**(r | {k: number_or_nan(r[k]) for k in ("smallest", "largest")}))
            for r in data["norm_ratio"]
        )
        derivatives = Derivatives.from_json(data["derivatives"])
        read = {"norm_ratio": ratios, "centre_value": number_or_nan(data["centre_value"]), "derivatives": derivatives}
        return cls(**(dict(data) | read))
