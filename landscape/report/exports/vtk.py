"""A slice as a VTK file for ParaView.

The file is written without the vtk package, whose wheel has 140 MB; the tests read the files with that package.
"""

import base64

import numpy as np

from landscape.errors import UsageError
from landscape.report.exports.exported_variables import Attribute, Variable, variables
from landscape.results import Slice

_TYPES = {"f8": "Float64", "i4": "Int32", "i1": "Int8", "u1": "UInt8"}
_HIDDEN_POINT = 2  # vtkDataSetAttributes::HIDDENPOINT


def vtk(piece: Slice) -> bytes:
    """The slice as VTK XML (.vtr): a rectilinear grid of n_1 x n_2 x 1 points, or n_1 x 1 x 1 of a line.

    The grid's x is axis 1, its y axis 2; coordinates are not rounded. Every quantity, its standard errors and its status (0
    missing, 1 done, 2 not finite, 3 failed, 4 not converged, 5 interpolated) are point data, with units. Points whose loss is
    missing or failed are hidden (`vtkGhostType`), so that ParaView leaves a hole there. A loss that is not finite is kept:
    remove it with the filter Threshold on `loss_status` before warping. Title, provenance, check, tracks and the rest are field
    data.

    The grid is flat. In ParaView, "Warp By Scalar" uses any quantity as height, with a chosen scale; "Calculator" takes its
    logarithm.

    Args:
        piece: a line, a path or a plane.

    Returns:
        The bytes of the file. Equal slices give equal bytes.

    Raises:
        UsageError: more than three axes.

    Reference: VTK XML format 1.0 (VTK User's Guide, "VTK File Formats"), inline binary data with 64-bit lengths.

    Example:
        >>> a = np.linspace(-1, 1, 3)
        >>> b'WholeExtent="0 2 0 0 0 0"' in vtk(Slice(("d",), (a,), {"loss": a**2}, {}, None, "bowl", {}))
        True
    """
    if piece.dim > 3:
        raise UsageError(f"expected a slice along at most three axes, found {piece.dim}", fix="cut it first")
    found = variables(piece)
    shape = [*(len(c.values) for c in found.coordinates), 1, 1][:3]
    extent = " ".join(f"0 {n - 1}" for n in shape)
    ghosts = Variable("vtkGhostType", (), np.where(found.hidden, _HIDDEN_POINT, 0).astype(np.uint8))
    ends = [Variable(name, (), np.zeros(1)) for name in ("y", "z")][piece.dim - 1 :]
    parts = {
        "field": [_array(v, tuples=True) for v in (*_about(found.attributes), *found.tracks)],
        "points": [_array(v) for v in (*found.quantities, ghosts)],
        "axes": [_array(v) for v in (*found.coordinates, *ends)],
    }
    field, points, axes = ("\n".join(lines) for lines in parts.values())
    text = f"""<?xml version="1.0"?>
<VTKFile type="RectilinearGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<RectilinearGrid WholeExtent="{extent}">
<FieldData>
{field}
</FieldData>
<Piece Extent="{extent}">
<PointData Scalars="{found.quantities[0].name}">
{points}
</PointData>
<CellData>
</CellData>
<Coordinates>
{axes}
</Coordinates>
</Piece>
</RectilinearGrid>
</VTKFile>
"""
    return text.encode("ascii")


def _about(attributes: dict[str, Attribute]) -> list[Variable]:
    """Global attributes as arrays of one value."""
    found = []
    for name, value in attributes.items():
        dtype = {str: object, int: np.int32}.get(type(value), np.float64)
        found.append(Variable(name, (), np.array([value], dtype)))
    return found


def _array(variable: Variable, *, tuples: bool = False) -> str:
    """One array as an XML element. In VTK axis 1 varies fastest: grids are in Fortran order. Strings end with a NUL."""
    values = variable.values
    count = f' NumberOfTuples="{values.size}"' if tuples else ""
    if values.dtype == object:
        content = b"".join(text.encode() + b"\0" for text in values)
        head = f'<Array type="String" Name="{variable.name}"{count} format="binary">'
        return f"{head}{_base64(content)}</Array>"
    code = values.dtype.str[1:]
    content = values.astype(f"<{code}").tobytes(order="F")
    units = variable.attributes.get("units")
    key = f'<InformationKey name="UNITS_LABEL" location="vtkDataArray">{units}</InformationKey>' if units else ""
    return f'<DataArray type="{_TYPES[code]}" Name="{variable.name}"{count} format="binary">{_base64(content)}{key}</DataArray>'


def _base64(content: bytes) -> str:
    """Length and content in base64, VTK's inline format."""
    return base64.b64encode(len(content).to_bytes(8, "little") + content).decode("ascii")
