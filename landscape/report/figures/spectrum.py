"""Drawing of eigenvalues and spectral densities."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from landscape.report.legend import legend_above
from landscape.report.style import (
    BLACK,
    BLUE,
    DECADES_ASK,
    GREY,
    VERMILLION,
    asks_for_log,
    house,
    log_axis,
    new_axes,
    number_of,
    short,
)
from landscape.results import Eigenpairs, MinibatchSpectra, SpectralDensity
from landscape.results.spectra.minibatch_spectra import nothing_words

APART = " (closer eigenvalues are not told apart)"
EIGENVALUE = "eigenvalue λ of the Hessian (loss / weight²)"


@house
def draw_density(density: SpectralDensity, ax: Axes | None = None, *, eigenpairs: Eigenpairs | None = None) -> Axes:
    """Draw a spectral density with its band on a log axis, which shows single outliers beside the bulk.

    Where the lower end of the band is zero (the number of steps does not resolve the density), the band is not filled; a dotted
    line is its upper end.

    Ticks at the bottom mark the smallest and the largest Ritz value of every probe: the ends of the spectrum as that run found
    them. If they differ between probes, the ends are not resolved. With scale="log" the eigenvalue axis is a symmetric
    logarithm, linear between -linthresh and linthresh (shaded in grey).

    Args:
        density: the estimate; its unit is 1 / (unit of the eigenvalue).
        ax: axes to draw on; None makes a figure.
        eigenpairs: eigenvalues from another method, marked at the top edge.

    Returns:
        The axes.

    Example:
        >>> one = np.ones(3)
        >>> flat = SpectralDensity(np.arange(3.0), one, one, one, np.array([[0.0, 2.0]]), one, one, "linear", None, 9, 2)
        >>> draw_density(flat).get_yscale()
        'log'
    """
    ax = new_axes() if ax is None else ax
    grid, mean = np.asarray(density.grid, float), np.asarray(density.density, float)
    if density.linthresh is not None:
        ax.set_xscale("symlog", linthresh=density.linthresh, linscale=0.5)
        _shade_linear_part(ax, density.linthresh)
    floor, ceiling = _density_range(density)
    under = floor / 100  # below the axis, in place of zero
    _band(ax, density, floor)
    ax.plot(grid, np.maximum(mean, under), color=BLUE, label=f"density, smoothed: mean over {_vectors(density)}", lw=1.3)
    ends = np.concatenate([density.nodes.min(axis=1), density.nodes.max(axis=1)])
    ax.plot(
        ends,
        np.full(ends.shape, 0.025),
        "|",
        transform=ax.get_xaxis_transform(),
        color=BLACK,
        ms=9,
        mew=0.9,
        label="smallest and largest eigenvalue that each of them found",
    )
    if eigenpairs is not None:
        _mark_eigenvalues(ax, eigenpairs)
    log_axis(ax, "y", floor, ceiling)
    ax.set_xlim(grid.min(), grid.max())
    if density.linthresh is not None:
        _symlog_ticks(ax, density.linthresh)
    ax.set_xlabel(EIGENVALUE + ("" if density.linthresh is None else ", log scale on both sides of 0"))
    ax.set_ylabel("density (weight² / loss)")
    handles = ax.get_legend_handles_labels()[0]
    legend_above(ax, sorted(handles, key=lambda h: not str(h.get_label()).startswith("density")))
    return ax


@house
def draw_eigenvalues(pairs: Eigenpairs, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues as stems by rank, with their residuals as error bars.

    Every error bar contains an eigenvalue of H. Hollow markers did not converge. Ranks from the smallest are negative: -1 is
    the smallest.

    Args:
        pairs: eigenvalues in the unit of the operator.
        ax: axes to draw on; None makes a figure.

    Returns:
        The axes.
    """
    ax = new_axes() if ax is None else ax
    values, residuals = np.asarray(pairs.values, float), np.asarray(pairs.residuals, float)
    converged = np.asarray(pairs.converged, bool)
    ranks = _ranks(pairs)
    places = np.arange(len(values), dtype=float)
    if pairs.which == "both" and len(values) > 1:
        places[ranks < 0] += 1  # a gap for the spectrum in between
    _eigenvalue_scale(ax, values, residuals)
    foot = ax.get_ylim()[0] if ax.get_yscale() == "log" else 0.0
    if ax.get_yscale() != "log":  # which has no zero
        ax.axhline(0, color=GREY, lw=0.8, zorder=1)
    ax.vlines(places, foot, values, color=BLUE, lw=1.2, alpha=0.6)
    for chosen, face, label in ((converged, BLUE, "converged"), (~converged, "white", "NOT converged")):
        if chosen.any():
            ax.errorbar(
                places[chosen],
                values[chosen],
                yerr=residuals[chosen],
                fmt="o",
                color=BLUE if face == BLUE else VERMILLION,
                mfc=face,
                ecolor=BLACK,
                elinewidth=1,
                capsize=2.5,
                label=f"{label}, residual ≤ {short(float(residuals[chosen].max()))}",
                zorder=3,
            )
    step = -(-len(values) // 20)
    ax.set_xticks(places[::step], [short(r) for r in ranks[::step]])
    ax.grid(axis="x", visible=False)
    ax.set_xlim(-0.6, (places[-1] if len(places) else 0) + 0.6)
    ax.set_xlabel(
        {"largest": "rank from the largest", "smallest": "rank from the smallest end"}.get(pairs.which, "rank from either end")
    )
    both_sides = "\nlog scale on both sides of 0" if ax.get_yscale() == "symlog" else ""
    ax.set_ylabel(f"eigenvalue λ (loss / weight²){both_sides}")
    legend_above(ax, ax.get_legend_handles_labels()[0])
    return ax


@house
def draw_minibatch_spectra(found: MinibatchSpectra, ax: Axes | None = None) -> Axes:
    """Draw how lambda_max and lambda_min are distributed over mini-batches, as histograms; lines for all samples together.

    The axis is a symmetric logarithm if lambda_max alone spans more than two decades, or if one of the two histograms would be
    narrower than a hundredth of a linear axis, where nobody would see it. Values within their residuals of 0 are drawn at 0.
    """
    ax = new_axes() if ax is None else ax
    largest, smallest = found.told()
    log = bool((largest > 0).all()) and (asks_for_log([largest.tolist()]) or _too_narrow(found))
    for values, whole, color, name in (
        (smallest, found.whole_smallest.value, VERMILLION, "lambda_min"),
        (largest, found.whole_largest.value, BLUE, "lambda_max"),
    ):
        bins = np.histogram_bin_edges(np.arcsinh(values / _unit(found)) if log else values, bins="auto")
        if np.ptp(values) == 0:  # one bar, a fiftieth of the axis wide
            ends = np.arcsinh(np.array(_ends(found)) / _unit(found)) if log else np.array(_ends(found))
            bins = bins.mean() + np.array([-0.01, 0.01]) * (float(np.ptp(ends)) or 1.0)
        edges = np.sinh(bins) * _unit(found) if log else bins
        edges[[0, -1]] = min(edges[0], values.min()), max(edges[-1], values.max())  # which rounding may leave outside
        none = int((values == 0).sum())
        label = f"{name} of {len(found)} mini-batches of {found.size}"
        ax.hist(values, edges.tolist(), color=color, alpha=0.6, label=label + (f", {nothing_words(none)}" if none else ""))
        ax.axvline(whole, color=color, lw=1.3, ls="--", label=f"{name} of all {found.samples:,} samples")
    if log:
        ax.set_xscale("symlog", linthresh=_unit(found), linscale=0.5)
        low, high = np.arcsinh(np.array([min(_ends(found)), max(_ends(found))]) / _unit(found))
        ax.set_xlim(*(np.sinh([low - 0.4, high + 0.4]) * _unit(found)))
        _symlog_ticks(ax, _unit(found))
    ax.axvline(0, color=GREY, lw=0.8)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=EIGENVALUE + ("\nlog scale on both sides of 0" if log else ""), ylabel="mini-batches")
    legend_above(ax, ax.get_legend_handles_labels()[0])
    return ax


