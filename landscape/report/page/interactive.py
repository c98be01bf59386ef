"""Interactive surfaces. This module imports plotly, so it is imported only for interactive reports."""

from html import escape
from textwrap import wrap

import numpy as np
import plotly.graph_objects as graph
from scipy.interpolate import RegularGridInterpolator

from landscape.report.quantities import quantity_name, shown
from landscape.report.style import FIELD, VERMILLION, asks_for_log, label_text, log_ticks, short, tick_text
from landscape.report.surfaces.coarse import preview
from landscape.results import Slice


def surface_json(piece: Slice, quantity: str = "loss") -> str:
    """A plane as plotly's JSON: data and layout.

    Args:
        piece: a slice along two axes.
        quantity: a quantity of the slice.
    """
    text: str = _figure(piece, quantity).to_json()
    return text


def _figure(piece: Slice, quantity: str) -> graph.Figure:
    """The surface with its tracks; on a log scale the heights are logarithms and the tick labels are values."""
    piece, _ = preview(piece, quantity)
    values, _ = shown(piece, quantity)
    z = np.where(np.isfinite(np.ma.filled(values, np.nan)), np.ma.filled(values, np.nan), np.nan)
    axis: dict[str, object] = {"title": {"text": quantity_name(quantity)}}
    if asks_for_log([z]):
        ticks = log_ticks(float(np.nanmin(z)), float(np.nanmax(z)))
        write = tick_text(ticks[0], ticks[-1])
        z = np.log10(z)
        axis |= {"tickvals": np.log10(ticks).tolist(), "ticktext": [write(t) for t in ticks]}
        axis["title"] = {"text": f"{quantity_name(quantity)}, log scale"}
    x, y = (np.asarray(c, float) for c in piece.coordinates)
    texts = [[short(float(v)) for v in row] for row in np.ma.filled(values, np.nan).T]
    # plotly expects y along the rows, as matplotlib does.
    surface = graph.Surface(
        x=x,
        y=y,
        z=z.T,
        colorscale=FIELD,
        showscale=False,
        customdata=texts,
        hovertemplate="%{x:.3g}, %{y:.3g}: %{customdata}<extra></extra>",
    )
    # plotly interprets some HTML in texts, so names are escaped.
    names = ["<br>".join(map(escape, wrap(label_text(name, 60), 24))) for name in piece.axes]
    scene: dict[str, object] = {"xaxis": {"title": {"text": names[0]}}, "yaxis": {"title": {"text": names[1]}}, "zaxis": axis}
    camera = {"eye": {"x": -1.3, "y": -1.75, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.15}}
    scene |= {"camera": camera, "aspectmode": "cube"}
    return graph.Figure(
        [surface, *_tracks(piece, z), *_checkpoint(piece, z)],
        {"scene": scene, "margin": {"l": 0, "r": 0, "t": 10, "b": 0}, "font": {"size": 11}, "showlegend": False},
    )


def _checkpoint(piece: Slice, z: np.ndarray) -> list[graph.Scatter3d]:
    """The checkpoint at the origin, as in the figures; none if it is outside the plane or its loss is not finite."""
    x, y = (np.asarray(c, float) for c in piece.coordinates)
    if not all(float(c.min()) <= 0 <= float(c.max()) for c in (x, y)):
        return []
    height = RegularGridInterpolator((x, y), z)(np.zeros((1, 2)))
    if not np.isfinite(height[0]):
        return []
    return [
        graph.Scatter3d(
            x=[0], y=[0], z=height + 0.02 * float(np.nanmax(z) - np.nanmin(z)), mode="markers", name="checkpoint",
            hovertemplate="checkpoint<extra></extra>",
            marker={"size": 6, "color": VERMILLION, "line": {"color": "white", "width": 2}},
        )
    ]  # fmt: skip


def _tracks(piece: Slice, z: np.ndarray) -> list[graph.Scatter3d]:
    """Tracks at the interpolated height of the surface; the hover text is the distance of a point from the plane."""
    if not piece.tracks or not np.isfinite(z).any():
        return []
    height = RegularGridInterpolator(tuple(np.asarray(c, float) for c in piece.coordinates), z, bounds_error=False)
    lift = 0.015 * float(np.nanmax(z) - np.nanmin(z))
    out = []
    for track in piece.tracks:
        places = np.asarray(track.coordinates, float)
        words = [
            f"{escape(label_text(name, 40))}: {short(float(d))} off the plane"
            for name, d in zip(track.names, track.distances, strict=True)
        ]
        if track.path:
            x, y = (between := _finely(places)).T
            out.append(
                graph.Scatter3d(
                    x=x, y=y, z=height(between) + lift, mode="lines", hoverinfo="skip", line={"color": "black", "width": 4}
                )
            )  # fmt: skip
        x, y = places.T
        out.append(
            graph.Scatter3d(
                x=x, y=y, z=height(places) + lift, mode="markers", text=words, hovertemplate="%{text}<extra></extra>",
                marker={"size": 3.5 if track.path else 5, "color": VERMILLION, "line": {"color": "black", "width": 1}},
            )
        )  # fmt: skip
    return out


def _finely(places: np.ndarray, parts: int = 20) -> np.ndarray:
    """Points along the straight lines between places, so that a line over the surface does not cut through it."""
    at = np.arange((len(places) - 1) * parts + 1) / parts
    return np.stack([np.interp(at, np.arange(len(places)), column) for column in places.T], axis=1)
