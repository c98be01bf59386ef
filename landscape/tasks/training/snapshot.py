"""The state of an unfinished training run on disk: replaced whole or not at all, the one before kept, both verified."""

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
    """Where the run that will end in `out` keeps its state."""
    return out.with_name(out.name + ".partial")


def before_path(out: Path) -> Path:
    """Where it keeps the state before that one: what a disk that forgets a bit falls back to."""
    return out.with_name(out.name + ".partial.before")


def write_snapshot(out: Path, state: dict[str, Any]) -> None:
    """Put `state` beside `out` by a temporary file and a rename: a kill at any moment leaves the old one or the new one."""
    content = io.BytesIO()
    torch.save(state | {"format": FORMAT}, content)
    _keep_before(out)
    write(snapshot_path(out), content.getvalue())


def discard_snapshot(out: Path) -> None:
    """Remove the states kept for `out`, and what a kill in the middle of a writing left of one; damaged ones stay."""
    path = snapshot_path(out)
    for leftover in (path, before_path(out), *path.parent.glob(f".{glob.escape(path.name)}.*")):
        leftover.unlink(missing_ok=True)


def read_snapshot(out: Path) -> dict[str, Any] | None:
    """The state kept for `out`, None if there is none. Only tensors and plain values are read (`weights_only=True`).

    Every checksum of the file is verified. One that is damaged is set aside as `NAME.damaged` with a remark, and the state
    before it is taken; if that is damaged too, the run starts anew.

    Raises:
        UsageError: something else is in its place.
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
        then = "starting anew" if state is None else f"going on from the state before it, at epoch {state.get('epoch')}"
        progress.remark(f"{'; '.join(damaged)}; {then}")
    return state


def _verified(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        MalformedError: it was one, and is damaged.
        UsageError: it is something else.
    """
    strange = UsageError(f"expected the state of a training run in {path}, found another file", fix="delete it to start anew")
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
    except RuntimeError as error:  # the container is a zip, and yet PyTorch does not find its way in it
        raise MalformedError(f"zip: expected what torch.save writes, found: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch.load fails in many ways on a file that is not its own
        raise strange from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(
            f"expected the state of a training run in {path}, found another kind of file", fix="delete it to start anew"
        )
    return state


def _keep_before(out: Path) -> None:
    """Give the state that is there its second name, while the first one stays."""
    path, before = snapshot_path(out), before_path(out)
    if not path.is_file():
        return
    with suppress(OSError):
        before.unlink(missing_ok=True)
        os.link(path, before)  # where there are no links, or no room for a name, one state must do
