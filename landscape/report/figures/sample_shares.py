"""Drawing of which share of the samples carries which share of a score's sum, such as the trace."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.report.figures.caption import Provenance, subject_line
from landscape.report.style import BLUE, GREY, house, new_axes, note, number_of
from landscape.report.words_around import finish
from landscape.results import SampleScores


@house
def draw_shares(found: SampleScores, ax: Axes | None = None, *, score: str | None = None) -> Axes:
    """Draw the share of the sum of a score that its k largest samples carry, against k, and the effective number of samples.

    The curve is Lorenz's (1905), from the largest sample on; the straight line is that of equal samples. The effective number
    is 1 / sum of squared shares.

    Args:
        found: the scores.
        ax: axes to draw on; None makes a figure.
        score: a score without negative values; by default `gauss_newton_trace` if it is there, else that which ranks.

    Returns:
        The axes.

    Raises:
        UsageError: there is no such score, or it has negative values or none that is finite and positive.
    """
    shares = found.shares(score)
    ax = new_axes() if ax is None else ax
    carried, ranks = np.concatenate([[0.0], np.cumsum(shares)]), np.arange(len(shares) + 1)
    effective = found.carried_by(score)
    ax.plot(ranks, carried, color=BLUE, label=found.share_name(score), zorder=3)
    ax.plot([0, len(shares)], [0, 1], color=GREY, lw=1, ls="--", label="if all samples were equal", zorder=1)
    ax.axvline(effective, color=GREY, lw=1, ls=":", zorder=1)
    half = int(np.searchsorted(carried, 0.5))
    ax.plot([half], [carried[half]], "o", color=BLUE, ms=4, zorder=4)
    said = f"{number_of(half, 'sample')} of {len(shares)} carry {carried[half]:.0%}\neffective number: {effective:.3g}"
    note(ax, said, corner="lower right")
    ax.set(xlabel="samples, largest first", ylabel="share of the sum", xlim=(0, len(shares)), ylim=(0, 1.02))
    ax.legend(loc="center right")
    return ax


def figure_shares(
    found: SampleScores,
    *,
    score: str | None = None,
    title: str | None = None,
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_shares` with title and caption."""
    named = title or f"Share of {found.share_name(score)} that samples carry"
    return finish(draw_shares(found, score=score), named, [subject_line(provenance)], caption)
