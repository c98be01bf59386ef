"""Drawing of a measure through a training run, against the edge of stability of its optimizer."""

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.report.figures.caption import Provenance, subject_line
from landscape.report.legend import legend_above
from landscape.report.over_training.layer_curves import LAYERS, draw_layers, layers_of, number_axis
from landscape.report.quantities import quantity_name
from landscape.report.style import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    asks_for_log,
    house,
    log_axis,
    new_axes,
    short,
    unit_text,
)
from landscape.report.words_around import finish
from landscape.results import WatchHistory


@house
def draw_watched(history: WatchHistory, ax: Axes | None = None, *, measure: str | None = None) -> Axes:
    """Draw a measure against the step (or epoch) of training, with its error, its edge and the loss of the probe batch.

    The edge, dashed, is the value above which the optimizer's steps diverge on a quadratic of that curvature. Error bars are
    the intervals of the estimates (for an eigenvalue its residual). A hollow marker did not converge. The curve is dotted
    across gaps, where nothing was measured. An upright dotted line is where the measure was first above its edge. The loss
    has an axis of its own at the right.

    Args:
        history: what a watch measured.
        ax: axes to draw on; None makes a figure.
        measure: its name, or "layer_traces" for those of all layers; default: the first with an edge, else the first.

    Returns:
        The axes of the measure.

    Raises:
        UsageError: the history has no such measure, or no check.
    """
    name = measure or default_measure(history)
    if name == LAYERS:
        return draw_layers(history, new_axes() if ax is None else ax)
    steps, values, errors, edges = history.steps, history.values(name), history.errors(name), history.edges(name)
    ax = new_axes() if ax is None else ax
    done = np.array([e is not None and e.converged for e in history.estimates(name)])
    finite = np.isfinite(values)
    log = asks_for_log([values, edges])
    label = quantity_name(name)
    for at, height, line in _pieces(history, steps[finite], values[finite]):
        ax.plot(at, height, line, color=BLUE, lw=1.2 if line == "-" else 0.8, zorder=2)
    for chosen, face, words in ((done & finite, BLUE, label), (~done & finite, "white", f"{label}, NOT converged")):
        if chosen.any():
            bars = np.where(np.isfinite(errors), errors, 0.0)[chosen]
            style: dict[str, Any] = {"color": BLUE, "mfc": face, "ms": 3.2, "elinewidth": 0.9, "capsize": 1.5, "zorder": 3}
            ax.errorbar(steps[chosen], values[chosen], yerr=bars, fmt="o", label=words, **style)
    if np.isfinite(edges).any():
        last = float(edges[np.isfinite(edges)][-1])
        style = {"color": VERMILLION, "ls": "--", "lw": 1.2, "label": f"edge of stability: {short(last)}", "zorder": 2}
        if np.isfinite(edges).sum() == 1:
            ax.axhline(last, **style)  # a line of one point is not seen
        else:
            ax.plot(steps, edges, **style)
    for alarm in history.alarms:
        if alarm.name == name:
            words = "above it from the start" if history.from_the_start(alarm) else "first above it"
            ax.axvline(alarm.step, color=GREEN, lw=1.1, ls=":", label=f"{words}: {alarm.counted} {alarm.step}")
    if log:
        known = np.concatenate([values[finite], edges[np.isfinite(edges)]])
        log_axis(ax, "y", known.min() / 1.6, known.max() * 1.6)
    elif finite.any() and values[finite].min() >= 0:
        ax.set_ylim(bottom=0)
    number_axis(ax, history.counted)
    unit = history.units.get(name)
    ax.set_ylabel(label if unit is None else f"{label} ({unit_text(unit)})")
    handles = ax.get_legend_handles_labels()[0] + _loss(history, ax)
    if history.gaps:
        handles.append(Line2D([], [], color=BLUE, ls=":", lw=0.8, label="nothing measured here"))
    legend_above(ax, handles)
    return ax


def _pieces(history: WatchHistory, steps: np.ndarray, values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """A curve in pieces, solid between checks and dotted across gaps, in which nothing was measured."""
    gaps = history.gaps
    across = [any(a <= start and end <= b for a, b in gaps) for start, end in pairwise(steps.tolist())]
    cuts = [0, *(i for i in range(1, len(across)) if across[i] != across[i - 1]), len(across)]
    return [(steps[a : b + 1], values[a : b + 1], ":" if across[a] else "-") for a, b in pairwise(cuts) if b > a]


def _loss(history: WatchHistory, ax: Axes) -> list[object]:
    """The probe's loss on a second axis, thin and grey."""
    losses = history.losses
    finite = np.isfinite(losses)
    if not finite.any():
        return []
    other = ax.twinx()
    for at, height, style in _pieces(history, history.steps[finite], losses[finite]):
        other.plot(at, height, style, color=GREY, lw=0.9 if style == "-" else 0.6)
    alone: dict[str, Any] = {"marker": "s", "ms": 3.2} if finite.sum() == 1 else {}
    if alone:
        other.plot(history.steps[finite], losses[finite], color=GREY, **alone)
    line = Line2D([], [], color=GREY, lw=0.0 if alone else 0.9, label="loss of the probe batch, right axis", **alone)
    if asks_for_log([losses[finite]]):
        log_axis(other, "y", losses[finite].min() / 1.6, losses[finite].max() * 1.6)
    else:
        other.set_ylim(0 if losses[finite].min() >= 0 else None, None)
    other.set_ylabel("loss", color=GREY)
    other.tick_params(axis="y", colors=GREY)
    other.spines["right"].set(visible=True, color=GREY)
    other.grid(visible=False)
    return [line]


def default_measure(history: WatchHistory) -> str:
    """The first measure with an edge, else the first.

    Raises:
        UsageError: there is no check.
    """
    if not history.names:
        raise UsageError("expected a history with a check, found an empty one", fix="call the watch in the training loop")
    plain = [name for name in history.names if name not in layers_of(history)]
    edged = [name for name in plain if np.isfinite(history.edges(name)).any()]
    layers = [LAYERS for n in history.names if np.isfinite(history.values(n)).any()]
    return (edged or plain or layers or list(history.names))[0]


def drawn_measures(history: WatchHistory) -> list[str]:
    """The measures that have a figure: the default one, all with an edge, and traces, also of layers, where they are finite.

    Raises:
        UsageError: there is no check.
    """

    def known(name: str) -> bool:
        return name in history.names and bool(np.isfinite(history.values(name)).any())

    edged = [n for n in history.names if np.isfinite(history.edges(n)).any()]
    traced = [n for n in ("trace",) if known(n)] + [LAYERS for n in layers_of(history) if known(n)]
    return list(dict.fromkeys([default_measure(history), *edged, *traced]))


def figure_watched(
    history: WatchHistory,
    *,
    measure: str | None = None,
    title: str | None = None,
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_watched` with title and caption: optimizer, cost, data."""
    name = measure or default_measure(history)
    named = title or f"{'Traces of layers' if name == LAYERS else quantity_name(name)} through training"
    facts = "; ".join([*([history.optimizer] if history.optimizer else []), history.time_line()])
    alarm = [str(history.memorization)] if name == LAYERS and history.memorization is not None else []
    lines = [*alarm, facts, subject_line(provenance or history.provenance)]
    return finish(draw_watched(history, measure=name), named, lines, caption)
