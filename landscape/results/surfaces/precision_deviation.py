"""Deviation of a surface in bfloat16 from one in full precision, at some of its points."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from landscape.machine.json_values import plain


@dataclass(frozen=True)
class Deviation:
    """Differences between one quantity as drawn and in full precision.

    Attributes:
        precision: precision of the surface, such as "bfloat16".
        reference: precision of the comparison, such as "float32".
        points: number of points compared: those with finite values in both.
        largest: largest absolute difference.
        rms: root mean square of the differences.
        at: coordinates of the largest difference.
        in_errors: largest ratio of a difference to the standard error over samples at its point; nan if there is none.
        in_range: `largest` divided by the range of the surface.
        lost: number of points that are finite in only one of the two.
    """

    precision: str
    reference: str
    points: int
    largest: float
    rms: float
    at: tuple[float, ...]
    in_errors: float
    in_range: float
    lost: int = 0

    @property
    def short(self) -> str:
        """Text for a title.

        Example:
            >>> Deviation("bfloat16", "float32", 9, 0.00312, 0.00114, (1.0,), 0.2, 0.001).short
            'bfloat16: off by at most 0.0031, rms 0.0011'
        """
        if not self.points:
            return f"{self.precision}: deviation unknown"
        return f"{self.precision}: off by at most {self.largest:.2g}, rms {self.rms:.2g}"

    @property
    def line(self) -> str:
        """Text for the terminal and the report."""
        if not self.points:
            return f"{self.precision} against {self.reference}: no point is finite in both"
        at = ", ".join(f"{a:.3g}" for a in self.at)
        errors = "" if math.isnan(self.in_errors) else f"; at most {self.in_errors:.2g} standard errors"
        lost = f"; {self.lost} more are finite in only one" if self.lost else ""
        return (
            f"{self.precision} differs from {self.reference} by at most {self.largest:.2g} (at {at}), rms {self.rms:.2g}, "
            f"over {self.points} points{errors}; {self.in_range:.2g} of the surface's range{lost}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; numbers that are not finite are null."""
        return dict(plain(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Deviation":
        """Inverse of `to_json`; null becomes nan."""
        read = {k: math.nan if v is None else v for k, v in data.items()}
        return cls(**(read | {"at": tuple(math.nan if a is None else a for a in data["at"])}))

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        exact: np.ndarray,
        stderr: np.ndarray,
        places: list[tuple[float, ...]],
        spread: float,
        precision: str,
        reference: str,
    ) -> "Deviation":
        """Compare values as drawn with exact ones at the given points of a surface whose range is `spread`.

        Example:
            >>> drawn, exact, stderr = np.array([1.0, 2.1]), np.array([1.0, 2.0]), np.array([0.1, 0.2])
            >>> found = Deviation.of(drawn, exact, stderr, [(0.0,), (1.0,)], 2.0, "bfloat16", "float32")
            >>> round(found.largest, 6), found.at, round(found.in_errors, 6), round(found.in_range, 6)
            (0.1, (1.0,), 0.5, 0.05)
        """
        both = np.isfinite(values) & np.isfinite(exact)
        lost = int((np.isfinite(values) != np.isfinite(exact)).sum())
        apart = np.abs(values[both] - exact[both])
        if not len(apart):
            nothing = (math.nan,) * 2
            return cls(precision, reference, 0, *nothing, (math.nan,) * len(places[0]), *nothing, lost)
        worst = int(np.argmax(apart))
        known = stderr[both] > 0
        return cls(
            precision,
            reference,
            len(apart),
            float(apart[worst]),
            float(np.sqrt((apart**2).mean())),
            places[int(np.flatnonzero(both)[worst])],
            float((apart[known] / stderr[both][known]).max()) if known.any() else math.nan,
            float(apart[worst] / spread) if spread > 0 else math.nan,
            lost,
        )
