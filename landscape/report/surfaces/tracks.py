"""Drawing of training trajectories and other checkpoints, projected onto a slice, with their distances from it."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from landscape.report.measured_text import width_of
from landscape.report.style import BLACK, GREEN, ORANGE, PURPLE, SKY, label_text, number_of, plain, short
from landscape.results import Slice
from landscape.results.surfaces.track import Track

# White with a black outline is visible on every colour of a field; further paths get other colours.
PATHS = ("white", ORANGE, SKY, PURPLE)
CHECKPOINTS = (("D", "white"), ("s", ORANGE), ("^", SKY), ("v", PURPLE))
TICKS = (GREEN, ORANGE, SKY, PURPLE)
NAMED = 12  # more names are not legible in one figure
SMALL, LARGE = 2.2, 4.6  # marker size in points at the start and the end of a path


def inside(track: Track, piece: Slice) -> np.ndarray:
    """(T,) mask of the projections within the drawn span."""
    places = np.asarray(track.coordinates, float).reshape(len(track.names), piece.dim)
    within = [(c.min() <= p) & (p <= c.max()) for c, p in zip(piece.coordinates, places.T, strict=True)]
    return np.logical_and.reduce(within)


def track_line(track: Track, piece: Slice) -> str:
    """Description of a track: points, share of their spread in the slice, distances from it.

    Example:
        >>> a = np.linspace(-1, 1, 3)
        >>> flat = Slice(("u", "v"), (a, a), {}, {}, None, "", {})
        >>> path = Track("trajectory", ("0", "1"), np.array([[2.0, 0], [0, 0]]), np.array([1.5, 0]), 0.64)
        >>> track_line(path, flat)
        'trajectory of 2 points: 64 % of its spread in the plane, ends 0 off it, at most 1.5; 1 of them outside the drawn span'
    """
    where, off, count = _place(piece), np.asarray(track.distances, float), number_of(len(track.names), "point")
    whose = "its" if track.path else "their"
    parts = [] if track.explained is None else [f"{_percent(track.explained)} of {whose} spread {where}"]
    if track.path:
        parts.append(f"ends {short(float(off[-1]))} off it")
    parts.append(f"at most {short(float(off.max()))}" + ("" if track.path else " off it"))
    outside = int((~inside(track, piece)).sum())
    words = ", ".join(parts) + (f"; {outside} of them outside the drawn span" if outside else "")
    label = label_text(track.label, 60)
    return f"{label} of {count}: {words}" if track.path else f"{label} ({count}): {words}"


def finely(places: np.ndarray, steps: int = 12) -> np.ndarray:
    """Points on the straight pieces between the points of a path, so that it follows a curved surface.

    Example:
        >>> finely(np.array([[0.0, 0.0], [1.0, 2.0]]), 2).tolist()
        [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    times = np.arange(len(places))
    fine = np.linspace(0, len(places) - 1, (len(places) - 1) * steps + 1)
    return np.stack([np.interp(fine, times, column) for column in places.T], axis=1)


def draw_tracks(ax: Axes, piece: Slice, called: Callable[[Track], str] | None = None) -> list[Line2D]:
    """Draw every track on a plane, a path or named checkpoints. Returns the legend's entries, by the names `called` gives."""
    handles = []
    colours, marks = cycle(PATHS), cycle(CHECKPOINTS)
    for track in piece.tracks:
        places = np.asarray(track.coordinates, float)
        if track.path:
            handles.append(_path(ax, track, places, inside(track, piece), next(colours)))
        else:
            handles.append(_checkpoints(ax, track, places, inside(track, piece), *next(marks)))
        name = None if called is None else called(track)
        handles[-1].set_label(_label(track, piece, name))
    return handles


def ticks_of_tracks(ax: Axes, piece: Slice) -> list[Line2D]:
    """Draw every track on a line as ticks at the bottom of the axes, with the names of separate checkpoints."""
    handles = []
    foot = ax.get_xaxis_transform()
    for track, colour in zip(piece.tracks, cycle(TICKS)):
        within = inside(track, piece)
        places = np.asarray(track.coordinates, float).reshape(len(track.names))
        ax.plot(
            places[within], np.full(within.sum(), 0.012), "|", color=colour, ms=9, mew=1.3, transform=foot,
            clip_on=False, zorder=6, gid=f"track {plain(track.label)}",
        )  # fmt: skip
        if not track.path and within.sum() <= NAMED:
            for name, place in ((n, p) for n, p, i in zip(track.names, places, within, strict=True) if i):
                text = ax.annotate(
                    plain(name, 22), (place, 0.04), xycoords=foot, rotation=90, ha="center", va="bottom", fontsize=7,
                    zorder=7, gid=f"name {plain(name, 22)}",
                )  # fmt: skip
                text.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
        handles.append(Line2D([], [], ls="", marker="|", ms=8, mew=1.3, color=colour, label=_label(track, piece)))
    return handles


def _path(ax: Axes, track: Track, places: np.ndarray, within: np.ndarray, colour: str) -> Line2D:
    """Draw a line through the points, dots that grow and darken with time, a square at the start and a disc at the end."""
    x, y = places.T
    name = plain(track.label)
    rim = [withStroke(linewidth=2.6, foreground=BLACK)]
    ax.plot(x, y, color=colour, lw=1.3, zorder=8, path_effects=rim, gid=f"track {name}")
    time = np.linspace(0, 1, len(x))
    ax.scatter(
        x, y, s=(SMALL + (LARGE - SMALL) * time) ** 2, c=time, cmap=_darkening(colour), vmin=0, vmax=1,
        edgecolors=BLACK, linewidths=0.5, zorder=9, gid=f"times {name}",
    )  # fmt: skip
    ax.plot(x[:1], y[:1], "s", color=colour, mec=BLACK, mew=1.0, ms=6.5, zorder=10, gid=f"start {name}")
    ax.plot(x[-1:], y[-1:], "o", color=BLACK, mec=colour, mew=1.0, ms=7.0, zorder=10, gid=f"end {name}")
    for end, i, neighbour in (("start", 0, 1), ("end", -1, -2)):
        if within[i]:
            beside(ax, end, places[i], f"{end} of {name}", away=places[neighbour % len(places)])
    return Line2D([], [], color=colour, lw=1.3, marker="s", ms=5.5, mec=BLACK, mew=0.8, path_effects=rim)


def _checkpoints(ax: Axes, track: Track, places: np.ndarray, within: np.ndarray, marker: str, colour: str) -> Line2D:
    """Draw a marker for each point, with its name towards the middle of the axes."""
    style: dict[str, Any] = {"ls": "", "marker": marker, "color": colour, "mec": BLACK, "mew": 1.1}
    ax.plot(*places.T, ms=7, zorder=9, gid=f"track {plain(track.label)}", **style)
    if len(places) <= NAMED:
        for name, place in ((n, p) for n, p, i in zip(track.names, places, within, strict=True) if i):
            beside(ax, plain(name, 22), place, f"name {plain(name, 22)}")
    return Line2D([], [], ms=6, **style)


def beside(ax: Axes, text: str, place: np.ndarray, gid: str, away: np.ndarray | None = None) -> None:
    """Write a label beside a marker, towards the middle of the axes and on the opposite side of the line to `away`.

    Paths that end in the same point share one label. Where another label stands already, it goes to another side.
    """
    labels = [t for t in ax.texts if isinstance(t, Annotation)]
    if any(t.get_text() == text and np.allclose(t.xy, place) for t in labels):
        return
    share = [(p - low) / (high - low) for p, (low, high) in zip(place, (ax.get_xlim(), ax.get_ylim()), strict=True)]
    right, above = share[0] <= 0.5, share[1] <= 0.5
    if away is not None and 0.05 < share[1] < 0.95 and away[1] != place[1]:
        above = bool(away[1] < place[1])
    taken = [
        _box(ax, t.get_text(), t.xy, t.get_horizontalalignment() == "left", t.get_verticalalignment() == "bottom")
        for t in labels
    ]
    sides = [(r, a) for a in (above, not above) for r in (right, not right)]
    right, above = next((side for side in sides if not _meets(_box(ax, text, place, *side), taken)), sides[0])
    drawn = ax.annotate(
        text, tuple(place), (7 if right else -7, 5 if above else -5), textcoords="offset points",
        ha="left" if right else "right", va="bottom" if above else "top", fontsize=7.5, zorder=13, gid=gid,
    )  # fmt: skip
    drawn.set_path_effects([withStroke(linewidth=2.2, foreground="white", alpha=0.9)])


def _box(ax: Axes, text: str, place: Sequence[float] | np.ndarray, right: bool, above: bool) -> np.ndarray:
    """Left, bottom, right and top of a label beside a marker, in points on a panel of about 270 points."""
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    x, y = 270 * (np.asarray(place, float) - low) / (high - low)
    x, y = x + (7 if right else -7 - 72 * width_of(text, 7.5)), y + (5 if above else -14)
    return np.array([x, y, x + 72 * width_of(text, 7.5), y + 9])


def _meets(box: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether a box overlaps one of the others."""
    return any((np.minimum(box[2:], other[2:]) > np.maximum(box[:2], other[:2])).all() for other in others)


def _darkening(colour: str) -> Colormap:
    """Colour map from the path's colour to black."""
    return LinearSegmentedColormap.from_list("time", [colour, BLACK])


def _label(track: Track, piece: Slice, name: str | None = None) -> str:
    """Legend label of a track: name, share of its spread in the slice, largest distance from it."""
    share = "" if track.explained is None or _lies_in(track) else f"{_percent(track.explained)} {_place(piece)}, "
    outside = int((~inside(track, piece)).sum())
    hidden = f", {outside} of {len(track.names)} not shown" if outside else ""
    return f"{plain(name or track.label, 40)}: {share}{_off(track, piece)}{hidden}"


def _lies_in(track: Track) -> bool:
    """Whether all points lie in the slice up to rounding."""
    return track.explained is not None and 1 - track.explained < 1e-9


def _off(track: Track, piece: Slice) -> str:
    """The largest distance of a track from the slice, in words."""
    return f"all {_place(piece)}" if _lies_in(track) else f"at most {short(float(np.max(track.distances)))} off it"


def _place(piece: Slice) -> str:
    """The name of the slice in a description: "in the plane" or "on the line"."""
    return "in the plane" if piece.dim == 2 else "on the line"


def _percent(share: float) -> str:
    """A share in percent, with two decimals from 99 % on.

    Example:
        >>> _percent(0.87), _percent(0.9991), _percent(1.0)
        ('87 %', '99.91 %', '100 %')
    """
    whole = 100 * share
    return f"{whole:.2f} %" if 99 <= whole < 99.995 else f"{whole:.0f} %"
