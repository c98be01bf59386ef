"""Drawing of samples ranked by a score: the sorted scores, which share the largest carry, and the highest ranked images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from landscape.errors import UsageError
from landscape.report.legend import legend_above
from landscape.report.style import (
    BLUE,
    GREY,
    VERMILLION,
    asks_for_log,
    house,
    log_axis,
    new_axes,
    note,
    number_of,
    panels,
    plain,
    short,
    unit_text,
)
from landscape.results import SampleScores

_COLUMNS = 8
_SIDE = 4  # pixels: the smallest image


def are_images(inputs: np.ndarray | None) -> bool:
    """Whether an array (n, ...) holds images: grey ones (n, H, W) or (n, 1, H, W), or colours (n, 3, H, W)."""
    if inputs is None or not len(inputs):
        return False
    pixels = inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[1] in (1, 3))
    return pixels and min(inputs.shape[-2:]) >= _SIDE


@house
def draw_ranked_scores(found: SampleScores, ax: Axes | None = None) -> Axes:
    """Draw the ranking score of every sample against its rank, highest first; wrong samples in another colour.

    The axis of scores is logarithmic if they are positive and the largest is over 100 times the smallest.

    Args:
        found: the scores.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.
    """
    ax = new_axes() if ax is None else ax
    order = found.ranking()
    values, ranks = found.scores[found.by][order], np.arange(1, len(order) + 1)
    finite = values[np.isfinite(values)]
    if asks_for_log([finite]):
        log_axis(ax, "y", float(finite.min()) / 1.5, float(finite.max()) * 1.5)
    wrong = np.zeros(len(order), dtype=bool) if found.wrong is None else found.wrong[order]
    told = "" if found.wrong is None else ", label not known to be wrong"
    ax.plot(
        ranks[~wrong], values[~wrong], ".", color=BLUE, ms=3, label=number_of(int((~wrong).sum()), "sample") + told, zorder=2
    )
    if wrong.any():
        ax.plot(
            ranks[wrong], values[wrong], "|", color=VERMILLION, ms=9, mew=1, zorder=3,
            label=number_of(int(wrong.sum()), "wrong label"),
        )  # fmt: skip
    if len(finite) < len(values):
        note(ax, f"{len(values) - len(finite)} not finite", corner="upper right")
    ax.set(xlabel="rank of the sample, highest score first", ylabel=f"{found.by} ({unit_text(found.units[found.by])})")
    ax.set_xlim(0, len(order) + 1)
    legend_above(ax, ax.get_legend_handles_labels()[0])
    return ax


@house
def draw_ranked_images(found: SampleScores, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw the highest ranked samples as images, with index, label, predicted class and score; wrong ones are framed.

    Brightness is stretched to the range of all images shown, each colour by itself.

    Args:
        found: scores with inputs that are images.
        axes: one for each of `found.top` samples; None makes a figure.

    Returns:
        The axes.

    Raises:
        UsageError: the inputs are no images.
    """
    images = found.inputs
    if images is None or not are_images(images):
        raise UsageError("expected samples that are images, found others", fix="draw the sorted scores instead")
    drawn = list(axes) if axes is not None else panels(len(images), _COLUMNS, width=1.0, height=1.42)
    pixels = _stretched(images)
    for ax, picture, i in zip(drawn, pixels, found.ranking().tolist(), strict=False):
        wrong = found.wrong is not None and bool(found.wrong[i])
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set(visible=True, color=VERMILLION if wrong else GREY, linewidth=2.2 if wrong else 0.6)
        label, predicted = (plain(found.label(classes, i), 11) for classes in (found.targets, found.predicted))
        lines = [f"sample {i}"]
        if label:
            lines += [f"label {label}", f"predicted {predicted}"]
        lines.append(short(float(found.scores[found.by][i])))
        ax.set_title(
            "\n".join(lines), fontsize=6, fontweight="normal", loc="left", color=VERMILLION if wrong else "black", pad=2
        )
    return drawn


def _stretched(images: np.ndarray) -> np.ndarray:
    """Images (n, H, W) or (n, H, W, 3) with values from 0 to 1."""
    pixels = images.astype(float)
    if pixels.ndim == 4:
        pixels = pixels[:, 0] if pixels.shape[1] == 1 else np.moveaxis(pixels, 1, -1)
    axes = tuple(range(3))
    low, high = pixels.min(axis=axes, keepdims=True), pixels.max(axis=axes, keepdims=True)
    return (pixels - low) / np.where(high > low, high - low, 1.0)


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
