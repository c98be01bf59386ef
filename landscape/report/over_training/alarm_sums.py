"""Drawing of an alarm for label memorization: its sums against its threshold."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.report.legend import legend_above
from landscape.report.over_training.layer_curves import number_axis
from landscape.report.style import BLACK, BLUE, VERMILLION, house, new_axes, short
from landscape.report.words_around import finish
from landscape.results import MemorizationSignal


@house
def draw_alarm(signal: MemorizationSignal, ax: Axes | None = None) -> Axes:
    """Draw Page's sums against the step, with the threshold, and where the alarm sounded."""
    ax = new_axes() if ax is None else ax
    ax.plot(signal.steps, signal.sums, color=BLUE, marker="o", ms=2.4, lw=1.2, label="sum of the alarm")
    ax.axhline(signal.threshold, color=VERMILLION, ls="--", lw=1.2, label=f"threshold: {short(signal.threshold)}")
    if signal.sounded is not None:
        ax.axvline(signal.sounded, color=BLACK, lw=1.3, label=f"memorization alarm: {signal.counted} {signal.sounded}")
    ax.set_ylim(bottom=0)
    number_axis(ax, signal.counted)
    ax.set_ylabel("rise of the hidden layers' log traces")
    legend_above(ax, ax.get_legend_handles_labels()[0])
    return ax


def figure_alarm(signal: MemorizationSignal, *, caption: bool = True) -> Figure:
    """`draw_alarm` with title and what the alarm says."""
    return finish(draw_alarm(signal), "Alarm for label memorization", [str(signal)], caption)
