"""Interactive surfaces. This module imports plotly, so it is imported only for interactive reports."""

from html import escape
from textwrap import wrap

import numpy as np
import plotly.graph_objects as graph

from landscape.report.figures.titled import slice_caption
from landscape.report.quantities import quantity_name, shown, states, step_label
from landscape.report.style import FIELD, VERMILLION, asks_for_log, label_text, log_ticks, short, tick_text
from landscape.report.surfaces.coarse import preview
from landscape.report.surfaces.depth import Heights
from landscape.report.surfaces.plane import AZIMUTH
from landscape.report.surfaces.standing_marks import (
    centre_height,
    centre_label,
    centre_name,
    legend_name,
    others_label,
    standing,
    track_heights,
)
from landscape.report.surfaces.tracks import NAMED, finely
from landscape.results import INTERPOLATED, Slice

TALL = 0.8  # height of the box, whose sides have length 1, as in the figure
TITLE = 48  # characters in a line of an axis title; plotly writes a third line over the numbers
WIDTH = 620  # pixels of a saved view at least, which hold a line of these characters
HEADING, CAPTION = 60, 105
LIFT = 0.03  # of a mark above the surface, of the height of the box
SIZE = 1.15  # of the box in the frame; in parallel projection the distance of the eye does not matter


def surface_json(piece: Slice, quantity: str = "loss") -> str:
    """A plane as plotly's JSON: data and layout.

    Args:
        piece: a slice along two axes.
        quantity: a quantity of the slice.
    """
    figure = _figure(piece, quantity)
    # Written above and below the surface in the PNG file, whose reader has no page around it.
    lines = [escape(part) for line in slice_caption(piece, quantity) for part in wrap(line, CAPTION)]
    title = wrap(label_text(piece.title, 90), HEADING)
    figure.update_layout(
        meta={
            "title": _written("\n".join(title)),
            "titles": max(len(title), 1),
            "caption": "<br>".join(lines),
            "lines": len(lines),
            "width": WIDTH,
        }
    )
    text: str = figure.to_json()
    return text


