"""Figures and pages into files: whole or not at all, and the same bytes for the same content."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from landscape.errors import UsageError
from landscape.machine.files import write
from landscape.report.style import DPI, drawing

# Each format's entries that would carry a time or a version; None takes them out.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": None},
}


def render(figure: Figure, format: str = "png", dpi: int = DPI) -> bytes:
    """The figure as the bytes of a "png", "pdf" or "svg" file; equal figures give equal bytes.

    Raises:
        UsageError: for another format.
    """
    if format not in _METADATA:
        raise UsageError(f"expected a figure format out of {', '.join(_METADATA)}, found {format!r}", fix="choose one of them")
    buffer = BytesIO()
    with drawing():
        figure.savefig(buffer, format=format, dpi=dpi, metadata=_METADATA[format])
    return buffer.getvalue()


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "pdf")) -> tuple[Path, ...]:
    """Write the figure once in every format: `path` without its ending, plus ".png", ".pdf".

    Every file is written under a temporary name and renamed, so nobody ever reads half a picture, and holds no time
    stamp, so the same result gives the same bytes.

    Args:
        figure: what to write.
        path: file name; an ending that names a figure format is left off.
        formats: any of "png", "pdf", "svg".

    Returns:
        The files written, in the order of `formats`.

    Raises:
        UsageError: the folder does not exist or cannot be written, or the format is unknown.

    Example:
        >>> import tempfile
        >>> from landscape.report.style import new_figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [p.name for p in save(new_figure(1, 1), f"{folder}/run.v2")]
        ['run.v2.png', 'run.v2.pdf']
    """
    stem = Path(path)
    if stem.suffix.lower().lstrip(".") in _METADATA:
        stem = stem.with_suffix("")
    contents = [(stem.with_name(f"{stem.name}.{format}"), render(figure, format)) for format in formats]
    for target, content in contents:
        write(target, content)
    return tuple(target for target, _ in contents)
