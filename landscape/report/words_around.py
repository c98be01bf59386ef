"""Title above and caption below the axes of a figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.report.legend import refit
from landscape.report.measured_text import fitted
from landscape.report.style import GREY, house, settle

MARGIN = 0.012  # share of the figure's width, at either side of title and caption


@house
def finish(ax: Axes, title: str, lines: Sequence[str] = (), caption: bool = True) -> Figure:
    """Add title and caption to the figure of `ax` and freeze its layout.

    Args:
        ax: any axes of the figure.
        title: written above.
        lines: written below in small grey type, one paragraph each; empty ones are left out.
        caption: False omits title and lines, for a paper with its own caption.
    """
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    if not caption:
        return settle(figure)
    width = figure.get_figwidth()
    line = width * (1 - 2 * MARGIN)
    heading = fitted(title, line, 10.5, bold=True)
    figure.suptitle(heading, x=MARGIN, ha="left", fontsize=10.5)
    footer = "\n".join(fitted(text, line, 6.5, longest=1000) for text in lines if text)
    if footer:
        figure.supxlabel(footer, x=MARGIN, ha="left", fontsize=6.5, color=GREY, linespacing=1.35)
    # The axes keep their size: the figure grows by the height of title and caption.
    extra = 0.17 * (heading.count("\n") + 1) + (0.13 * (footer.count("\n") + 1) if footer else 0.0)
    figure.set_figheight(figure.get_figheight() + extra)
    refit(figure)
    return settle(figure)
