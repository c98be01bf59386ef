"""Drawing of the traces of layers through training, with the alarm for label memorization."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.style import BLACK, CATEGORIES, GREY, label_text, log_axis, unit_text
from landscape.results import WatchHistory

LAYERS = "layer_traces"
_PREFIX = "trace/"
_NAMED = 8  # layers with a colour and a name; of more, the ends are named and all are grey


def number_axis(ax: Axes, counted: str) -> None:
    """Name the axis of checks by what is counted, and put its ticks on whole numbers."""
    ax.set_xlabel("checkpoint" if counted == "checkpoint" else f"{counted} of training")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def draw_layers(history: WatchHistory, ax: Axes) -> Axes:
    """Draw the trace of every layer's block against the step, on a log scale; a trace that is not positive is left out.

    With an alarm: dotted where it began to listen, solid where it sounded.

    Raises:
        UsageError: the history has no traces of layers, or none that is positive.
    """
    names = [name for name in history.names if name.startswith(_PREFIX)]
    if not names:
        raise UsageError("expected a history with traces of layers, found none", fix="measure layer_traces")
    steps, curves = history.steps, {name.removeprefix(_PREFIX): history.values(name) for name in names}
    above = np.concatenate([v[v > 0] for v in curves.values()])
    if not len(above):
        raise UsageError("expected a positive trace of a layer, found none", fix="measure more samples, or with more probes")
    for i, (name, values) in enumerate(curves.items()):
        shown = np.where(values > 0, values, np.nan)
        named = len(curves) <= _NAMED
        colour, label = (CATEGORIES[i], label_text(name)) if named else (GREY, None)
        ax.plot(steps, shown, color=colour, marker="o", ms=2.4, lw=1.2, label=label)
        if not named and i in (0, len(curves) - 1):
            ax.plot(steps, shown, color=CATEGORIES[i > 0], lw=1.6, label=label_text(name), zorder=3)
    signal = history.memorization
    if signal is not None and signal.listening is not None:
        ax.axvline(signal.listening, color=BLACK, lw=0.9, ls=":", label=f"alarm listens: {signal.counted} {signal.listening}")
    if signal is not None and signal.sounded is not None:
        ax.axvline(signal.sounded, color=BLACK, lw=1.3, label=f"memorization alarm: {signal.counted} {signal.sounded}")
    log_axis(ax, "y", above.min() / 1.6, above.max() * 1.6)
    number_axis(ax, history.counted)
    ax.set_ylabel(f"trace of a layer ({unit_text(history.units.get(LAYERS, 'loss / weight^2'))})")
    legend_above(ax, ax.get_legend_handles_labels()[0])
    return ax
