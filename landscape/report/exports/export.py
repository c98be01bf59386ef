"""Export of a slice as NetCDF, VTK and CSV."""

from pathlib import Path

from landscape.errors import UsageError
from landscape.machine.files import write
from landscape.report.exports.netcdf import netcdf
from landscape.report.exports.spreadsheet import slice_csv
from landscape.report.exports.vtk import vtk
from landscape.results import Slice


def export_slice(piece: Slice, folder: str | Path, stem: str) -> list[Path]:
    """Write a slice as NetCDF (xarray), VTK (ParaView) and CSV: the same names, units, errors and status in each.

    Every file is written under a temporary name and then renamed, so an incomplete file is never read. No file holds a time
    stamp: equal slices give equal bytes.

    Args:
        piece: a line, a path or a plane. It may be incomplete: the status of each point is exported.
        folder: an existing folder.
        stem: name of the files, without the ending.

    Returns:
        The files, in the order of the formats.

    Raises:
        UsageError: the folder does not exist or cannot be written, the stem is not a bare name, the slice has no quantity.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> a = np.linspace(-1, 1, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = export_slice(Slice(("d",), (a,), {"loss": a**2}, {}, None, "bowl", {}), folder, "line.v2")
        >>> [p.name for p in files][:3]
        ['line.v2.nc', 'line.v2.vtr', 'line.v2.csv']
    """
    if not stem or Path(stem).name != stem:
        raise UsageError(f"expected a bare name for the files, found {stem!r}", fix="pass the folder as the folder")
    contents = {"nc": netcdf(piece), "vtr": vtk(piece), "csv": slice_csv(piece).encode()}
    return [write(Path(folder) / f"{stem}.{ending}", content, parents=True) for ending, content in contents.items()]
