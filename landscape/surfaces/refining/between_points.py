"""The interpolated points of a slice."""

from dataclasses import replace

import numpy as np

from landscape.results import INTERPOLATED, MISSING, Refinement, Slice
from landscape.surfaces.refining.known_values import Known
from landscape.surfaces.refining.next_points import Tolerance
from landscape.surfaces.refining.smooth_fit import interpolated_linearly


def interpolated(piece: Slice, known: Known, tolerance: Tolerance) -> Slice:
    """A slice with values and standard errors where they were not computed, and what the points held out say of them.

    Eigenvalues have no residual there. |lambda_min / lambda_max| is the ratio of both.
    """
    rest = known.rest
    own = [q for q in known.values if q in piece.values and known.finite(q).any()]
    values = {q: _with(piece.values[q], rest, known.between(q, rest)) for q in own}
    if "lambda_ratio" in values:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(values["lambda_min"] / values["lambda_max"]).ravel()
        values["lambda_ratio"] = _with(piece.values["lambda_ratio"], rest, ratio[rest])
    errors = [
        {q: _with(of[q], rest, _errors_between(of[q], known, rest)) for q in own if q in of and not q.startswith("lambda")}
        for of in (piece.stderr, piece.paired)
    ]
    status = {}
    for q in own:
        column = piece.status[q].copy()
        column[column == MISSING] = INTERPOLATED
        status[q] = column
    before = piece.refinement or Refinement(tolerance.errors, {}, {})
    found = replace(
        before,
        points={**before.points, **dict.fromkeys(own, (len(known.numbers), len(rest)))},
        held_out={**before.held_out, **known.held_out()},
    )
    return replace(
        piece,
        values=piece.values | values,
        stderr=piece.stderr | errors[0],
        paired=piece.paired | errors[1],
        status=piece.status | status,
        refinement=found,
    )


def _errors_between(errors: np.ndarray, known: Known, rest: np.ndarray) -> np.ndarray:
    """Standard errors at the points between: from their logarithms, or where some are 0 from their squares."""
    own = errors.ravel()[known.numbers]
    use = np.isfinite(own)
    if not use.any():
        return np.full(len(rest), np.nan)
    positive = bool((own[use] > 0).all())
    kept = np.log(own[use]) if positive else own[use] ** 2
    found = interpolated_linearly(known.places[known.numbers[use]], kept, known.places[rest])
    found = np.clip(found, kept.min(), kept.max())
    return np.exp(found) if positive else np.sqrt(found)


def _with(column: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A column with values at some points."""
    flat = column.ravel().copy()
    flat[at] = values
    return flat.reshape(column.shape)