def _figure(piece: Slice, quantity: str) -> graph.Figure:
    """The surface with its tracks; on a log scale the heights are logarithms and the tick labels are values."""
    piece, _ = preview(piece, quantity)
    values, _ = shown(piece, quantity)
    z = np.where(np.isfinite(np.ma.filled(values, np.nan)), np.ma.filled(values, np.nan), np.nan)
    # Lines below the title keep it off the numbers, over which plotly writes a title of one line.
    axis: dict[str, object] = {"title": {"text": _written(f"{quantity_name(quantity)}\n\n\n "), "font": {"size": 12}}}
    bar: dict[str, object] = {"title": {"text": _written(quantity_name(quantity))}, "len": 0.7, "thickness": 12, "x": 0.98}
    if asks_for_log([z]):
        ticks = log_ticks(float(np.nanmin(z)), float(np.nanmax(z)))
        ticks = ticks[:: -(-len(ticks) // 6)]
        write = tick_text(ticks[0], ticks[-1])
        z = np.log10(z)
        named = {"tickvals": np.log10(ticks).tolist(), "ticktext": [write(t) for t in ticks]}
        axis |= named
        bar |= named | {"title": {"text": _written(f"{quantity_name(quantity)},\nlog scale")}}
    x, y = (np.asarray(c, float) for c in piece.coordinates)
    between = states(piece, quantity).T == INTERPOLATED
    told = zip(np.ma.filled(values, np.nan).T, between, strict=True)
    texts = [[short(float(v)) + ", interpolated" * bool(b) for v, b in zip(*rows, strict=True)] for rows in told]
    # plotly expects y along the rows, as matplotlib does.
    surface = graph.Surface(
        x=x,
        y=y,
        z=z.T,
        colorscale=FIELD,
        colorbar=bar,
        customdata=texts,
        hovertemplate="%{x:.3g}, %{y:.3g}: %{customdata}<extra></extra>",
    )
    known = z[np.isfinite(z)] if np.isfinite(z).any() else np.zeros(1)
    margin = 0.04 * float(np.ptp(known)) or 0.5
    seen = Heights(x, y, z.T, float(known.min()) - margin, float(known.max()) + margin, TALL)
    log = "ticktext" in axis
    places, marks = standing(piece, quantity, seen, log)
    elevation = seen.elevation(places, AZIMUTH, marks)
    centre = centre_height(piece, quantity, seen, log)
    scene: dict[str, object] = {
        "annotations": _names(piece, quantity, seen, log, centre),
        "xaxis": _axis(step_label(piece, 0, TITLE), x),
        "yaxis": _axis(step_label(piece, 1, TITLE), y),
        "zaxis": axis | {"range": [seen.low, seen.high], "tickangle": 0},
        "camera": _camera(elevation),
        "aspectmode": "manual",
        "aspectratio": {"x": SIZE, "y": SIZE, "z": SIZE * TALL},
    }
    legend = {
        "x": 0.02,
        "y": 0.98,
        "xanchor": "left",
        "yanchor": "top",
        "itemsizing": "constant",
        "font": {"size": 12},
    }
    return graph.Figure(
        [surface, *_tracks(piece, quantity, seen, log, elevation), *_checkpoint(piece, seen, centre, elevation)],
        {
            "scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "font": {"size": 11}, "showlegend": True,
            "legend": legend,
        },
    )  # fmt: skip


def _axis(label: str, places: np.ndarray) -> dict[str, object]:
    """An axis of the floor, from the first to the last place."""
    title = {"text": _written(label), "font": {"size": 12}}
    return {"title": title, "range": [float(places.min()), float(places.max())], "nticks": 6, "tickangle": 0}


def _camera(elevation: float) -> dict[str, object]:
    """The eye where the figure has it. In parallel projection what hides what is the same at every distance."""
    up, around = np.radians([elevation, AZIMUTH])
    x, y, z = 2 * np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    return {
        "eye": {"x": float(x), "y": float(y), "z": float(z)},
        "center": {"x": 0, "y": 0, "z": 0},
        "projection": {"type": "orthographic"},
    }


def _written(text: str) -> str:
    """A label of a figure as plotly takes it, which interprets some HTML and no backslashes."""
    return "<br>".join(map(escape, text.replace("\\$", "$").split("\n")))


def _checkpoint(piece: Slice, seen: Heights, height: float, elevation: float) -> list[graph.Scatter3d]:
    """The checkpoint at its loss, as in the figure, with its name in the legend; none outside the plane."""
    if np.isnan(height):
        return []
    behind = seen.hidden(np.zeros((1, 2)), elevation, AZIMUTH, np.array([height]))
    name = escape(centre_name(piece))
    mark = graph.Scatter3d(
        x=[0], y=[0], z=_raised(np.zeros((1, 2)), np.array([height]), seen), mode="markers",
        name=escape(legend_name(centre_label(piece), behind)),
        hovertemplate=f"{name or 'checkpoint'}<extra></extra>",
        marker={"size": 6, "color": VERMILLION, "symbol": "cross", "line": {"color": VERMILLION, "width": 3}},
    )  # fmt: skip
    return [mark]


def _tracks(piece: Slice, quantity: str, seen: Heights, log: bool, elevation: float) -> list[graph.Scatter3d]:
    """Tracks on the surface, and other networks at their losses; the hover text says these, and distances from the plane."""
    lift = 0.015 * (seen.high - seen.low)
    out = []
    for track in piece.tracks:
        places = np.asarray(track.coordinates, float)
        heights = track_heights(track, piece, quantity, seen, log)
        if not np.isfinite(heights).any():
            continue
        losses = [""] * len(track.names) if track.losses is None else [f"loss {short(float(v))}, " for v in track.losses]
        words = [
            f"{escape(label_text(name, 40))}: {loss}{short(float(d))} off the plane"
            for name, loss, d in zip(track.names, losses, track.distances, strict=True)
        ]
        name = escape(others_label(track, piece))
        if track.path:
            x, y = (between := finely(places, 20)).T
            line = {"color": "black", "width": 4}
            out.append(
                graph.Scatter3d(x=x, y=y, z=seen.at(between) + lift, mode="lines", hoverinfo="skip", name=name, line=line)
            )
        known = np.isfinite(heights)
        hidden = seen.hidden(places[known], elevation, AZIMUTH, heights[known])
        x, y = places.T
        out.append(
            graph.Scatter3d(
                x=x, y=y, z=heights + lift if track.path else _raised(places, heights, seen),
                mode="markers", showlegend=not track.path,
                name=name if track.path else legend_name(name, hidden), customdata=words,
                hovertemplate="%{customdata}<extra></extra>",
                marker={"size": 3.5 if track.path else 5, "color": VERMILLION if track.path else "white",
                        "symbol": "circle" if track.path else "diamond", "line": {"color": "black", "width": 1}},
            )
        )  # fmt: skip
    return out


def _raised(places: np.ndarray, heights: np.ndarray, seen: Heights) -> np.ndarray:
    """Heights of marks that the surface does not swallow: on it where it is drawn higher than their own losses, and above it.

    Between computed points the surface is interpolated. A mark has a thickness, and the walls of a narrow valley are beside it.
    """
    return np.fmax(heights, seen.at(places)) + LIFT * (seen.high - seen.low)


def _names(piece: Slice, quantity: str, seen: Heights, log: bool, centre: float) -> list[dict[str, object]]:
    """The names of single networks over their marks, on a white ground that is legible on every colour of the surface."""
    found = [(centre_name(piece), 0.0, 0.0, centre)] if centre_name(piece) else []
    for track in piece.tracks:
        heights = track_heights(track, piece, quantity, seen, log)
        if not track.path and int(np.isfinite(heights).sum()) <= NAMED:
            places = np.asarray(track.coordinates, float)
            found += [(n, float(x), float(y), float(h)) for n, (x, y), h in zip(track.names, places, heights, strict=True)]
    # A thin line leads to the mark, so that the name does not cover the place.
    style: dict[str, object] = {
        "showarrow": True,
        "arrowhead": 0,
        "arrowwidth": 1,
        "ax": 0,
        "ay": -34,
        "standoff": 6,
        "bgcolor": "rgba(255,255,255,0.8)",
        "font": {"size": 11},
    }
    return [
        {
            "text": escape(label_text(name, 22)),
            "x": x,
            "y": y,
            "z": float(_raised(np.array([[x, y]]), np.array([height]), seen)[0]),
        }
        | style
        for name, x, y, height in found
        if np.isfinite(height)
    ]
