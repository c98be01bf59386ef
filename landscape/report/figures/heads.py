"""Drawing of curvature by attention head: a field of layers by heads for each quantity."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure

from landscape.errors import UsageError
from landscape.report.figures.caption import subject_line
from landscape.report.figures.titled import Provenance
from landscape.report.style import DIVERGING, FIELD, LIGHT, ending, house, panels, plain, short
from landscape.report.words_around import finish
from landscape.results import Block

_WRITTEN = 8  # most heads of a layer whose numbers are written into the cells


@house
def draw_heads(heads: Sequence[Block], axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw the largest eigenvalue, the trace and the share of the top eigenvector of every head as colours.

    Where there is room the numbers stand in the cells, the trace with its 95 % error of the computation. Rows are attention
    layers from top to bottom, columns heads. A quantity that is negative anywhere has colours that diverge from 0; a layer with
    fewer heads has empty cells.

    Args:
        heads: the heads' blocks, in the order of their layers.
        axes: three axes; None makes a figure.

    Returns:
        The three axes.

    Raises:
        UsageError: no head, or a block that is none.
    """
    if not heads:
        raise UsageError("expected at least one attention head, found none")
    if any(b.head is None for b in heads):
        raise UsageError(
            "expected attention heads alone, found other blocks", fix="pass breakdown(objective, heads=True).heads"
        )
    layers = list(dict.fromkeys(b.layer for b in heads))
    columns = 1 + max(b.head or 0 for b in heads)
    wide, high = max(2.6, 0.9 + 0.4 * columns), max(1.8, 0.9 + 0.4 * len(layers))
    drawn = list(axes) if axes is not None else panels(3, 3, width=wide, height=high)
    quantities = {
        "Largest eigenvalue": [b.lambda_max.value for b in heads],
        "Trace": [b.trace.value for b in heads],
        "Top eigenvector's share, %": [np.nan if b.share is None else 100 * b.share for b in heads],
    }
    for i, (ax, (title, values)) in enumerate(zip(drawn, quantities.items(), strict=True)):
        field, errors = (np.full((len(layers), columns), np.nan) for _ in range(2))
        for b, value in zip(heads, values, strict=True):
            place = layers.index(b.layer), b.head or 0
            field[place] = value
            if title == "Trace" and (bounds := b.trace.interval()):
                errors[place] = (bounds[1] - bounds[0]) / 2
        _field(ax, field, errors)
        ax.set_title(title)
        ax.set_xlabel("head")
        ax.set_yticks(
            range(len(layers)), [plain(ending(name or "(model)", 28)) for name in layers] if i == 0 else [""] * len(layers)
        )
    return drawn


def _field(ax: Axes, field: np.ndarray, errors: np.ndarray) -> None:
    """Coloured cells with a colour bar, and numbers with their errors, as far as known, where there is room."""
    known = field[np.isfinite(field)]
    signed = bool((known < 0).any())
    norm = CenteredNorm(0) if signed else Normalize(0, float(known.max()) if len(known) and known.max() > 0 else 1.0)
    ax.set_facecolor(LIGHT)
    image = ax.imshow(field, cmap=DIVERGING if signed else FIELD, norm=norm, aspect="auto", interpolation="nearest")
    ax.grid(visible=False)
    step = max(1, field.shape[1] // 8)
    ax.set_xticks(range(0, field.shape[1], step))
    bar = ax.get_figure().colorbar(image, ax=ax, pad=0.03, fraction=0.08)  # type: ignore[union-attr]  # axes of a figure
    bar.ax.tick_params(labelsize=6)
    if field.shape[1] > _WRITTEN:
        return
    for (row, column), value in np.ndenumerate(field):
        if np.isfinite(value):
            r, g, b, _ = image.cmap(image.norm(value))
            dark = 0.3 * r + 0.59 * g + 0.11 * b < 0.5
            error = errors[row, column]
            text = short(float(value), 3) + (f"\n± {short(float(error), 2)}" if np.isfinite(error) else "")
            ax.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def figure_heads(
    heads: Sequence[Block],
    *,
    title: str = "Curvature by attention head",
    provenance: Provenance | None = None,
    caption: bool = True,
) -> Figure:
    """`draw_heads` with title and caption."""
    lost = sum(not b.lambda_max.converged for b in heads)
    state = f"{lost} of the eigenvalues NOT converged" if lost else "all eigenvalues converged"
    most = max((b.shared for b in heads), default=0)
    shared = f"; up to {most:,} weights of a head are in other heads, too (shared keys and values)" if most else ""
    facts = f"{len(heads)} heads; eigenvalue and trace in loss / weight², ± 95 % of the computation; {state}{shared}"
    return finish(draw_heads(heads)[0], title, [facts, subject_line(provenance)], caption)
