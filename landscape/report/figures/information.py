"""Drawing of the mutual information of layers with inputs and labels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.report.figures.caption import Provenance, subject_line
from landscape.report.legend import legend_above
from landscape.report.style import CATEGORIES, GREY, LIGHT, MARKERS, house, panels, plain
from landscape.report.words_around import finish
from landscape.results import Information

_QUANTITIES = (("inputs", "input, I(T; X)"), ("labels", "label, I(T; Y)"))


@house
def draw_information(found: Information, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw I(T; X) of every layer in one panel, and I(T; Y), if there are labels, in another; one colour for each estimator.

    Filled markers are from all samples, hollow ones from half of them. Dotted lines are the largest possible values: log2 N and
    H(Y).

    Args:
        found: the layers' bits.
        axes: one for each panel; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: no layer.
    """
    if not found.rows:
        raise UsageError("expected at least one layer, found none")
    layers = list(dict.fromkeys(row.layer for row in found.rows))
    estimators = list(dict.fromkeys(row.estimator for row in found.rows))
    shown = _QUANTITIES if found.label_entropy is not None else _QUANTITIES[:1]
    drawn = list(axes or panels(len(shown), 1, width=max(5.5, 1.2 + 0.3 * len(layers)), height=2.3))
    for ax, (name, symbol) in zip(drawn, shown, strict=False):
        most = found.largest if name == "inputs" else found.label_entropy or 0.0
        for k, estimator in enumerate(estimators):
            rows = [row for row in found.rows if row.estimator == estimator]
            places = np.array([layers.index(row.layer) for row in rows]) + 0.5 * ((k + 0.5) / len(estimators) - 0.5)
            colour, marker = CATEGORIES[k % len(CATEGORIES)], MARKERS[k % len(MARKERS)]
            whole, half = (
                [getattr(pair, name) for pair in pairs] for pairs in zip(*((r.whole, r.half) for r in rows), strict=True)
            )
            ax.vlines(places, half, whole, color=colour, lw=0.8)
            ax.plot(places, half, marker, color=colour, mfc="white", ms=4, mew=0.8, ls="")
            ax.plot(places, whole, marker, color=colour, ms=4, ls="")
        ax.axhline(most, color=GREY, lw=0.9, ls=":")
        words = f"log₂ N = {most:.2f}" if name == "inputs" else f"H(Y) = {most:.2f}"
        ax.annotate(words, (1, most), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
                    ha="right", va="bottom", fontsize=7.5, color=GREY)  # fmt: skip
        for place in range(0, len(layers), 2):
            ax.axvspan(place - 0.5, place + 0.5, color=LIGHT, alpha=0.4, lw=0, zorder=0)
        ax.set(xlim=(-0.5, len(layers) - 0.5), ylim=(-0.03 * most, 1.16 * most or 1.0), ylabel=f"{symbol} (bits)")
        ax.grid(axis="x", visible=False)
        ax.set_xticks(range(len(layers)), [""] * len(layers))
    many = len(layers) > 6
    names = [plain(layer, 24) for layer in layers]
    drawn[-1].set_xticks(range(len(layers)), names, rotation=60 if many else 0, ha="right" if many else "center")
    drawn[-1].set_xlabel("layer, from input to output")
    handles = [
        Line2D([], [], marker=MARKERS[k % len(MARKERS)], color=CATEGORIES[k % len(CATEGORIES)], ls="", ms=4, label=estimator)
        for k, estimator in enumerate(estimators)
    ]
    handles.append(Line2D([], [], marker="o", color=GREY, mfc="white", ls="", ms=4, label="half of the samples"))
    legend_above(drawn[0], handles)
    return drawn


def figure_information(
    found: Information,
    *,
    title: str = "Mutual information of layers",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_information` with title, and a caption with the settings of the estimators and what limits them."""
    words = {"bins": "{:g} bins over each layer's range", "noise": "noise variance {:g} (kde, knn)"}
    words |= {"neighbours": "{:g} nearest neighbour", "copies": "{:g} noisy copies of a sample"}
    settings = "; ".join(words[key].format(value) for key, value in found.settings.items())
    lines = [settings, *found.notes(), subject_line(provenance or found.provenance)]
    return finish(draw_information(found)[0], title, lines, caption)
