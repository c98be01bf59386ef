"""Drawing of results on matplotlib axes, one function per type of result. `ax=None` makes a new figure."""

from typing import Literal

from matplotlib.axes import Axes

from landscape.errors import UsageError
from landscape.report.figures.breakdown import draw_breakdown
from landscape.report.figures.certificate import draw_certificate
from landscape.report.figures.measures import draw_measures
from landscape.report.figures.spectrum import draw_density, draw_eigenvalues
from landscape.report.over_training.history import draw_history
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

    A line has a light 95 % band over samples and a darker 95 % band of the difference to the checkpoint; eigenvalues have error
    bars of their residuals. The test quantity is drawn dashed beside the training one. For quantity="loss" the accuracy, if the
    slice has it, is drawn on a second axis. A plane is drawn as filled contours or as a surface, eigenvalues of both signs in
    colours that diverge from zero. The scale is logarithmic if all values are positive and the largest is over 100 times the
    smallest. Points that are not finite, failed or were not computed have separate markers and are counted. Tracks are
    drawn too; in three dimensions at the height of the surface under them. Minima of the merge tree are drawn on contours.

    Args:
        piece: the slice.
        ax: axes to draw on (three-dimensional for view="3d"); None makes a figure.
        quantity: "loss", "accuracy", "test_loss", "test_accuracy", "lambda_max", "lambda_min" or "lambda_ratio", as far as the
            slice has it.
        view: "contour" or "3d" for a plane; ignored for a line.

    Returns:
        The axes.

    Raises:
        UsageError: the slice lacks the quantity, has more than two axes, or the view is unknown.

    Example:
        >>> import numpy as np
        >>> a = np.linspace(-1, 1, 5)
        >>> bowl = Slice(("u", "v"), (a, a), {"loss": a[:, None] ** 2 + 3 * a**2}, {}, None, "bowl", {})
        >>> draw_slice(bowl).get_xlabel()
        'u (1 = the whole vector)'
    """
    if piece.dim == 1:
        return draw_line(piece, ax, quantity)
    if piece.dim != 2:
        raise UsageError(f"expected a slice along one or two axes, found {piece.dim}", fix="cut it first")
    if view not in ("contour", "3d"):
        raise UsageError(f"expected view 'contour' or '3d', found {view!r}", fix="choose one of them")
    return draw_contour(piece, ax, quantity) if view == "contour" else draw_surface(piece, ax, quantity)
