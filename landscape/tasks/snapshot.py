"""The state of an unfinished training run on disk: replaced whole or not at all."""

import glob
import io
from pathlib import Path
from typing import Any

import torch

from landscape.errors import UsageError
from landscape.files import write

FORMAT = 1


def snapshot_path(out: Path) -> Path:
    """Where the run that will end in `out` keeps its state."""
    return out.with_name(out.name + ".partial")


def write_snapshot(out: Path, state: dict[str, Any]) -> None:
    """Put `state` beside `out` by a temporary file and a rename: a kill at any moment leaves the old one or the new one."""
    content = io.BytesIO()
    torch.save(state | {"format": FORMAT}, content)
    write(snapshot_path(out), content.getvalue())


def discard_snapshot(out: Path) -> None:
    """Remove the state kept for `out`, and what a kill in the middle of a writing left of one."""
    path = snapshot_path(out)
    for leftover in (path, *path.parent.glob(f".{glob.escape(path.name)}.*")):
        leftover.unlink(missing_ok=True)


def read_snapshot(out: Path) -> dict[str, Any] | None:
    """The state kept for `out`, None if there is none. Only tensors and plain values are read (`weights_only=True`)."""
    path = snapshot_path(out)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a file that is not its own
        raise UsageError(
            f"expected the state of a training run in {path}, found another file", fix="delete it to start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(
            f"expected the state of a training run in {path}, found another kind of file", fix="delete it to start anew"
        )
    return state
