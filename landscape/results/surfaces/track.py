"""Points of weight space projected onto a slice: a training trajectory, or other checkpoints."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.machine.json_values import plain


@dataclass(frozen=True, eq=False)
class Track:
    """Orthogonal projections of T points of weight space onto a line or a plane.

    Attributes:
        label: name in the legend.
        names: (T) names of the points, in order.
        coordinates: (T, dim) coordinates of the projections, in the units of the slice's axes.
        distances: (T,) Euclidean distance of each point from the line or plane, in weight space.
        explained: share of the points' variance around the slice's centre that lies in the slice: sum ||projection||^2 /
            sum ||theta_t - theta||^2; None if all points equal the centre.
        path: whether the points are in order of time.
        losses: (T,) loss of each point, computed at the point itself with its own BatchNorm statistics: where its mark stands
            in three dimensions. None if it was not computed; the mark is then on the surface.
    """

    label: str
    names: tuple[str, ...]
    coordinates: np.ndarray
    distances: np.ndarray
    explained: float | None
    path: bool = True
    losses: np.ndarray | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything as lists."""
        return {
            "label": self.label,
            "names": list(self.names),
            "coordinates": plain(self.coordinates.tolist()),
            "distances": plain(self.distances.tolist()),
            "explained": self.explained,
            "path": self.path,
            **({} if self.losses is None else {"losses": plain(self.losses.tolist())}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Track":
        """Inverse of `to_json`."""
        places, distances = (np.asarray(data[k], float) for k in ("coordinates", "distances"))
        losses = data.get("losses")
        return cls(
            data["label"], tuple(data["names"]), places, distances, data["explained"], data["path"],
            None if losses is None else np.asarray(losses, float),
        )  # fmt: skip
