"""How a surface was interpolated: which points were computed, and how far off the others are."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from landscape.machine.json_values import plain

# The error that stands for the standard error of an eigenvalue, which is not known at every point: this share of |lambda_max|.
EIGENVALUE_ERROR = 0.04


@dataclass(frozen=True)
class HeldOut:
    """Interpolated values against computed ones, at points chosen at random among the interpolated.

    Attributes:
        points: number of points compared.
        largest: largest absolute difference.
        at: coordinates of the largest difference.
        in_errors: largest ratio of a difference to the error that the tolerance is measured in; nan for a quantity that the
            tolerance does not bound.
        rms_in_errors: root mean square of these ratios.
        rounds: how often points were held out: those of earlier rounds were off by too much, and became part of the surface.
    """

    points: int
    largest: float
    at: tuple[float, ...]
    in_errors: float
    rms_in_errors: float
    rounds: int = 1

    @property
    def beyond(self) -> float:
        """Upper bound (95 %) of the share of interpolated points that are further off than all points held out.

        The level is shared by the rounds, since only the last one, which passed, is told.

        Example:
            >>> round(HeldOut(59, 0.1, (0.0,), 0.1, 0.05).beyond, 3)
            0.05
        """
        return 1 - (0.05 / self.rounds) ** (1 / self.points) if self.points else 1.0

    @classmethod
    def of(
        cls, values: np.ndarray, exact: np.ndarray, errors: np.ndarray | None, places: list[tuple[float, ...]], rounds: int
    ) -> "HeldOut":
        """Compare values with computed ones; `errors` is what the tolerance is measured in, None if it does not apply."""
        apart = np.abs(values - exact)
        worst = int(np.argmax(apart))
        ratios = np.array([math.nan]) if errors is None else apart / errors
        return cls(
            len(apart), float(apart[worst]), places[worst], float(ratios.max()), float(np.sqrt((ratios**2).mean())), rounds
        )


@dataclass(frozen=True)
class Refinement:
    """Which points of a surface were computed, and how far off the interpolated ones are.

    Attributes:
        tolerance: what was asked for, in standard errors over samples (eigenvalues: in EIGENVALUE_ERROR).
        points: quantity -> (computed, interpolated) numbers of points.
        held_out: quantity -> what the points held out say; a quantity of which every point was computed has none.
    """

    tolerance: float
    points: Mapping[str, tuple[int, int]]
    held_out: Mapping[str, HeldOut]

    def line(self, quantity: str) -> str:
        """Text for terminal, figure and report.

        Example:
            >>> held = HeldOut(40, 0.0123, (0.5, -0.2), 0.12, 0.03)
            >>> told, _, off = Refinement(0.25, {"loss": (208, 2393)}, {"loss": held}).line("loss").partition(": ")
            >>> told
            '208 of 2,601 points computed, the others interpolated'
            >>> off
            'off by at most 0.12 standard errors at 40 points held out (0.25 allowed; at most 7.2 % are further off)'
        """
        computed, between = self.points[quantity]
        if not between:
            return f"all {computed:,} points computed: none could be spared; a finer grid has more in between"
        told = f"{computed:,} of {computed + between:,} points computed, the others interpolated"
        held = self.held_out.get(quantity)
        if held is None:
            return told
        if math.isnan(held.in_errors):
            return f"{told}: off by at most {held.largest:.2g} at {held.points} points held out"
        off, allowed = f"{held.in_errors:.2g} standard errors", f"{self.tolerance:g}"
        if quantity.startswith("lambda"):
            off, allowed = (f"{100 * EIGENVALUE_ERROR * r:.2g} % of lambda_max" for r in (held.in_errors, self.tolerance))
        beyond = f"at most {100 * held.beyond:.2g} % are further off"
        return f"{told}: off by at most {off} at {held.points} points held out ({allowed} allowed; {beyond})"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Refinement":
        """Inverse of `to_json`; null becomes nan."""

        def held(row: Mapping[str, Any]) -> HeldOut:
            read = {k: math.nan if v is None else v for k, v in row.items()}
            return HeldOut(**(read | {"at": tuple(row["at"])}))

        points = {k: (int(a), int(b)) for k, (a, b) in data["points"].items()}
        return cls(data["tolerance"], points, {k: held(v) for k, v in data["held_out"].items()})
