"""The table of drawing functions for each result. Results do not import `report`: functions are looked up here by name."""

import functools
import importlib
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from landscape.errors import UsageError, check_options

P = ParamSpec("P")
T = TypeVar("T")
Form = Literal["axes", "figure", "xarray", "csv"]

# Type of result -> form -> module and function; the function's first argument is the result.
_DRAWINGS: dict[str, dict[str, tuple[str, str]]] = {
    "Slice": {
        "axes": ("landscape.report.figures.on_axes", "draw_slice"),
        "figure": ("landscape.report.figures.titled", "figure_slice"),
        "xarray": ("landscape.report.exports.netcdf", "dataset"),
    },
    "CertificateTable": {
        "axes": ("landscape.report.figures.certificate_map", "draw_certificate_map"),
        "figure": ("landscape.report.figures.titled", "figure_certificate_map"),
    },
    "SampleScores": {
        "axes": ("landscape.report.figures.ranked_samples", "draw_ranked_scores"),
        "figure": ("landscape.report.figures.titled", "figure_samples"),
    },
    "SampleScores.shares": {
        "axes": ("landscape.report.figures.ranked_samples", "draw_shares"),
        "figure": ("landscape.report.figures.titled", "figure_shares"),
    },
    "SpectralDensity": {
        "axes": ("landscape.report.figures.spectrum", "draw_density"),
        "figure": ("landscape.report.figures.titled", "figure_density"),
    },
    "Breakdown": {
        "axes": ("landscape.report.figures.breakdown", "draw_blocks"),
        "figure": ("landscape.report.figures.titled", "figure_blocks"),
    },
    "Eigenpairs": {
        "axes": ("landscape.report.figures.spectrum", "draw_eigenvalues"),
        "figure": ("landscape.report.figures.titled", "figure_eigenvalues"),
    },
    "MinibatchSpectra": {
        "axes": ("landscape.report.figures.spectrum", "draw_minibatch_spectra"),
        "figure": ("landscape.report.figures.titled", "figure_minibatch_spectra"),
        "xarray": ("landscape.report.exports.minibatches", "minibatch_dataset"),
    },
    "Sharpness": {
        "axes": ("landscape.report.single_results", "draw_sharpness"),
        "figure": ("landscape.report.single_results", "figure_sharpness"),
    },
    "Comparison": {
        "axes": ("landscape.report.single_results", "draw_comparison"),
        "figure": ("landscape.report.single_results", "figure_comparison"),
    },
    "Certificate": {
        "axes": ("landscape.report.single_results", "draw_one_certificate"),
        "figure": ("landscape.report.single_results", "figure_one_certificate"),
    },
    "Information": {
        "axes": ("landscape.report.figures.information", "draw_information"),
        "figure": ("landscape.report.figures.information", "figure_information"),
    },
    "MemorizationSignal": {
        "axes": ("landscape.report.over_training.alarm_sums", "draw_alarm"),
        "figure": ("landscape.report.over_training.alarm_sums", "figure_alarm"),
    },
    "WatchHistory": {
        "axes": ("landscape.report.over_training.watched", "draw_watched"),
        "figure": ("landscape.report.over_training.watched", "figure_watched"),
        "xarray": ("landscape.report.exports.watched_steps", "watched_dataset"),
        "csv": ("landscape.report.exports.watched_steps", "watched_csv"),
    },
}


def drawn(result: object, form: Form, *arguments: Any, of: str = "", **options: Any) -> Any:
    """Call the drawing or export function of a result.

    Args:
        result: an object of a type in the table.
        form: "axes" for a plain drawing, "figure" for one with title and caption, "xarray" for a Dataset.
        of: which of several drawings of the result, as in the table after a dot.
        arguments, options: passed to the function in the table.
    """
    module, name = next(_DRAWINGS[kind.__name__ + of] for kind in type(result).__mro__ if kind.__name__ + of in _DRAWINGS)[form]
    draw = getattr(importlib.import_module(module), name)
    check_options(options, draw, of=f"{type(result).__name__}{of}.plot")
    return draw(result, *arguments, **options)


def drawing(method: Callable[P, T]) -> Callable[P, T]:
    """The method of a result; an option that it does not have is refused with the name of the one that is meant.

    Example:
        >>> @drawing
        ... def plot(*, quantity="loss"): ...
        >>> plot(qantity="accuracy")
        Traceback (most recent call last):
        TypeError: plot got an unexpected keyword argument 'qantity'; did you mean quantity?
    """

    @functools.wraps(method)
    def checked(*arguments: P.args, **options: P.kwargs) -> T:
        check_options(options, method, of=method.__qualname__)
        return method(*arguments, **options)

    return checked


def plotted(result: object, ax: Any, caption: bool, **options: Any) -> Any:
    """The matplotlib axes of a result's drawing.

    Args:
        result: an object of a type in the table.
        ax: axes to draw on; None creates a figure.
        caption: whether that figure has a title and a caption with the checks and the provenance.
        options: passed to the function in the table.

    Raises:
        UsageError: both `ax` and `caption` are given.
    """
    if not caption:
        return drawn(result, "axes", ax, **options)
    if ax is not None:
        raise UsageError("expected caption=True without ax, found both", fix="leave ax out: a caption needs its own figure")
    return drawn(result, "figure", **options).axes[0]


def panels(result: object, axes: Any, caption: bool, **options: Any) -> Any:
    """As `plotted`, for a drawing of several axes: a list of them, one a panel.

    Raises:
        UsageError: both `axes` and `caption` are given.
    """
    if not caption:
        return drawn(result, "axes", axes, **options)
    if axes is not None:
        raise UsageError("expected caption=True without axes, found both", fix="leave axes out: a caption needs its own figure")
    return list(drawn(result, "figure", **options).axes)
