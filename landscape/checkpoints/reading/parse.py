"""Parse the bytes of a torch.save file. Runs in the child process only."""

import io
import pickle
import sys
import tarfile
import warnings
from typing import Any, BinaryIO

import torch

from landscape.checkpoints.reading import archive, contents, harmless_classes, pickles
from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.formats import Kind
from landscape.errors import MalformedError, UnsafeError, printable

_MAGIC = 0x1950A86A20F9469CFC6C  # magic number of torch's format before zip
_PROTOCOL = 1001


def parse(file: BinaryIO, kind: Kind, size: int, budget: int) -> Contents:
    """Check the structure of a file, load it with torch's restricted unpickler, and sort its content.

    Raises:
        LandscapeError: the file is refused; the message says why.
    """
    if kind == "tar":
        _refuse_tar(file, budget)
    notices = _check_zip(file, size, budget) if kind == "zip" else _check_legacy(file, size, budget)
    result = contents.sort(_load(file))
    result.notices[:0] = notices
    return result


def parse_value(file: BinaryIO, size: int, budget: int) -> Any:
    """What a file in torch's zip format holds, checked and loaded as by `parse`, but not sorted.

    Raises:
        LandscapeError: the file is refused; the message says why.
    """
    _check_zip(file, size, budget)
    return _load(file)


def _check_zip(file: BinaryIO, size: int, budget: int) -> list[str]:
    """Check the container, and then the pickle against the container's records."""
    container = archive.check(file, size)
    stream = io.BytesIO(container.pickle)
    findings = pickles.examine(stream, budget=budget)
    if findings.end != len(container.pickle):
        raise _bad(f"one pickle, found {len(container.pickle) - findings.end} bytes after it")
    for key, claimed in findings.storages.items():
        held = container.records.get(key)
        shown = printable(key, limit=40)
        if held is None:
            raise _bad(f"a record for storage '{shown}', found none")
        # A storage of bytes may end in a partial element; any other difference is tampering.
        if not 0 <= held - claimed < 16:
            raise _bad(f"{claimed} bytes for storage '{shown}', found a record of {held}")
    unread = [*container.ignored, *sorted(set(container.records) - set(findings.storages))]
    if unread:
        return [f"ignored {len(unread)} records that nothing refers to ({printable(unread[0], limit=60)})"]
    return []


def _check_legacy(file: BinaryIO, size: int, budget: int) -> list[str]:
    """Check the five pickles of the format before zip, and the storages up to the end of the file."""
    file.seek(0)
    if pickles.examine(file, budget=budget).value != _MAGIC:
        raise _bad("torch's magic number at the start, found a pickle that torch.save did not write")
    if pickles.examine(file, budget=budget).value != _PROTOCOL:
        raise _bad(f"protocol {_PROTOCOL}, found another")
    pickles.examine(file, budget=budget)
    findings = pickles.examine(file, budget=budget)
    keys = pickles.examine(file, budget=budget)
    order = keys.value
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(findings.storages):
        raise _bad("the storages that the pickle refers to, found another list of them")
    position = keys.end
    itemsizes = findings.itemsizes
    for key in order:
        shown = printable(str(key), limit=40)
        file.seek(position)
        numel = int.from_bytes(file.read(8), "little", signed=True)
        claimed = findings.storages[key]
        if numel * itemsizes[key] != claimed:
            raise _bad(f"{claimed} bytes for storage '{shown}', found a record of {numel} elements")
        position += 8 + claimed
        if position > size:
            raise _bad(f"storage '{shown}' inside the file, found it cut short")
    if position < size:
        raise _bad(f"nothing after the last storage, found {size - position} bytes")
    return []


def _refuse_tar(file: BinaryIO, budget: int) -> None:
    """Refuse tar files of torch before 0.1.10, which cannot be read without running their code."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            names = []
            for member in tar:
                names.append(member.name)
                if len(names) > 100:
                    raise _bad("a checkpoint, found a tar archive of many files")
                if member.isfile() and member.size <= budget and (stream := tar.extractfile(member)) is not None:
                    _tripwire(stream, budget)
    except (tarfile.TarError, EOFError) as error:
        raise MalformedError(f"expected a checkpoint, found a broken tar archive: {error}", fix="unpack it first") from None
    if {"storages", "tensors", "pickle"} <= set(names):
        raise UnsafeError(
            "expected weights, found torch's oldest format (tar), which cannot be read without running code in it",
            fix="if you trust it, run: m = torch.load(PATH, weights_only=False); torch.save(m, NEW)",
        )
    raise MalformedError("expected a checkpoint, found a tar archive", fix="unpack it first")


def _tripwire(stream: Any, budget: int) -> None:
    """Check the pickles at the start of a member for names that run programs."""
    try:
        pickles.examine(stream, budget=budget)
    except MalformedError:
        return  # not a pickle, or broken: the archive is refused either way


def _load(file: BinaryIO) -> Any:
    """torch.load of data only; every failure becomes one of this package's errors."""
    file.seek(0)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless_classes.safe_globals()):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message goes on to advise loading the file unsafely; that part is removed.
        reason = printable(str(error.__context__ or error).partition(" Please use")[0], limit=200)
        if "GLOBAL" in reason:
            raise UnsafeError(f"expected plain data, found a pickle that torch refuses: {reason}") from None
        raise _bad(f"plain tensors, found: {reason}") from None


def _bad(sentence: str) -> MalformedError:
    """The error for a broken file."""
    return MalformedError(f"torch file: expected {sentence}", fix="save or download the file again")


if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("the readers of landscape.checkpoints assume a little-endian machine")
