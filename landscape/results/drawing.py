"""Where the drawing of each result lives. Results know no drawing: it is looked up here, by name, when somebody asks for it."""

import importlib
from typing import Any, Literal

from landscape.errors import UsageError

Form = Literal["axes", "figure", "xarray"]

# Type of result -> form -> module and function, which takes the result first.
_DRAWINGS: dict[str, dict[str, tuple[str, str]]] = {
    "Slice": {
        "axes": ("landscape.report.figures.on_axes", "draw_slice"),
        "figure": ("landscape.report.figures.titled", "figure_slice"),
        "xarray": ("landscape.report.exports.netcdf", "dataset"),
    },
    "SpectralDensity": {
        "axes": ("landscape.report.figures.spectrum", "draw_density"),
        "figure": ("landscape.report.figures.titled", "figure_density"),
    },
    "Eigenpairs": {
        "axes": ("landscape.report.figures.spectrum", "draw_eigenvalues"),
        "figure": ("landscape.report.figures.titled", "figure_eigenvalues"),
    },
}


def drawn(result: object, form: Form, *arguments: Any, **options: Any) -> Any:
    """A result in a form that is made outside of results.

    Args:
        result: of a type in the table.
        form: "axes" for the bare drawing, "figure" for one with title and caption, "xarray" for a Dataset.
        arguments, options: for the function in the table.
    """
    module, name = _DRAWINGS[type(result).__name__][form]
    return getattr(importlib.import_module(module), name)(result, *arguments, **options)


def plotted(result: object, ax: Any, caption: bool, **options: Any) -> Any:
    """The matplotlib axes of a result's drawing.

    Args:
        result: of a type in the table.
        ax: axes to draw on; None makes a figure.
        caption: whether that figure gets the result's title, its checks and what it was made from.
        options: for the function in the table.

    Raises:
        UsageError: a caption on axes that are somebody else's.
    """
    if not caption:
        return drawn(result, "axes", ax, **options)
    if ax is not None:
        raise UsageError("expected caption=True without ax, found both", fix="a caption belongs to a figure of its own")
    return drawn(result, "figure", **options).axes[0]
