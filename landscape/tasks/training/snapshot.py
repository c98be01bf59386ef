"""The state of an unfinished training run on disk. It is replaced atomically, with a backup; both are verified."""

import glob
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from landscape.checkpoints.reading import archive
from landscape.errors import MalformedError, UsageError
from landscape.machine import progress
from landscape.machine.files import open_regular, write

FORMAT = 1


def snapshot_path(out: Path) -> Path:
    """Path of the state of the run whose checkpoint will be `out`."""
    return out.with_name(out.name + ".partial")


def before_path(out: Path) -> Path:
    """Path of the state before it, the backup in case of a damaged file."""
    return out.with_name(out.name + ".partial.before")


def write_snapshot(out: Path, state: dict[str, Any]) -> None:
    """Save `state` by a temporary file and a rename, so that a killed process leaves the old or the new state."""
    content = io.BytesIO()
    torch.save(state | {"format": FORMAT}, content)
    _keep_before(out)
    write(snapshot_path(out), content.getvalue())


def discard_snapshot(out: Path) -> None:
    """Remove the saved states of `out` and partially written ones; damaged ones remain."""
    path = snapshot_path(out)
    for leftover in (path, before_path(out), *path.parent.glob(f".{glob.escape(path.name)}.*")):
        leftover.unlink(missing_ok=True)


def read_snapshot(out: Path) -> dict[str, Any] | None:
    """The saved state of `out`, None if there is none. Only tensors and plain values are read (`weights_only=True`).

    Every checksum of the file is verified. A damaged file is renamed to `NAME.damaged` with a remark, and the state before it
    is used. If that is damaged, too, the run starts again.

    Raises:
        UsageError: another kind of file is in its place.
    """
    damaged: list[str] = []
    state = None
    for path in (snapshot_path(out), before_path(out)):
        if not path.is_file():
            continue
        try:
            state = _verified(path)
            break
        except MalformedError as error:
            aside = path.with_name(path.name + ".damaged")
            os.replace(path, aside)
            damaged.append(f"{path.name} is damaged ({error.problem}): set aside as {aside.name}")
    if damaged:
        then = "starting again" if state is None else f"continuing from the state before it, at epoch {state.get('epoch')}"
        progress.remark(f"{'; '.join(damaged)}; {then}")
    return state


def _verified(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        MalformedError: the state is damaged.
        UsageError: the file is not a state.
    """
    strange = UsageError(f"expected the state of a training run in {path}, found another file", fix="delete it to start again")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size and not file.read(4).startswith(b"PK\x03\x04"):
                raise strange
            archive.check(file, size)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (MalformedError, UsageError):
        raise
    except OSError as error:
        raise UsageError(f"expected to read {path}, found: {error.strerror}", fix="check the disk") from error
    except RuntimeError as error:  # a valid zip file that PyTorch cannot read
        raise MalformedError(f"zip: expected what torch.save writes, found: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch.load raises many types for other files
        raise strange from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(
            f"expected the state of a training run in {path}, found another kind of file", fix="delete it to start again"
        )
    return state


def _keep_before(out: Path) -> None:
    """Link the current state to the backup's name."""
    path, before = snapshot_path(out), before_path(out)
    if not path.is_file():
        return
    with suppress(OSError):
        before.unlink(missing_ok=True)
        os.link(path, before)  # file systems without hard links have no backup
