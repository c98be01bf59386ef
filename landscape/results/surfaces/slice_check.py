"""Checks of a line or a plane."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.surfaces.check_summary import CheckSummary
from landscape.results.surfaces.derivative_check import Derivatives
from landscape.results.surfaces.random_axes import RandomAxes

SAME = 1e-3  # relative tolerance of filter norms and recomputed values; far from the centre float32 loses some digits


@dataclass(frozen=True)
class NormRatios:
    """||d_ij|| / ||theta_ij|| of one axis for every filter (or layer); all 1 for a normalized axis.

    Attributes:
        group: "filter" or "layer".
        smallest, largest: over the filters that the axis changes; infinite if it changes one whose weights are all zero.
        count: number of filters that it should change: those with a nonzero weight, of parameters that are not fixed.
        still: number of those that it does not change.
        orthogonalized: whether the axis was made orthogonal to another after normalization; its ratios are then not judged.
    """

    group: str
    smallest: float
    largest: float
    count: int
    still: int = 0
    orthogonalized: bool = False

    def problems(self, axis: int) -> list[str]:
        """The failed parts of the check, in words."""
        if self.orthogonalized:
            return []
        out = []
        if not all(abs(end - 1) < SAME for end in (self.smallest, self.largest)):
            out.append(f"axis {axis} is not {self.group}-normalized")
        if self.still:
            out.append(f"axis {axis}: {self.still:,} of {self.count:,} {self.group}s that should move do not")
        return out

    def line(self, axis: int) -> str:
        """The ratios as text."""
        about = ", orthogonalized" if self.orthogonalized else ""
        right = "" if self.orthogonalized else " (1 is correct)"
        still = f", {self.still:,} of them unchanged" if self.still else ""
        between = f"between {self.smallest:.6f} and {self.largest:.6f}"
        return f"axis {axis}{about}: ||d||/||theta|| per {self.group} {between}{right}, {self.count:,} {self.group}s{still}"


@dataclass(frozen=True)
class SliceCheck:
    """Checks that a line or a plane is correct; printed and stored with it.

    Attributes:
        cosine: cosine between the two axes; None for a line.
        norm_ratio: for each axis, the ratios of its filters' norms; None if the axis is not normalized.
        centre_is_exact: whether the value at the origin of the grid equals the checkpoint's loss to the bit; None if 0 is not
            on the grid.
        centre_value: the checkpoint's loss, with the BatchNorm statistics of the slice at the origin.
        symmetric: whether every axis runs from -a to a.
        derivatives: curvatures d_i^T H d_j of the surface at the centre, from the surface and from products.
        own_value: the checkpoint's loss with its own statistics, if the slice uses re-estimated ones at the origin.
        recomputed: some grid points are computed again: the largest difference, relative to the largest value; None if the
            values there are not finite.
        precision: precision of the values and `centre_value`, if it is not the objective's, such as "bfloat16".
        random: the curvature along random axes, its expectation, and the extreme eigenvalues; None if no axis is random.
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
    random: RandomAxes | None = None

    @property
    def curvature(self) -> dict[str, float]:
        """Second derivatives of the surface at the centre, keyed "11", "12", "22"."""
        return self.derivatives.second

    @property
    def curvature_hvp(self) -> dict[str, float]:
        """The same from Hessian-vector products, d_i^T H d_j; empty if these would belong to another function."""
        return self.derivatives.products

    @property
    def from_slopes(self) -> bool:
        """Whether `curvature` is from differences of gradients, because a kink of a rectifier lies between the values."""
        return bool(self.derivatives.slopes)

    @property
    def passed(self) -> bool:
        """Whether centre, recomputed values, filter norms and derivatives all agree."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """The failed parts of the check, in words."""
        parts = self._centre(), self._axes(), self._norms(), self.derivatives.summary()
        return [problem for part in parts for problem in part.failed]

    def summary(self) -> CheckSummary:
        """The check in one line: axes (recomputed values), norm, centre, slopes, curvature."""
        return self._axes() + self._norms() + self._centre() + self.derivatives.summary()

    def _axes(self) -> CheckSummary:
        """Whether recomputed values at points off the diagonals agree."""
        wrong = self.recomputed is not None and not self.recomputed <= SAME
        return CheckSummary.part(
            "axes",
            "values on the grid differ from those computed anew" if wrong else None,
            "no value computed anew" if self.recomputed is None else None,
        )

    def _centre(self) -> CheckSummary:
        """Whether the value at the origin equals the checkpoint's loss."""
        return CheckSummary.part(
            "centre",
            "the centre differs from the checkpoint's loss" if self.centre_is_exact is False else None,
            "0 is not on the grid" if self.centre_is_exact is None else None,
        )

    def _norms(self) -> CheckSummary:
        """The norms of normalized axes; an axis that was orthogonalized afterwards is not judged."""
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
        """The results of the checks as text, one per line."""
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
        out += self.derivatives.lines() + ([] if self.random is None else self.random.lines())
        return out + [f"WRONG: {problem}" for problem in self.problems]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        random = None if self.random is None else self.random.to_json()
        return dict(plain(asdict(replace(self, random=None)))) | {"random": random}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SliceCheck":
        """Inverse of `to_json`; a null in place of a number becomes nan."""
        ratios = tuple(
            None if r is None else NormRatios(**(r | {k: number_or_nan(r[k]) for k in ("smallest", "largest")}))
            for r in data["norm_ratio"]
        )
        derivatives = Derivatives.from_json(data["derivatives"])
        random = None if data.get("random") is None else RandomAxes.from_json(data["random"])
        read = {
            "random": random,
            "norm_ratio": ratios,
            "centre_value": number_or_nan(data["centre_value"]),
            "derivatives": derivatives,
        }
        return cls(**(dict(data) | read))
