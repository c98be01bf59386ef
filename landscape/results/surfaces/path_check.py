"""Checks of a path between two networks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from landscape.machine.json_values import number_or_nan, plain
from landscape.results.surfaces.check_summary import CheckSummary
from landscape.results.surfaces.derivative_check import Derivatives
from landscape.results.surfaces.slice_check import SAME

ENDS = ("start", "end")  # of a path whose networks have no names


@dataclass(frozen=True)
class PathCheck:
    """Checks that a path between two networks is correct; printed and stored with it.

    Attributes:
        ends: the loss of each network, evaluated separately on the data of the start: with its own buffers, or with
            re-estimated BatchNorm statistics if they are re-estimated along the path.
        exact: whether the values on the path at 0 and 1 equal `ends` to the bit; None if the point is not on the grid or was
            not computed.
        recomputed: some interior points are computed again, from the control points: the largest difference, relative to the
            largest value; None if no interior point has a finite value.
        place: t at which the derivatives are taken.
        derivatives: phi''(t) of the loss along the path, keyed "11", from values and as c'^T H c' + g^T c'' for weights c(t).
        precision: precision of the values and `ends`, if it is not the objective's, such as "bfloat16".
        own_ends: the loss of each network with its stored statistics, if `ends` use re-estimated ones.
    """

    ends: tuple[float, float]
    exact: tuple[bool | None, bool | None]
    recomputed: float | None
    place: float
    derivatives: Derivatives = field(default_factory=Derivatives)
    precision: str = ""
    own_ends: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether ends, recomputed values and derivatives all agree."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """The failed parts of the check, in words."""
        return [*self.summary().failed]

    def summary(self, names: tuple[str, str] = ENDS) -> CheckSummary:
        """The check in one line: both ends by their names, path (recomputed values), slopes, curvature."""
        found = CheckSummary()
        for name, end, exact in zip(names, ENDS, self.exact, strict=True):
            where = f"the {end} of the path" if name == end else f"{name}, the {end} of the path,"
            found += CheckSummary.part(
                name,
                f"{where} differs from its checkpoint's loss" if exact is False else None,
                "not among the values of the path" if exact is None else None,
            )
        wrong = self.recomputed is not None and not self.recomputed <= SAME
        path = CheckSummary.part(
            "path",
            "values on the path differ from those computed anew" if wrong else None,
            "no value computed anew" if self.recomputed is None else None,
        )
        return found + path + self.derivatives.summary()

    def lines(self, names: tuple[str, str] = ENDS) -> list[str]:
        """The results of the checks as text, one per line; the ends of the path have these names."""
        said = {True: "equal to the bit", False: "DIFFERENT", None: "not among the values of the path"}
        rounded = f" in {self.precision}" if self.precision else ""
        stored = [""] * 2
        if self.own_ends is not None:
            stored = [f" under re-estimated statistics (as stored: {loss:.6g})" for loss in self.own_ends]
        out = [
            f"{name}: checkpoint's loss {loss:.6g}{rounded}{under}, {said[exact]}"
            for name, loss, exact, under in zip(names, self.ends, self.exact, stored, strict=True)
        ]
        if self.recomputed is not None:
            out.append(f"path: values computed anew differ by {self.recomputed:.1g} of the largest")
        out += self.derivatives.lines(f" at {self.place:.3g}")
        return out + [f"WRONG: {problem}" for problem in self.summary(names).failed]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PathCheck":
        """Inverse of `to_json`; a null in place of a number becomes nan."""
        ends, derivatives = tuple(number_or_nan(v) for v in data["ends"]), Derivatives.from_json(data["derivatives"])
        own = None if data.get("own_ends") is None else tuple(number_or_nan(v) for v in data["own_ends"])
        read = {"ends": ends, "exact": tuple(data["exact"]), "derivatives": derivatives, "own_ends": own}
        return cls(**(dict(data) | read))
