"""Marks that stand on a surface in three dimensions: the checkpoint and others, at the losses computed at them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from landscape.machine.files import bare_name
from landscape.report.style import label_text
from landscape.report.surfaces.depth import Heights
from landscape.report.surfaces.tracks import NAMED, inside
from landscape.results import Slice, SliceCheck
from landscape.results.surfaces.track import Track


def track_heights(track: Track, piece: Slice, quantity: str, seen: Heights, log: bool) -> Float[np.ndarray, " T"]:
    """Heights of a track's points; nan outside the plane.

    At a point of the grid, the loss computed there. Between such points, the loss of the network itself if it is known: the
    surface is interpolated there, and may be far off where the grid is coarse. Else the height of the surface.
    """
    places = np.asarray(track.coordinates, float).reshape(-1, 2)
    on_surface = seen.at(places)
    if quantity != "loss" or track.losses is None:
        return on_surface
    own = _as_drawn(np.asarray(track.losses, float), log)
    between = _between(places[:, 0], seen.x) | _between(places[:, 1], seen.y)
    return np.where(between & np.isfinite(own) & inside(track, piece), own, on_surface)


def centre_height(piece: Slice, quantity: str, seen: Heights, log: bool) -> float:
    """The height of the checkpoint, as in `track_heights`; its own loss is that of the check. nan outside the plane."""
    if not all(float(np.min(c)) <= 0 <= float(np.max(c)) for c in piece.coordinates):
        return float("nan")
    own = np.array([piece.check.centre_value]) if isinstance(piece.check, SliceCheck) else None
    centre = Track("checkpoint", ("",), np.zeros((1, 2)), np.zeros(1), None, path=False, losses=own)
    return float(track_heights(centre, piece, quantity, seen, log)[0])


def centre_name(piece: Slice) -> str:
    """The name of the checkpoint where others are named beside it, else ""."""
    named = any(not t.path and int(inside(t, piece).sum()) <= NAMED for t in piece.tracks)
    return (
        label_text(bare_name(str(piece.provenance["checkpoint"])), 22) if named and piece.provenance.get("checkpoint") else ""
    )


def standing(piece: Slice, quantity: str, seen: Heights, log: bool) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Places and heights of all marks of single networks: the checkpoint first, then the others."""
    places: list[np.ndarray] = [np.zeros((1, 2))]
    heights: list[np.ndarray] = [np.array([centre_height(piece, quantity, seen, log)])]
    for track in piece.tracks:
        if not track.path:
            places.append(np.asarray(track.coordinates, float).reshape(-1, 2))
            heights.append(track_heights(track, piece, quantity, seen, log))
    at, high = np.concatenate(places), np.concatenate(heights)
    known = np.isfinite(high)
    return at[known], high[known]


def centre_label(piece: Slice) -> str:
    """What the legend calls the checkpoint: with other checkpoints in the plane, the one at 0, 0."""
    return "checkpoint" if not any(not t.path for t in piece.tracks) else f"{centre_name(piece) or 'checkpoint'}, at 0, 0"


def others_label(track: Track, piece: Slice) -> str:
    """What the legend calls a track: other checkpoints are others than the one at 0, 0."""
    name = label_text(track.label, 40)
    centre = all(float(np.min(c)) <= 0 <= float(np.max(c)) for c in piece.coordinates)  # is drawn, too
    return "other checkpoints" if name == "checkpoints" and not track.path and centre else name


def legend_name(name: str, hidden: "Sequence[bool] | Bool[np.ndarray, ' k']") -> str:
    """The name with how many of its marks stand behind the surface.

    Example:
        >>> legend_name("checkpoint", [True]), legend_name("checkpoints", [True, False]), legend_name("a", [False])
        ('checkpoint, behind the surface', 'checkpoints, 1 of 2 behind the surface', 'a')
    """
    count, of = int(np.sum(hidden)), len(hidden)
    return name + ("" if not count else ", behind the surface" if count == of else f", {count} of {of} behind the surface")


def _between(places: Float[np.ndarray, " T"], grid: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " T"]:
    """Whether coordinates are off the points of the grid, by more than rounding."""
    off = np.abs(places[:, None] - grid).min(axis=1)
    return np.asarray(off > 1e-6 * np.ptp(grid))


def _as_drawn(values: np.ndarray, log: bool) -> np.ndarray:
    """Values as heights: logarithms on a log scale, nan where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heights = np.log10(values) if log else values
    return np.where(np.isfinite(heights), heights, np.nan)
