"""Drawing of a slice along two directions, as contours and in three dimensions."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]  # the toolkit has no types

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.measured_text import width_of
from landscape.report.quantities import GAPS, label_of, states, step_label
from landscape.report.style import BLACK, GREY, PURPLE, VERMILLION, new_axes, plain
from landscape.report.surfaces.depth import ELEVATIONS, Heights
from landscape.report.surfaces.field import Field, edges
from landscape.report.surfaces.minima import mark_minima, marked_places
from landscape.report.surfaces.standing_marks import (
    centre_height,
    centre_label,
    centre_name,
    legend_name,
    others_label,
    standing,
    track_heights,
)
from landscape.report.surfaces.tracks import NAMED, PATHS, beside, draw_tracks, finely, inside
from landscape.results import Slice
from landscape.results.surfaces.slice import FAILED, INTERPOLATED, MISSING, NOT_FINITE

AZIMUTH = -62.0  # of the eye of a surface in three dimensions, in degrees
FINEST = 80  # polygons along an axis of a surface; more are not visible in print and take minutes to draw
LABEL_DISTANCE = 19.0  # points between the centres of two contour labels
LABEL_HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white", alpha=0.85)]
# Hatching and colour of cells without a value.
HATCHES = {NOT_FINITE: ("xxxx", VERMILLION), FAILED: ("////", PURPLE), MISSING: ("....", GREY)}


def draw_contour(piece: Slice, ax: Axes | None, quantity: str) -> Axes:
    """Filled contours with labelled lines; see `draw_slice`."""
    field = Field.of(piece, quantity)
    ax = new_axes(5.5, 4.7) if ax is None else ax
    ax.set_xlim(field.x.min(), field.x.max())
    ax.set_ylim(field.y.min(), field.y.max())
    if not field.empty:
        paths = [finely(np.asarray(t.coordinates, float)) for t in piece.tracks if t.path]
        _fill(ax, field, label_of(piece, quantity), paths, marked_places(piece, quantity))
    handles = _mark_cells(ax, field) + _mark_computed(ax, piece, quantity)
    if field.holds_origin:
        ax.plot([0], [0], "+", color="white", ms=11, mew=3.2, zorder=11)
        ax.plot([0], [0], "+", color=VERMILLION, ms=10, mew=1.8, zorder=11, gid="centre")
        handles.insert(0, Line2D([], [], ls="", marker="+", color=VERMILLION, ms=9, mew=1.8, label=centre_label(piece)))
        if name := centre_name(piece):
            beside(ax, plain(name), np.zeros(2), f"name {plain(name)}")
    handles += draw_tracks(ax, piece, partial(others_label, piece=piece))
    if piece.merge_tree is not None and piece.merge_tree.quantity == quantity:
        handles += mark_minima(ax, piece)
    spans = [float(c.max() - c.min()) for c in (field.x, field.y)]
    if abs(spans[0] - spans[1]) <= 1e-9 * max(spans):
        ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.set_xlabel(step_label(piece, 0, 54))
    ax.set_ylabel(step_label(piece, 1, 54))
    if handles:
        legend_above(ax, handles)
    return ax


def draw_surface(piece: Slice, ax: Axes | None, quantity: str) -> Axes:
    """The plane as a surface in three dimensions, with its contours on the floor; see `draw_slice`."""
    field = Field.of(piece, quantity)
    ax = new_axes(5.5, 4.8, deep=True) if ax is None else ax
    if not isinstance(ax, Axes3D):
        raise UsageError(
            "expected axes in three dimensions for view='3d', found flat ones", fix="leave ax out, or use projection='3d'"
        )
    heights = np.log10(field.z) if field.log else field.z
    if field.empty:
        ax.set_xlim(field.x.min(), field.x.max())
        ax.set_ylim(field.y.min(), field.y.max())
        ax.set_zticks([])
        names = []
    else:
        levels = np.log10(field.levels()) if field.log else field.levels()
        x, y = np.meshgrid(field.x, field.y)
        norm = field.norm(levels) if field.signed else Normalize(levels[0], levels[-1])
        stride = {"rstride": -(-len(field.y) // FINEST), "cstride": -(-len(field.x) // FINEST)}
        ax.plot_surface(x, y, heights, cmap=field.colours, norm=norm, **stride, lw=0.15, edgecolor=(0, 0, 0, 0.25), zorder=2)
        # Room below the surface, so that the contours on the floor can be seen.
        floor = levels[0] - 0.45 * (levels[-1] - levels[0])
        flat = np.ma.masked_invalid(heights)
        ax.contour(x, y, flat, levels=levels, zdir="z", offset=floor, cmap=field.colours, norm=norm, linewidths=0.9, zorder=1)
        if field.signed:
            ax.contour(x, y, flat, levels=[0.0], zdir="z", offset=floor, colors=BLACK, linewidths=1.2, zorder=1).set_gid("zero")
        ax.set_zlim(floor, levels[-1])
        write = field.writing(10**levels if field.log else levels)
        step = -(-len(levels) // 6)
        ticks = levels[int(np.argmin(np.abs(levels))) % step if field.signed else 0 :: step]
        names = [write(10**t if field.log else t) for t in ticks]
        ax.set_zticks(ticks, names)
    elevation: float = ELEVATIONS[0]
    if not field.empty:
        # What is drawn hides, not what was computed: of a fine grid every n-th line is drawn.
        i, j = drawn_lines(len(field.x), stride["cstride"]), drawn_lines(len(field.y), stride["rstride"])
        seen = Heights(field.x[i], field.y[j], heights[np.ix_(j, i)], *ax.get_zlim())
        ax.computed_zorder = False  # points of the surface are drawn on it, or dotted and hollow where it hides them
        places, marks = standing(piece, quantity, seen, field.log)
        elevation = seen.elevation(places, AZIMUTH, marks)
        _computed_in_space(ax, piece, quantity, seen, elevation)
        _tracks_in_space(ax, piece, quantity, seen, field.log, elevation)
        _centre_in_space(ax, piece, centre_height(piece, quantity, seen, field.log), seen, elevation)
    if field.remarks():
        ax.plot([], [], [], ls="", label=", ".join(field.remarks()) + " (left out)")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", handlelength=0.8)
    ax.set_xlabel(step_label(piece, 0, 30), labelpad=9, fontsize=8)
    ax.set_ylabel(step_label(piece, 1, 30), labelpad=9, fontsize=8)
    # Numbers are centred beside their ticks, so half of the widest keeps them off; 5 points are there without any pad.
    pad = max(36 * max(map(partial(width_of, points=7.5), names), default=0.0) - 5, 1.0)
    ax.set_zlabel(label_of(piece, quantity) + (", log scale" if field.log else ""), labelpad=max(2 * pad - 4, 6.0), fontsize=8)
    ax.tick_params(labelsize=7.5, pad=1)
    ax.tick_params(axis="z", pad=pad)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.view_init(elev=elevation, azim=AZIMUTH)
    ax.set_proj_type("ortho")  # what hides what is then the same at every place
    ax.set_box_aspect((1, 1, 0.8), zoom=0.84)
    return ax


def drawn_lines(count: int, stride: int) -> list[int]:
    """The grid lines that matplotlib draws of a surface: every n-th and the last.

    Example:
        >>> drawn_lines(6, 2), drawn_lines(5, 1)
        ([0, 2, 4, 5], [0, 1, 2, 3, 4])
    """
    return [*range(0, count - 1, stride), count - 1]


def _centre_in_space(ax: Axes3D, piece: Slice, height: float, seen: Heights, elevation: float) -> None:
    """The checkpoint as a cross at its loss; hollow if the surface hides it from every elevation."""
    if np.isnan(height):
        return
    behind = seen.hidden(np.zeros((1, 2)), elevation, AZIMUTH, np.array([height]))
    style = {"mfc": "none", "mec": VERMILLION, "mew": 1.4} if behind[0] else {"mfc": VERMILLION, "mec": "white"}
    ax.plot(
        [0], [0], [height], "P", ms=7, zorder=9, label=legend_name(centre_label(piece), behind), gid="centre", ls="", **style
    )
    _name_in_space(ax, centre_name(piece), np.zeros(2), height)


def _tracks_in_space(ax: Axes3D, piece: Slice, quantity: str, seen: Heights, log: bool, elevation: float) -> None:
    """Every track: a path on the surface, dotted where that hides it; other networks at their losses, hollow where hidden."""
    for track, colour in zip(piece.tracks, cycle(PATHS)):
        name, label, places = plain(track.label), plain(others_label(track, piece)), np.asarray(track.coordinates, float)
        if track.path:
            places = finely(places)
            heights, hidden = seen.at(places), seen.hidden(places, elevation, AZIMUTH)
            rim: list[AbstractPathEffect] = [withStroke(linewidth=2.8, foreground=BLACK)]
            ax.plot(*places.T, heights, color=BLACK, lw=0.9, ls=":", zorder=7, gid=f"hidden {name}")
            style: dict[str, Any] = {"color": colour, "lw": 1.4, "path_effects": rim}
            ax.plot(*places.T, np.where(hidden, np.nan, heights), zorder=8, label=label, gid=f"track {name}", **style)
            continue
        heights = track_heights(track, piece, quantity, seen, log)
        places, heights = places[np.isfinite(heights)], heights[np.isfinite(heights)]
        named = [n for n, there in zip(track.names, inside(track, piece), strict=True) if there]
        hidden = seen.hidden(places, elevation, AZIMUTH, heights)
        for behind, fill, gid in ((False, colour, "track"), (True, "none", "hidden")):
            chosen = hidden == behind
            if chosen.any():
                style = {"mfc": fill, "mec": BLACK, "ls": "", "marker": "D", "ms": 4.5, "gid": f"{gid} {name}"}
                words = {"label": legend_name(label, hidden)} if not behind or hidden.all() else {}
                ax.plot(*places[chosen].T, heights[chosen], zorder=8, **style, **words)
        if len(named) <= NAMED:
            for text, place, height in zip(named, places, heights, strict=False):
                _name_in_space(ax, plain(text, 22), place, height)


def _name_in_space(ax: Axes3D, text: str, place: np.ndarray, height: float) -> None:
    """A name beside a mark."""
    if text:
        drawn = ax.text(
            place[0], place[1], height, f"  {plain(text, 24)}", fontsize=7.5, va="bottom", zorder=13, gid=f"name {text}"
        )
        drawn.set_path_effects(LABEL_HALO)


def _fill(ax: Axes, field: Field, label: str, paths: Sequence[np.ndarray], marks: np.ndarray) -> None:
    """Draw filled contours, labelled contour lines and the colour bar; no label where a path or a mark will be drawn."""
    levels = field.levels()
    norm = field.norm(levels)
    z = np.ma.masked_invalid(field.z)
    filled = ax.contourf(field.x, field.y, z, levels=levels, cmap=field.colours, norm=norm, zorder=2)
    filled.set_edgecolor("face")  # no thin lines between the bands in a PDF
    filled.set_linewidth(0.3)
    if np.ma.is_masked(z):
        # Contours end at the last finite point; the half cell up to the hatching is filled with the colour of that point.
        bands = ListedColormap(filled.get_facecolor()[: len(levels) - 1])
        mesh = ax.pcolormesh(edges(field.x), edges(field.y), z, cmap=bands, norm=BoundaryNorm(levels, bands.N), zorder=1)
        mesh.set_rasterized(True)
    write = field.writing(levels)
    if len(levels) > 2:
        lines = ax.contour(field.x, field.y, z, levels=levels, colors=BLACK, linewidths=0.6, alpha=0.75, zorder=3)
        ax.clabel(lines, fmt=write, fontsize=7, inline=False, colors=BLACK, zorder=4)
        _thin_labels(ax, lines.labelTexts, paths, marks)
    if field.signed:
        ax.contour(field.x, field.y, z, levels=[0.0], colors=BLACK, linewidths=1.5, zorder=3).set_gid("zero")
    bar = ax.get_figure().colorbar(filled, ax=ax, shrink=0.92, pad=0.02, aspect=28)  # type: ignore[union-attr]  # axes have a figure
    bar.set_ticks([float(v) for v in levels], labels=[write(v) for v in levels])
    bar.ax.minorticks_off()
    bar.outline.set_linewidth(0.6)
    bar.set_label(label + (", log scale" if field.log else ""))


def _thin_labels(ax: Axes, labels: Sequence[Text], paths: Sequence[np.ndarray], marks: np.ndarray) -> None:
    """Outline the labels of contour lines in white; remove those too close to the border, a mark, a path or another label.

    The colour bar labels every level.
    """
    # Distances in points on a panel of about 270 points, the size in this package's figures.
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    size = 270 / (high - low)
    lines = [path * size for path in paths]
    kept = [place * size for place in marks]
    ends = [line[i] for line in lines for i in (0, -1)]  # where "start" and "end" are written
    for text in labels:
        place = np.asarray(text.get_position(), float) * size
        to_border = np.minimum(place - low * size, high * size - place).min()
        on_path = any(np.hypot(*(line - place).T).min() < LABEL_DISTANCE * 0.7 for line in lines)
        near_end = any(np.hypot(*(end - place)) < 2 * LABEL_DISTANCE for end in ends)
        if (
            on_path
            or near_end
            or to_border < LABEL_DISTANCE / 2
            or min(np.hypot(*(place - other)) for other in kept) < LABEL_DISTANCE
        ):
            text.remove()
        else:
            kept.append(place)
            text.set_path_effects(LABEL_HALO)


def _mark_computed(ax: Axes, piece: Slice, quantity: str) -> list[Line2D | Patch]:
    """A dot at every computed point of a plane that is interpolated between them."""
    places, label = _computed(piece, quantity)
    if not label:
        return []
    ax.plot(*places.T, zorder=4, gid="computed", **_DOT)
    return [Line2D([], [], label=label, **(_DOT | {"ms": 5}))]


_DOT: dict[str, Any] = {"ls": "", "marker": ".", "color": BLACK, "ms": 1.8, "mew": 0, "alpha": 0.75}


def _computed(piece: Slice, quantity: str) -> tuple[np.ndarray, str]:
    """The computed points (n, 2) of a plane that is interpolated between them, and how many; "" if all are computed."""
    between = states(piece, quantity) == INTERPOLATED
    i, j = np.nonzero(~between)
    label = f"computed: {len(i):,} of {between.size:,}, interpolated between" if between.any() else ""
    return np.column_stack([piece.coordinates[0][i], piece.coordinates[1][j]]), label


def _computed_in_space(ax: Axes3D, piece: Slice, quantity: str, seen: Heights, elevation: float) -> None:
    """A dot on the surface at every computed point that it does not hide; the legend has the number of all."""
    places, label = _computed(piece, quantity)
    if not label:
        return
    shown = places[~seen.hidden(places, elevation, AZIMUTH)]
    ax.plot(*shown.T, seen.at(shown), zorder=6, gid="computed", **_DOT)
    ax.plot([], [], label=label, **(_DOT | {"ms": 5}))


def _mark_cells(ax: Axes, field: Field) -> list[Line2D | Patch]:
    """Hatch the cells without a value, with one pattern for each reason."""
    handles: list[Line2D | Patch] = []
    for status, (hatch, colour) in HATCHES.items():
        cells, what = field.cells(status), GAPS[status]
        if cells.any():
            style: dict[str, Any] = {"facecolor": "white", "edgecolor": colour, "hatch": hatch, "lw": 0.4}
            ax.add_collection(PolyCollection(field.boxes(cells), zorder=5, gid=what, **style), autolim=False)
            handles.append(Patch(label=f"{int(cells.sum())} of {cells.size} {what}", **style))
    return handles
