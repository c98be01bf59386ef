"""The history of a watched training run as CSV and as an xarray Dataset."""

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.results import WatchHistory

if TYPE_CHECKING:
    import xarray

_LAYER = "trace/"


def watched_csv(history: WatchHistory) -> str:
    """The rows of `WatchHistory.records` as CSV.

    Values are written without rounding; what was not measured is empty, what is not finite is nan or inf.

    Example:
        >>> from landscape.results import Check, Estimate
        >>> check = Check(0, 0.5, {"trace": Estimate(2.0, 0.1, "t", 8)}, seconds=0.25)
        >>> watched_csv(WatchHistory((check,))).split()[0]
        'step,loss,seconds,trace,trace_error,trace_converged'
    """
    rows = history.records()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(rows[0] if rows else (history.counted, "loss", "seconds"))
    writer.writerows([repr(x) if isinstance(x, float) else x for x in row.values()] for row in rows)
    return buffer.getvalue()


def watched_dataset(history: WatchHistory) -> "xarray.Dataset":
    """Measures over `counted`, e.g. "step", with `_error` and `_edge`; traces of layers as "layer_traces", also over "layer".

    Raises:
        UsageError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise UsageError("expected xarray for a Dataset, found none", fix="pip install 'landscape-sharpness[xarray]'") from None
    counted = history.counted
    variables: dict[str, Any] = {
        "loss": (counted, history.losses),
        "seconds": (counted, np.array([c.seconds for c in history.checks])),
    }
    layers = [name for name in history.names if name.startswith(_LAYER)]
    for name in history.names:
        if name not in layers:
            unit = {"units": history.units[name]} if name in history.units else {}
            variables[name] = (counted, history.values(name), unit)
            variables[f"{name}_error"] = (counted, history.errors(name), unit)
            if np.isfinite(history.edges(name)).any():
                variables[f"{name}_edge"] = (counted, history.edges(name), unit)
    coordinates: dict[str, Any] = {counted: history.steps}
    if layers:
        unit = {"units": history.units.get("layer_traces", "loss / weight^2")}
        coordinates["layer"] = [name.removeprefix(_LAYER) for name in layers]
        variables["layer_traces"] = ((counted, "layer"), np.stack([history.values(n) for n in layers], 1), unit)
        variables["layer_traces_error"] = ((counted, "layer"), np.stack([history.errors(n) for n in layers], 1), unit)
    attributes = {k: v for k, v in history.provenance.items() if isinstance(v, (str, int, float))}
    if history.optimizer:
        attributes["optimizer"] = history.optimizer
    return xarray.Dataset(variables, coordinates, attributes)
