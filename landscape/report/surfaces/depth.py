"""What of a surface in three dimensions is seen: points that the surface hides, and a view in which the checkpoint shows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import RegularGridInterpolator

STEPS = 200  # points tried on the way from a point to the eye
# Elevations of the camera in degrees; the flattest in which the checkpoint shows is taken.
ELEVATIONS = (28, 36, 44, 52, 60)

CLEAR = 4.0  # degrees by which a point is to be seen over the edges of the surface


@dataclass(frozen=True)
class Heights:
    """A surface z(x, y) in the box in which it is drawn, seen in parallel projection.

    Attributes:
        x, y: (n,) and (m,) coordinates.
        z: (m, n) heights as drawn, nan where there is none.
        low, high: ends of the vertical axis.
        tall: height of the box; its sides have length 1.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    low: float
    high: float
    tall: float = 0.8

    def at(self, places: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, " T"]:
        """Heights at places, interpolated between the four nearest points; nan outside."""
        return RegularGridInterpolator((self.x, self.y), self.z.T, bounds_error=False)(places)

    def hidden(
        self,
        places: Float[np.ndarray, "T 2"],
        elevation: float,
        azimuth: float,
        heights: Float[np.ndarray, " T"] | None = None,
    ) -> Bool[np.ndarray, " T"]:
        """Whether the surface lies between points and the eye.

        The way from the point to the eye is followed until it leaves the box; the point is hidden if the surface is above that
        way somewhere, by more than a hundredth of the box, which a surface seen along its own slope is by rounding.

        Args:
            places: where the points are.
            elevation, azimuth: of the eye, in degrees, as matplotlib's `view_init` takes them.
            heights: of the points; None for points of the surface. One below the surface at its own place, as where the
                surface is interpolated between computed points, is seen where that place of the surface is.
        """
        up, around = np.radians(elevation), np.radians(azimuth)
        sides = np.array([np.ptp(self.x), np.ptp(self.y)])
        scale = self.tall / (self.high - self.low)
        steps = np.linspace(0, 1.5, STEPS)[:, None, None]  # the box has a diagonal of 1.4
        way = places + steps * sides * np.array([np.cos(around), np.sin(around)])
        below = self.at(places)
        start = below if heights is None else np.fmax(heights, below)
        ray = start * scale + steps[..., 0] * np.tan(up)
        surface = self.at(way.reshape(-1, 2)).reshape(ray.shape) * scale
        return np.asarray((np.nan_to_num(surface - ray, nan=-1.0) > 0.01).any(axis=0))

    def elevation(
        self, places: Float[np.ndarray, "T 2"], azimuth: float, heights: Float[np.ndarray, " T"] | None = None
    ) -> float:
        """The flattest of the elevations in which the surface hides the fewest of these points, with `CLEAR` to spare.

        A point that is seen just above an edge of the surface looks as if it stood on that edge.
        """

        def hidden(elevation: float) -> int:
            return int(self.hidden(places, elevation, azimuth, heights).sum())

        return min(ELEVATIONS, key=lambda e: (hidden(e), hidden(e - CLEAR), e))
