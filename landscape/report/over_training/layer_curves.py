"""Drawing of the traces of layers through training, with the alarm for label memorization."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.style import BLACK, CATEGORIES, GREY, label_text, log_axis, short, unit_text
from landscape.results import WatchHistory

LAYERS = "layer_traces"
_PREFIX = "trace/"
_NAMED = 8  # layers with a colour and a name; of more, the ends are named and all are grey

_DIFFER = 30.0  # sizes on both sides of zero that differ by more are drawn on a log scale
_LINEAR = 1e-3  # of the largest size: below it such a scale is linear


def number_axis(ax: Axes, counted: str) -> None:
    """Name the axis of checks by what is counted, and put its ticks on whole numbers."""
    ax.set_xlabel("checkpoint" if counted == "checkpoint" else f"{counted} of training")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def layers_of(history: WatchHistory) -> list[str]:
    """The names of the measures that are traces of layers."""
    return [name for name in history.names if name.startswith(_PREFIX)]


def draw_layers(history: WatchHistory, ax: Axes) -> Axes:
    """Draw the trace of every layer's block against the step, on a log scale, or on both sides of zero where it needs one.

    A trace is negative beyond its error if its whole interval is. Where one is, or none is positive, all are drawn, on an axis
    through zero. Otherwise those that are not positive are noise, and are left out. The legend says how many there are.
    With an alarm: dotted where it began to listen, solid where it sounded.

    Raises:
        UsageError: the history has no traces of layers, or none that is finite.
    """
    names = layers_of(history)
    if not names:
        raise UsageError("expected a history with traces of layers, found none", fix="measure layer_traces")
    steps, curves = history.steps, {name.removeprefix(_PREFIX): history.values(name) for name in names}
    every = np.concatenate(list(curves.values()))
    every, error = every[np.isfinite(every)], np.concatenate([history.errors(name) for name in names])[np.isfinite(every)]
    if not len(every):
        raise UsageError(
            "expected a finite trace of a layer, found none", fix="print(history) says why they could not be measured"
        )
    above, below = every[every > 0], int((every + np.nan_to_num(error) < 0).sum())
    signed = below > 0 or not len(above)
    for i, (name, values) in enumerate(curves.items()):
        shown = np.where(np.isfinite(values) & (signed | (values > 0)), values, np.nan)
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
    if signed:
        _signed_axis(ax, every)
        told = (
            f"{below} of {len(every)} traces are negative beyond their error"
            if below
            else "none is positive, nor negative beyond its error"
        )
    else:
        log_axis(ax, "y", above.min() / 1.6, above.max() * 1.6)
        told = f"left out: {len(every) - len(above)} of {len(every)}, not positive within their error"
    number_axis(ax, history.counted)
    ax.set_ylabel(f"trace of a layer ({unit_text(history.units.get(LAYERS, 'loss / weight^2'))})")
    words = [Line2D([], [], ls="", label=told)] if signed or len(above) < len(every) else []
    legend_above(ax, ax.get_legend_handles_labels()[0] + words)
    return ax


def _signed_axis(ax: Axes, values: np.ndarray) -> None:
    """An axis through zero, with a line there; log on both sides of it if the sizes differ by more than a decade and a half."""
    sizes = np.abs(values[values != 0])
    ax.axhline(0.0, color=GREY, lw=0.8, zorder=1)
    if not len(sizes) or sizes.max() < _DIFFER * sizes.min():
        return
    least = max(float(sizes.min()), _LINEAR * float(sizes.max()))
    ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(least)))
    ax.set_ylim(min(1.6 * float(values.min()), -least), max(1.6 * float(values.max()), least))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    ax.yaxis.set_minor_formatter(NullFormatter())
