"""A slice of the loss surface as named variables with dimensions, units and meanings: what every exported file says."""

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
from landscape.version import __version__

Attribute = str | int | float | np.ndarray

# Quantity -> (meaning, unit); with "test_" in front it is the same on test data. The unit of the rest is not known here.
_HESSIAN = "loss / weight^2"
_MEANING = {
    "loss": ("loss, mean per sample", "1"),
    "accuracy": ("accuracy, as a fraction", "1"),
    "lambda_max": ("largest eigenvalue of the Hessian", _HESSIAN),
    "lambda_min": ("smallest eigenvalue of the Hessian", _HESSIAN),
    "lambda_ratio": ("|lambda_min / lambda_max| of the Hessian", "1"),
}

# What `stderr` holds where it is not over samples.
_DOUBT = {
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
        attributes: long_name, units and what else the CF conventions have; a string is never empty.
    """

    name: str
    dims: tuple[str, ...]
    values: np.ndarray
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SliceVariables:
    """Everything that a slice holds, as variables: what a file in any format is made from.

    Attributes:
        coordinates: "axis_1", "axis_2": step along each axis, 1 being the full direction vector.
        quantities: over the grid, each followed by its standard errors and its status.
        tracks: of every Track the names, the places on the axes and the distances of its points.
        attributes: of the file as a whole.
        hidden: over the grid: whether the loss (or, without one, the first quantity) has no value there.
    """

    coordinates: tuple[Variable, ...]
    quantities: tuple[Variable, ...]
    tracks: tuple[Variable, ...]
    attributes: dict[str, Attribute]
    hidden: np.ndarray


def variables(piece: Slice) -> SliceVariables:
    """Describe a slice once for all formats, so that names, units, errors and status cannot differ between them.

    A quantity q becomes the variables `q`; `q_stderr`, its standard error over samples (of an eigenvalue its residual);
    `q_paired_stderr`, that of its difference to the centre; and `q_status`: 0 missing, 1 done, 2 not finite, 3 failed, 4 not
    converged. Where the status is missing or failed, values and errors are NaN; a value that is not finite stays what it is.

    Args:
        piece: a line, a path or a plane.

    Returns:
        SliceVariables. Names keep ASCII letters, digits and underscores; texts have control characters spelt out.

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
    taken = {*dims, "vtkGhostType"}  # names of dimensions, and one that VTK gives a meaning, are no quantity's
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


def meaning(quantity: str) -> tuple[str, str]:
    """What a quantity is and its unit; an empty unit where it is not known.

    Example:
        >>> meaning("test_loss")
        ('test loss, mean per sample', '1')
    """
    kind = quantity.removeprefix("test_")
    words, unit = _MEANING.get(kind, (kind.replace("_", " "), ""))
    return ("test " if kind != quantity else "") + words, unit


def _quantity(piece: Slice, quantity: str, dims: tuple[str, ...], taken: set[str]) -> Iterator[Variable]:
    """A quantity, its errors and its status, each linked to the quantity as CF asks."""
    words, unit = meaning(quantity)
    name = _identifier(quantity, taken)
    status = states(piece, quantity).astype(np.int8)
    unknown = np.isin(status, (MISSING, FAILED))
    doubt, against = _DOUBT.get(quantity, "standard error over samples"), "difference to the centre (of a path: to its start)"
    errors = {
        "stderr": (piece.stderr, f"{doubt} of the {words}"),
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
    """Names, places and distances of projected points; nothing of a track without points."""
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
    """What is said of the file as a whole: title, provenance flat and whole, check, barriers, merge tree, tracks."""
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
    if piece.merge_tree is not None:
        found["merge_tree"] = _json(piece.merge_tree.to_json())
    if piece.tracks:
        found["tracks"] = _json([t.to_json() for t in piece.tracks])
    return found


def _flat(value: Any) -> str | int | float | None:
    """A provenance entry as every format can hold it exactly: text, 32-bit whole number or float64; None where it cannot."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int):
        # NetCDF-3 has no 64-bit whole number: float64 holds those up to 2^53, digits hold any.
        return int(value) if -(2**31) <= value < 2**31 else float(value) if abs(value) <= 2**53 else str(value)
    return value if isinstance(value, float) else printable(value) or None if isinstance(value, str) else None


def _json(content: Any) -> str:
    """As JSON in ASCII: no control character, nothing that is not finite."""
    return json.dumps(plain(content), default=lambda x: plain(x.tolist()) if hasattr(x, "tolist") else str(x), allow_nan=False)


def _texts(**texts: str) -> dict[str, Attribute]:
    """Attributes that are texts, safe to print; empty ones are left out, since NetCDF readers disagree on them."""
    return {key: printable(text) for key, text in texts.items() if text}


def _blank(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """As float64, NaN where masked and where there is nothing to know."""
    known = np.ma.filled(np.ma.asarray(values).astype(float), math.nan)
    known[unknown] = math.nan
    return known


def _identifier(text: str, taken: set[str]) -> str:
    """A name that every format takes and that is not taken yet; it is taken from now on."""
    stem = re.sub(r"[^A-Za-z0-9_]", "_", text)[:200]
    stem = stem if re.match(r"[A-Za-z]", stem) else f"q_{stem}"
    name, n = stem, 1
    while name in taken:
        n += 1
        name = f"{stem}_{n}"
    taken.add(name)
    return name
