"""The history of a watched training run as CSV and as an xarray Dataset."""

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.results import WatchHistory

if TYPE_CHECKING:
    import xarray

_LAYER = "trace/"


def watched_csv(history: WatchHistory) -> str:
    """One row for each check: step, loss, seconds; of every measure its value, `_error`, `_converged` and `_edge`.

    Values are written without rounding; what was not measured is empty, what is not finite is nan or inf.

    Example:
        >>> from landscape.results import Check, Estimate
        >>> check = Check(0, 0.5, {"trace": Estimate(2.0, 0.1, "t", 8)}, seconds=0.25)
        >>> watched_csv(WatchHistory((check,))).split()[0]
        'step,loss,seconds,trace,trace_error,trace_converged'
    """
    columns: dict[str, list[Any]] = {"step": history.steps.tolist(), "loss": history.losses.tolist()}
    columns["seconds"] = [c.seconds for c in history.checks]
    for name in history.names:
        estimates = history.estimates(name)
        columns[name] = [None if e is None else e.value for e in estimates]
        columns[f"{name}_error"] = [None if math.isnan(x) else x for x in history.errors(name).tolist()]
        columns[f"{name}_converged"] = [None if e is None else e.converged for e in estimates]
        edges = history.edges(name)
        if np.isfinite(edges).any():
            columns[f"{name}_edge"] = [None if math.isnan(x) else x for x in edges.tolist()]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows([repr(x) if isinstance(x, float) else x for x in row] for row in zip(*columns.values(), strict=True))
    return buffer.getvalue()


def watched_dataset(history: WatchHistory) -> "xarray.Dataset":
    """Measures over "step", with `_error` and `_edge`; the traces of layers as "layer_traces" over "step" and "layer".

    Raises:
        UsageError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise UsageError("expected xarray for a Dataset, found none", fix="pip install 'landscape-sharpness[xarray]'") from None
    variables: dict[str, Any] = {
        "loss": ("step", history.losses),
        "seconds": ("step", np.array([c.seconds for c in history.checks])),
    }
    layers = [name for name in history.names if name.startswith(_LAYER)]
    for name in history.names:
        if name not in layers:
            unit = {"units": history.units[name]} if name in history.units else {}
            variables[name] = ("step", history.values(name), unit)
            variables[f"{name}_error"] = ("step", history.errors(name), unit)
            if np.isfinite(history.edges(name)).any():
                variables[f"{name}_edge"] = ("step", history.edges(name), unit)
    coordinates: dict[str, Any] = {"step": history.steps}
    if layers:
        unit = {"units": history.units.get("layer_traces", "loss / weight^2")}
        coordinates["layer"] = [name.removeprefix(_LAYER) for name in layers]
        variables["layer_traces"] = (("step", "layer"), np.stack([history.values(n) for n in layers], 1), unit)
        variables["layer_traces_error"] = (("step", "layer"), np.stack([history.errors(n) for n in layers], 1), unit)
    attributes = {k: v for k, v in history.provenance.items() if isinstance(v, (str, int, float))}
    if history.optimizer:
        attributes["optimizer"] = history.optimizer
    return xarray.Dataset(variables, coordinates, attributes)
