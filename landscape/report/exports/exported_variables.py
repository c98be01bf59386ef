"""A slice of the loss surface as named variables with dimensions, units and descriptions, for all export formats."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from landscape.errors import UsageError, printable
from landscape.machine.json_values import plain
from landscape.report.quantities import states
from landscape.results import FAILED, MISSING, STATUS, Slice, Track
from landscape.results.records.loss_unit import loss_per
from landscape.version import __version__

Attribute = str | int | float | np.ndarray

# Quantity -> (description, unit); the prefix "test_" stands for test data. Other quantities have no unit here.
_HESSIAN = "loss / weight^2"
_MEANING = {
    "loss": ("loss, mean per {per}", "1"),
    "accuracy": ("accuracy, as a fraction", "1"),
    "lambda_max": ("largest eigenvalue of the Hessian", _HESSIAN),
    "lambda_min": ("smallest eigenvalue of the Hessian", _HESSIAN),
    "lambda_ratio": ("|lambda_min / lambda_max| of the Hessian", "1"),
}

# Description of `stderr` where it is not a standard error over samples.
_ERROR = {
    "lambda_max": "residual ||Hv - lambda v||",
    "lambda_min": "residual ||Hv - lambda v||",
    "lambda_ratio": "error bound from both residuals",
}


@dataclass(frozen=True, eq=False)
class Variable:
    """One array of a file.

    Attributes:
        name: a letter, then letters, digits and underscores; no other variable has it.
        dims: a name for each dimension.
        values: float64, int8 for a status, or object for strings.
        attributes: long_name, units and other attributes of the CF conventions; no string is empty.
    """

    name: str
    dims: tuple[str, ...]
    values: np.ndarray
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SliceVariables:
    """The content of a slice as variables; all export formats are written from it.

    Attributes:
        coordinates: "axis_1", "axis_2": step along each axis, 1 being the full direction vector.
        quantities: over the grid, each followed by its standard errors and its status.
        tracks: for every Track, the names, coordinates and distances of its points.
        attributes: global attributes of the file.
        hidden: mask over the grid: points where the loss (or, without one, the first quantity) has no value.
    """

    coordinates: tuple[Variable, ...]
    quantities: tuple[Variable, ...]
    tracks: tuple[Variable, ...]
    attributes: dict[str, Attribute]
    hidden: np.ndarray


def variables(piece: Slice) -> SliceVariables:
    """Convert a slice to variables, with the same names, units, errors and status in every format.

    A quantity q becomes the variables `q`; `q_stderr`, its standard error over samples (of an eigenvalue its residual);
    `q_paired_stderr`, that of its difference to the centre; and `q_status`: 0 missing, 1 done, 2 not finite, 3 failed, 4 not
    converged, 5 interpolated. Where the status is missing or failed, values and errors are NaN; other values that are not
    finite are kept.

    Args:
        piece: a line, a path or a plane.

    Returns:
        SliceVariables. Names keep ASCII letters, digits and underscores; control characters in texts are escaped.

    Raises:
        UsageError: the slice has no quantity.

    Reference: CF metadata conventions 1.8, sections 3.4 (ancillary variables) and 3.5 (flags). Departures: units of curvature
        are "loss / weight^2", which is not a unit of UDUNITS.

    Example:
        >>> a = np.linspace(-1, 1, 3)
        >>> bowl = Slice(("d",), (a,), {"loss": a**2}, {"loss": 0.1 * a**2}, None, "bowl", {"seed": 0})
        >>> [(v.name, v.dims) for v in variables(bowl).quantities]
        [('loss', ('axis_1',)), ('loss_stderr', ('axis_1',)), ('loss_status', ('axis_1',))]
    """
    if not piece.values:
        raise UsageError("expected a slice with at least one quantity, found none", fix="evaluate it first")
    dims = tuple(f"axis_{i}" for i in range(1, piece.dim + 1))
    taken = {*dims, "vtkGhostType"}  # reserved: names of dimensions and VTK's mask of hidden points
    for i in range(1, len(piece.tracks) + 1):
        taken |= {f"track_{i}_point", f"track_{i}_name_length"}
    coordinates = tuple(
        Variable(dim, (dim,), np.array(at, float), _texts(long_name=name, units="1", comment="step; 1 is the full direction"))
        for dim, name, at in zip(dims, piece.axes, piece.coordinates, strict=True)
    )
    quantities = tuple(v for q in piece.values for v in _quantity(piece, q, dims, taken))
    tracks = tuple(v for i, t in enumerate(piece.tracks, 1) for v in _track(t, f"track_{i}", piece.axes, taken))
    first = "loss" if "loss" in piece.values else next(iter(piece.values))
    hidden = np.isin(states(piece, first), (MISSING, FAILED))
    return SliceVariables(coordinates, quantities, tracks, _attributes(piece), hidden)


def meaning(quantity: str, per: str = "sample") -> tuple[str, str]:
    """Description and unit of a quantity; the unit is empty if unknown. `per` is what a loss is a mean over.

    Example:
        >>> meaning("test_loss")
        ('test loss, mean per sample', '1')
    """
    kind = quantity.removeprefix("test_")
    words, unit = _MEANING.get(kind, (kind.replace("_", " "), ""))
    return ("test " if kind != quantity else "") + (words.format(per=per) if kind in _MEANING else words), unit


def _quantity(piece: Slice, quantity: str, dims: tuple[str, ...], taken: set[str]) -> Iterator[Variable]:
    """A quantity, its errors and its status, linked as CF ancillary variables."""
    words, unit = meaning(quantity, loss_per(piece.provenance))
    name = _identifier(quantity, taken)
    status = states(piece, quantity).astype(np.int8)
    unknown = np.isin(status, (MISSING, FAILED))
    error, against = _ERROR.get(quantity, "standard error over samples"), "difference to the centre (of a path: to its start)"
    errors = {
        "stderr": (piece.stderr, f"{error} of the {words}"),
        "paired_stderr": (piece.paired, f"standard error over samples of the {against} of the {words}"),
    }
    found = [
        Variable(_identifier(f"{name}_{kind}", taken), dims, _blank(of[quantity], unknown), _texts(long_name=says, units=unit))
        for kind, (of, says) in errors.items()
        if quantity in of
    ]
    flags: dict[str, Attribute] = {
        "flag_values": np.arange(len(STATUS), dtype=np.int8),
        "flag_meanings": " ".join(word.replace(" ", "_") for word in STATUS),
    }
    found.append(
        Variable(_identifier(f"{name}_status", taken), dims, status, _texts(long_name=f"status of the {words}") | flags)
    )
    linked = _texts(long_name=words, units=unit, ancillary_variables=" ".join(v.name for v in found))
    yield Variable(name, dims, _blank(piece.values[quantity], unknown), linked)
    yield from found


def _track(track: Track, name: str, axes: tuple[str, ...], taken: set[str]) -> Iterator[Variable]:
    """Names, coordinates and distances of the projected points; no variable for a track without points."""
    if not track.names:
        return
    dims = (f"{name}_point",)
    about: dict[str, Attribute] = {"is_path": int(track.path)}
    if track.explained is not None:
        about["explained_share"] = float(track.explained)
    names = np.array([printable(n) for n in track.names], object)
    yield Variable(_identifier(f"{name}_name", taken), dims, names, _texts(long_name=f"points of: {track.label}") | about)
    for i, (axis, place) in enumerate(zip(axes, np.asarray(track.coordinates, float).T, strict=True), 1):
        says = _texts(long_name=f"{track.label}, projected on: {axis}", units="1")
        yield Variable(_identifier(f"{name}_axis_{i}", taken), dims, place, says)
    says = _texts(long_name=f"{track.label}, Euclidean distance from the slice", units="weight")
    yield Variable(_identifier(f"{name}_distance", taken), dims, np.array(track.distances, float), says)


def _attributes(piece: Slice) -> dict[str, Attribute]:
    """Global attributes of the file: title, provenance (by entry and as JSON), check, barriers, merge tree, tracks."""
    found: dict[str, Attribute] = {"Conventions": "CF-1.8", "source": f"landscape {__version__}"} | _texts(title=piece.title)
    taken: set[str] = set()
    for key, value in piece.provenance.items():
        flat = _flat(value)
        if flat is not None:
            found[_identifier(f"provenance_{key}", taken)] = flat
    found["provenance"] = _json(piece.provenance)
    if piece.check is not None:
        found |= {"check": _json(asdict(piece.check)), "check_passed": int(piece.check.passed)}
    if piece.barriers:
        found["barriers"] = _json({quantity: b.to_json() for quantity, b in piece.barriers.items()})
    if piece.deviations:
        found["deviations"] = _json({quantity: d.to_json() for quantity, d in piece.deviations.items()})
    if piece.refinement is not None:
        found["refinement"] = _json(piece.refinement.to_json())
    if piece.merge_tree is not None:
        found["merge_tree"] = _json(piece.merge_tree.to_json())
    if piece.tracks:
        found["tracks"] = _json([t.to_json() for t in piece.tracks])
    return found


def _flat(value: Any) -> str | int | float | None:
    """A provenance entry as text, 32-bit integer or float64, without rounding; None if it is of another type."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int):
        # NetCDF-3 has no 64-bit integer: up to 2^53 as float64, larger ones as text.
        return int(value) if -(2**31) <= value < 2**31 else float(value) if abs(value) <= 2**53 else str(value)
    return value if isinstance(value, float) else printable(value) or None if isinstance(value, str) else None


def _json(content: Any) -> str:
    """As JSON in ASCII, without control characters, nan or infinity."""
    return json.dumps(plain(content), default=lambda x: plain(x.tolist()) if hasattr(x, "tolist") else str(x), allow_nan=False)


def _texts(**texts: str) -> dict[str, Attribute]:
    """Text attributes with control characters escaped, without empty ones, on which NetCDF readers disagree."""
    return {key: printable(text) for key, text in texts.items() if text}


def _blank(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """As float64, with NaN where the value is masked or unknown."""
    known = np.ma.filled(np.ma.asarray(values).astype(float), math.nan)
    known[unknown] = math.nan
    return known


def _identifier(text: str, taken: set[str]) -> str:
    """A name that is valid in every format and not in `taken`, to which it is added."""
    stem = re.sub(r"[^A-Za-z0-9_]", "_", text)[:200]
    stem = stem if re.match(r"[A-Za-z]", stem) else f"q_{stem}"
    name, n = stem, 1
    while name in taken:
        n += 1
        name = f"{stem}_{n}"
    taken.add(name)
    return name