def _too_narrow(found: MinibatchSpectra) -> bool:
    """Whether one end's values would fill less than a hundredth of a linear axis."""
    spreads = [float(np.ptp(values)) for values in found.told()]
    return min(spreads) * DECADES_ASK < float(np.ptp(_ends(found)))


def _ends(found: MinibatchSpectra) -> list[float]:
    """All that the axis must reach."""
    return [*np.concatenate(found.told()).tolist(), found.whole_smallest.value, found.whole_largest.value, 0.0]


def _unit(found: MinibatchSpectra) -> float:
    """Where the symmetric logarithm of mini-batches' eigenvalues becomes linear: below every lambda_max and |lambda_min|."""
    sizes = np.abs(np.concatenate(found.told()))
    return float(sizes[sizes > 1e-9 * sizes.max()].min())


def _ranks(pairs: Eigenpairs) -> np.ndarray:
    """1, 2, ... from the largest and ..., -2, -1 from the smallest; "both" has k of each, the largest first."""
    count = len(pairs)
    top = {"largest": count, "smallest": 0}.get(pairs.which, -(-count // 2))
    return np.concatenate([np.arange(1, top + 1), np.arange(top - count, 0)])


def _eigenvalue_scale(ax: Axes, values: np.ndarray, residuals: np.ndarray) -> None:
    """Set a linear, log or symmetric log scale by signs and range of the eigenvalues; no log scale where one may be 0."""
    finite = values[np.isfinite(values)]
    size = np.abs(finite[finite != 0])
    if asks_for_log([finite]) and bool((values > residuals).all()):
        log_axis(ax, "y", finite.min() / 2, finite.max() * 2)
    elif size.size and size.max() / np.median(size) > DECADES_ASK:
        ax.set_yscale("symlog", linthresh=float(np.median(size)))


def _vectors(density: SpectralDensity) -> str:
    """The start vectors of the Lanczos runs."""
    return number_of(density.probes, "random vector")


def _band(ax: Axes, density: SpectralDensity, floor: float) -> None:
    """Draw the band, filled where its lower end is above the axis limit, else as a dotted line at its upper end."""
    grid, lower, upper = (np.asarray(a, float) for a in (density.grid, density.lower, density.upper))
    if density.resolution is None:
        label, known = "95 % band, for other vectors", np.full(grid.shape, True)
    else:
        label, known = "95 % band, for other vectors and more steps", _wide_parts(lower > floor)
    low, high = np.maximum(lower, floor / 100), np.maximum(upper, floor / 100)
    if known.any():
        ax.fill_between(grid, low, high, where=known.tolist(), color=BLUE, alpha=0.25, lw=0, label=label)
    if known.all():
        return
    beyond = ~known
    beyond[1:] |= ~known[:-1]  # the line meets the band
    beyond[:-1] |= ~known[1:]
    ax.plot(
        grid, np.where(beyond, high, np.nan), color=BLUE, lw=0.8, ls=":", label="upper end of the band where the lower is 0"
    )


def _wide_parts(known: np.ndarray) -> np.ndarray:
    """A mask without its parts that are narrower than a twentieth of the axis: single walls say nothing about a curve."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    kept = np.zeros_like(known)
    for start, stop in edges.reshape(-1, 2):
        kept[start:stop] = (stop - start) * 20 >= len(known)
    return kept


def resolution(density: SpectralDensity) -> list[str]:
    """Text of the smallest width that the steps resolve: around zero on the log scale, else at the peak of the density."""
    if density.resolution is None:
        return []
    if density.linthresh is not None:
        return [f"resolution around 0: {short(density.near_zero or 0.0, 2)}{APART}"]
    return [f"resolution at the peak: {short(float(density.resolution[int(np.argmax(density.density))]), 2)}{APART}"]


def _density_range(density: SpectralDensity) -> tuple[float, float]:
    """Limits of the density axis: from a tenth of the peak height of ONE eigenvalue out of P to above the band."""
    upper = np.asarray(density.upper, float)
    ceiling = 2 * float(np.nanmax(np.where(np.isfinite(upper), upper, np.nan), initial=np.nanmax(density.density)))
    single = 1 / (density.dim * float(np.max(density.sigma)) * np.sqrt(2 * np.pi))
    floor = min(single / 10, ceiling * 1e-3)
    return max(floor, ceiling * 1e-14), ceiling


def _mark_eigenvalues(ax: Axes, pairs: Eigenpairs) -> None:
    """Mark eigenvalues by triangles at the top edge, hollow if not converged."""
    for chosen, face in ((np.asarray(pairs.converged, bool), VERMILLION), (~np.asarray(pairs.converged, bool), "white")):
        if chosen.any():
            values = np.asarray(pairs.values)[chosen]
            ax.plot(
                values,
                np.full(values.shape, 0.985),
                "v",
                transform=ax.get_xaxis_transform(),
                mfc=face,
                mec=VERMILLION,
                ls="",
                ms=5,
                clip_on=False,
                label="eigenvalues computed one by one" + ("" if face == VERMILLION else ", NOT converged"),
            )


def _shade_linear_part(ax: Axes, linthresh: float) -> None:
    """Shade the linear part of a symmetric logarithm in grey, with a legend entry."""
    label = f"axis linear from {short(-linthresh, 2)} to {short(linthresh, 2)}, else logarithmic"
    ax.axvspan(-linthresh, linthresh, color="#ececec", zorder=0, lw=0, label=label)


def _symlog_ticks(ax: Axes, linthresh: float) -> None:
    """Set ticks at decades on both sides of zero and minor ticks between them.

    The labels of matplotlib's own ticks overlap near the linear part. On a side shorter than a decade, the largest round number
    is labelled.
    """
    low, high = ax.get_xlim()
    ends = {-1.0: max(-low, 0.0), 1.0: max(high, 0.0)}
    first = int(np.ceil(np.log10(linthresh) - 1e-9))
    last = int(np.floor(np.log10(max(ends.values()))))
    step = max(1, -(-(last - first + 1) // 5))
    lowest = first if first - np.log10(linthresh) > 0.3 else first + 1  # else its label overlaps the 0
    powers = [10.0**e for e in range(last, lowest - 1, -step)] or [10.0**last]
    ticks = [0.0] if low <= 0 <= high else []
    for sign, end in ends.items():
        shown = [p for p in powers if p <= end]
        if not shown and end > linthresh:
            shown = [max(m * 10.0**e for e in range(first - 2, last + 1) for m in (1, 2, 5) if m * 10.0**e <= end)]
        ticks += [sign * p for p in shown]
    ticks.sort()
    ax.set_xticks(ticks, [short(t) for t in ticks])
    small = [sign * m * 10.0**e for sign in ends for e in range(first - 1, last + 1) for m in range(1, 10)]
    ax.set_xticks([t for t in small if low <= t <= high and abs(t) > linthresh and t not in ticks], minor=True)
