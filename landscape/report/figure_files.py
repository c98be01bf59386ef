"""Figures as PNG, PDF and SVG files, written atomically; equal figures give equal bytes."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from landscape.errors import UsageError
from landscape.machine.files import write
from landscape.report.style import DPI, drawing

# Metadata of each format with a time or a version; None omits it.
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

    Every file is written under a temporary name and then renamed, so an incomplete file is never read. It holds no time
    stamp: equal figures give equal bytes.

    Args:
        figure: the figure.
        path: file name; an ending of a figure format is removed.
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
        write(target, content, parents=True)
    return tuple(target for target, _ in contents)
