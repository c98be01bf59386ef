"""A slice as a NetCDF file and as an xarray Dataset."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from landscape.errors import UsageError
from landscape.report.exports.exported_variables import Attribute, Variable, variables
from landscape.results import Slice

if TYPE_CHECKING:
    import xarray


def netcdf(piece: Slice) -> bytes:
    """The slice as a NetCDF-3 file (64-bit offset), readable by xarray, ncdump, Panoply and MATLAB without other software.

    Dimensions "axis_1" (and "axis_2") with their coordinates; every quantity with its units, standard errors and status (see
    `landscape.report.exports.exported_variables`); tracks; title, provenance, check, barriers and merge tree as attributes of
    the file, nested ones as JSON. Values are float64, without rounding. Equal slices give equal bytes: the file holds no time.

    Args:
        piece: a line, a path or a plane.

    Returns:
        The bytes of the file.

    Reference: NetCDF classic format, CDF-2; CF conventions 1.8.

    Example:
        >>> a = np.linspace(-1, 1, 3)
        >>> netcdf(Slice(("d",), (a,), {"loss": a**2}, {}, None, "bowl", {}))[:4]
        b'CDF\\x02'
    """
    from scipy.io import netcdf_file

    found, buffer = variables(piece), BytesIO()
    file = netcdf_file(buffer, "w", version=2)
    _attach(file, found.attributes)
    for variable in (*found.coordinates, *found.quantities, *found.tracks):
        variable = _as_characters(variable) if variable.values.dtype == object else variable
        for dim, size in zip(variable.dims, variable.values.shape, strict=True):
            if dim not in file.dimensions:
                file.createDimension(dim, size)
        made = file.createVariable(variable.name, variable.values.dtype, variable.dims)
        made[:] = variable.values
        _attach(made, variable.attributes)
    file.flush()
    return buffer.getvalue()


def dataset(piece: Slice) -> "xarray.Dataset":
    """The slice as an xarray Dataset: identical to `xarray.open_dataset` on `netcdf(piece)`.

    Args:
        piece: a line, a path or a plane.

    Returns:
        Dataset with coordinates "axis_1" (and "axis_2"), quantities, errors and status as variables, the rest as attributes.

    Raises:
        UsageError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise UsageError("expected xarray for a Dataset, found none", fix="pip install 'landscape-sharpness[xarray]'") from None
    found = variables(piece)

    def named(these: tuple[Variable, ...]) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Attribute]]]:
        return {v.name: (v.dims, v.values, v.attributes) for v in these}

    return xarray.Dataset(named(found.quantities + found.tracks), named(found.coordinates), found.attributes)


def _attach(target: object, attributes: dict[str, Attribute]) -> None:
    """Set attributes in the types of the format: UTF-8, int32, float64 or an array."""
    for name, value in attributes.items():
        if isinstance(value, str):
            setattr(target, name, value.encode())
        elif isinstance(value, int):
            setattr(target, name, np.int32(value))
        else:
            setattr(target, name, np.float64(value) if isinstance(value, float) else value)


def _as_characters(variable: Variable) -> Variable:
    """Strings as a matrix of bytes, one string per row, marked by `_Encoding`: NetCDF-3 has no strings."""
    rows = np.array([text.encode() for text in variable.values], "S")
    length = max(rows.dtype.itemsize, 1)
    characters = rows.astype(f"S{length}").view("S1").reshape(len(rows), length)
    dims = (*variable.dims, f"{variable.name}_length")
    return Variable(variable.name, dims, characters, variable.attributes | {"_Encoding": "utf-8"})
