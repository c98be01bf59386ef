"""Results onto matplotlib axes: one function for each kind of result. `ax=None` makes a figure of its own."""

from typing import Literal

from matplotlib.axes import Axes

from landscape.errors import UsageError
from landscape.report.figures.breakdown import draw_breakdown
from landscape.report.figures.certificate import draw_certificate
from landscape.report.figures.history import draw_history
from landscape.report.figures.measures import draw_measures
from landscape.report.figures.spectrum import draw_density, draw_eigenvalues
from landscape.report.style import house
from landscape.report.surfaces.line import draw_interpolation, draw_line
from landscape.report.surfaces.minima import draw_merge_tree
from landscape.report.surfaces.plane import draw_contour, draw_surface
from landscape.results import Slice

__all__ = [
    "draw_breakdown",
    "draw_certificate",
    "draw_density",
    "draw_eigenvalues",
    "draw_history",
    "draw_interpolation",
    "draw_measures",
    "draw_merge_tree",
    "draw_slice",
]

View = Literal["contour", "3d"]


@house
def draw_slice(piece: Slice, ax: Axes | None = None, *, quantity: str = "loss", view: View | str = "contour") -> Axes:
    """Draw one quantity of a slice of the loss surface; axis 1 runs to the right, axis 2 upwards.

    A line is drawn with a light 95 % band over samples and, over it, the darker 95 % band of the difference to the checkpoint;
    an eigenvalue with bars of its residual. For quantity="loss" the accuracy, where the slice has it, stands on a second axis,
    and the test quantity beside the training one, dashed. A plane is drawn as filled contours or as a surface, an eigenvalue of
    both signs in colours that diverge from zero. The scale is logarithmic where all values are positive and the largest is over
    100 times the smallest. Points that are not finite, that failed, and that were never computed are marked apart and counted.
    Tracks and the minima of the merge tree are marked on lines and contours, and left out of the view in three dimensions.

    Args:
        piece: the slice.
        ax: axes to draw on (three-dimensional for view="3d"); None makes a figure.
        quantity: "loss", "accuracy", "test_loss", "test_accuracy", "lambda_max", "lambda_min" or "lambda_ratio", as far as the
            slice has it.
        view: "contour" or "3d" for a plane; not looked at for a line.

    Returns:
        The axes.

    Raises:
        UsageError: the slice lacks the quantity, has more than two axes, or the view is unknown.

    Example:
        >>> import numpy as np
        >>> a = np.linspace(-1, 1, 5)
        >>> bowl = Slice(("u", "v"), (a, a), {"loss": a[:, None] ** 2 + 3 * a**2}, {}, None, "bowl", {})
        >>> draw_slice(bowl).get_xlabel()
        'u (step; 1 = full vector)'
    """
    if piece.dim == 1:
        return draw_line(piece, ax, quantity)
    if piece.dim != 2:
        raise UsageError(f"expected a slice along one or two axes, found {piece.dim}", fix="cut it first")
    if view not in ("contour", "3d"):
        raise UsageError(f"expected view 'contour' or '3d', found {view!r}", fix="choose one of them")
    return draw_contour(piece, ax, quantity) if view == "contour" else draw_surface(piece, ax, quantity)
