"""The quantities of a slice for drawing: labels, values in the unit of the label, and the state of every point."""

import numpy as np

from landscape.errors import UsageError
from landscape.report.style import plain, short, wrapped
from landscape.results import Slice
from landscape.results.records.loss_unit import loss_per
from landscape.results.surfaces.slice import DONE, FAILED, INTERPOLATED, MISSING, NOT_FINITE, UNCONVERGED

# Legend labels of points without a value, in the order of the legend.
GAPS = {NOT_FINITE: "not finite", FAILED: "failed", MISSING: "not computed"}

# Quantities of either sign; they get a colour map that diverges from zero.
SIGNED = ("lambda_max", "lambda_min")

_LABELS = {
    "loss": "loss (mean per {per})",
    "accuracy": "accuracy (%)",
    "lambda_max": "lambda_max (loss / weight²)",
    "lambda_min": "lambda_min (loss / weight²)",
    "lambda_ratio": "|lambda_min / lambda_max|",
}


def quantity_label(quantity: str, per: str = "sample") -> str:
    """Axis label of a slice's quantity, with its unit; `per` is what a loss is a mean over, see `loss_per`.

    Example:
        >>> quantity_label("test_accuracy"), quantity_label("lambda_ratio")
        ('test accuracy (%)', '|lambda_min / lambda_max|')
    """
    kind = quantity.removeprefix("test_")
    if kind not in _LABELS:
        return plain(quantity)
    return ("test " if quantity.startswith("test_") else "") + _LABELS[kind].format(per=per)


def label_of(piece: Slice, quantity: str) -> str:
    """`quantity_label` of a slice, whose provenance says what the loss is a mean over."""
    return quantity_label(quantity, loss_per(piece.provenance))


def quantity_name(quantity: str) -> str:
    """Name of a quantity, without its unit; a measure has the name that it has in tables.

    Example:
        >>> quantity_name("test_loss"), quantity_name("lambda_min")
        ('test loss', 'lambda_min')
    """
    label = quantity_label(quantity)
    return label.split(" (")[0] if quantity.removeprefix("test_") in _LABELS else plain(quantity)


def is_eigenvalue(quantity: str) -> bool:
    """Whether a quantity is an eigenvalue of the Hessian or a ratio of two; its error is then a residual."""
    return quantity.removeprefix("test_").startswith("lambda_")


def scale_of(quantity: str) -> float:
    """Factor from a slice's values to the unit of their label: 100 for accuracies, in percent, else 1."""
    return 100.0 if quantity.removeprefix("test_") == "accuracy" else 1.0


def states(piece: Slice, quantity: str) -> np.ndarray:
    """The status of every point (`landscape.results.STATUS`): the slice's, corrected by the values.

    A masked value counts as missing and a nan or infinite one as not finite, whatever the status.
    """
    if quantity not in piece.values:
        known = ", ".join(piece.values)
        raise UsageError(f"expected a quantity out of {known}, found {quantity!r}", fix="choose one that the slice holds")
    raw = np.ma.asarray(piece.values[quantity])
    found = np.where(np.ma.getmaskarray(raw), MISSING, np.where(np.isfinite(raw.data), DONE, NOT_FINITE))
    stated = np.asarray(piece.status[quantity])
    kept = np.isin(stated, (UNCONVERGED, INTERPOLATED)) & (found == DONE)
    return np.where(np.isin(stated, (MISSING, FAILED)) | kept, stated, found)


def shown(piece: Slice, quantity: str) -> tuple[np.ma.MaskedArray, np.ndarray | None]:
    """Values and standard errors in the unit of the label. Missing and failed points are masked, nan and infinity are not."""
    state, scale = states(piece, quantity), scale_of(quantity)
    data = np.asarray(np.ma.getdata(piece.values[quantity]), float) * scale
    return np.ma.MaskedArray(data, mask=np.isin(state, (MISSING, FAILED))), scaled(piece.stderr.get(quantity), scale)


def scaled(error: np.ndarray | None, scale: float) -> np.ndarray | None:
    """An error in the unit of the label, nan where it is masked."""
    return None if error is None else np.asarray(np.ma.filled(np.ma.asarray(error, float), np.nan), float) * scale


def step_label(piece: Slice, i: int, width: int = 62) -> str:
    """Label of axis `i`: the direction's name and its unit; the unit is not broken over lines."""
    name, unit = wrapped(piece.axes[i], width), _unit_of_axis(piece, i)
    return f"{name}{' ' if len(name.split(chr(10))[-1]) + len(unit) < width else chr(10)}{unit}"


def _unit_of_axis(piece: Slice, i: int) -> str:
    """What a step of 1 along an axis is: a distance of 1 for a unit vector, else the whole vector, with its length if known."""
    lengths = piece.provenance.get("axis_lengths")
    if not lengths:
        return "(1 = the whole vector)"
    return "(distance in weight space)" if abs(lengths[i] - 1) < 1e-5 else f"(1 = a distance of {short(lengths[i])})"
