"""What a journal's files hold: lines with their checksums, and how many files of dead processes become one."""

import hashlib
import json
import os
import socket
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.machine.files import sealed, unsealed, write

SUFFIX = ".jsonl"
FAILED = '{"failed"'

_COMPACTED = "compacted-"
_MANY = 16  # files that nobody writes to any more, from which on they become one: their reading is then a few milliseconds
_LARGE = 1 << 26  # bytes from which on a file stays as it is: reading its lines takes longer than opening many files
_TIER = 2  # a file is written anew only with others of half its size together, so that a line is not copied every time
_FOREIGN = 600.0  # seconds after which a segment from another machine, whose processes cannot be looked up, is a dead one's


@dataclass(frozen=True)
class Record:
    """A line that holds a point.

    Attributes:
        key, text: of the point, and its record as canonical JSON.
        at: in a compacted file the place of the segment that it comes from in the file's list, and where it ended there.
    """

    key: str
    text: str
    at: tuple[int, int] | None = None


@dataclass(frozen=True)
class Opening:
    """The first line of a file.

    Attributes:
        run: digest of the run that all of it belongs to.
        after: files that were there when it was begun.
        of: in a compacted file, the files whose records it holds, and how many of their bytes: (name, size).
    """

    run: str
    after: tuple[str, ...]
    of: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Claim:
    """A line that says what its writer does next."""

    keys: tuple[str, ...]


def text_of(content: dict[str, Any]) -> str:
    """Canonical JSON: floats by their shortest exact form."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)


def parsed(line: bytes) -> Record | Opening | Claim | None:
    """What a line holds; None if it is not what was written."""
    try:
        match unsealed(line):
            case {"open": str(run), "after": list(names), "of": list(of)} if all(isinstance(n, str) for n in names):
                return Opening(run, tuple(names), tuple((str(name), int(size)) for name, size in of))
            case {"open": str(run), "after": list(names)} if all(isinstance(n, str) for n in names):
                return Opening(run, tuple(names))
            case {"claim": list(keys)} if all(isinstance(k, str) for k in keys):
                return Claim(tuple(keys))
            case {"key": str(key), "record": dict(record), "at": [int(file), int(end)]}:
                return Record(key, text_of(record), (file, end))
            case {"key": str(key), "record": dict(record)}:
                return Record(key, text_of(record))
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def is_compacted(name: str) -> bool:
    """Whether a file holds the records of others, and is never written to again."""
    return name.startswith(_COMPACTED)


def is_over(folder: Path, name: str, writing: set[str]) -> bool:
    """Whether nobody writes to a file any more, as far as can be told.

    Args:
        folder, name: the file.
        writing: the segments that this process has open.
    """
    if is_compacted(name):
        return True
    _, host, pid, *_ = [*name.removesuffix(SUFFIX).split("-"), "", ""]
    if host != HOST or not pid.isdecimal():
        try:
            return time.time() - (folder / name).stat().st_mtime >= _FOREIGN
        except OSError:
            return True
    if int(pid) == os.getpid():
        return name not in writing  # else it is of an earlier process that had this number
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def compact(folder: Path, run: str, read: dict[str, int], names: Sequence[str]) -> str | None:
    """Put the records of files that nobody writes to into one, if there are many, and remove them.

    The new file is written beside the others, synced, and renamed; only then the others go, each unless it has grown since.
    A process that is killed in between leaves both, and whoever reads the new one knows from its first line what it need not
    read again, or has read already. Claims, failures, and what was damaged (and is in quarantine) are left behind. Two
    processes that do so at the same time write the same file, or two that say the same.

    Args:
        folder: of the journal.
        run: digest of the run; files of another one stay.
        read: file -> bytes of it that are to be kept: those that this process has read.
        names: files that nobody writes to.

    Returns:
        Name of the new file; None if there is none.

    Raises:
        UsageError: it cannot be written.

    Cost: what reading these files costs, and a sync. Files of 64 MiB and more stay as they are, and one is written anew only
        with others of half its size: in all a line is copied a few times, however often a run is interrupted.
    """
    sizes: dict[str, int] = {}
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    of: dict[str, int] = {}
    for name in _chosen({name: read[name] for name in names if 0 < read.get(name, 0) < _LARGE}):
        with suppress(OSError):  # another process was first
            content = (folder / name).read_bytes()
            if (found := _contents(name, content[: read[name]], run)) is not None:
                sizes[name] = len(content)
                lines |= found[1]
                for file, size in (*found[0], (name, read[name])):
                    of[file] = max(size, of.get(file, 0))
    if len(sizes) < 2:
        return None
    files = sorted(of.items())
    place = {name: i for i, (name, _) in enumerate(files)}
    first = sealed({"open": run, "after": [], "of": files})
    rest = [sealed(body | {"at": [place[name], end]}) for (name, end), body in sorted(lines.items(), key=lambda item: item[0])]
    path = write(folder / f"{_COMPACTED}{hashlib.sha256(first).hexdigest()[:16]}{SUFFIX}", first + b"".join(rest))
    for name, size in sizes.items():
        with suppress(OSError):
            if (
                folder / name
            ).stat().st_size == size:  # else somebody writes to it after all: its new lines are read from there
                os.unlink(folder / name)
    return path.name


def _chosen(sizes: dict[str, int]) -> list[str]:
    """The files that are to become one: the smallest, up to one that is larger than twice all before it."""
    if len(sizes) < _MANY:
        return []
    chosen: list[str] = []
    total = 0
    for name in sorted(sizes, key=lambda n: (sizes[n], n)):
        if len(chosen) >= _MANY // 2 and sizes[name] > _TIER * total:
            break
        chosen.append(name)
        total += sizes[name]
    return chosen


def _contents(
    name: str, content: bytes, run: str
) -> tuple[tuple[tuple[str, int], ...], dict[tuple[str, int], dict[str, Any]]] | None:
    """Which files a file holds records of, and those that count, by where they were written; None if it is of another run."""
    lines = content.splitlines(keepends=True)
    opening = parsed(lines[0]) if lines else None
    if not isinstance(opening, Opening) or opening.run != run:
        return None
    found, end = {}, len(lines[0])
    for line in lines[1:]:
        end += len(line)
        record = parsed(line)
        if not isinstance(record, Record) or record.text.startswith(FAILED):
            continue
        if record.at is None or 0 <= record.at[0] < len(opening.of):
            whence = (name, end) if record.at is None else (opening.of[record.at[0]][0], record.at[1])
            found[whence] = {"key": record.key, "record": json.loads(record.text)}
    return opening.of, found


def host() -> str:
    """This machine, as eight hexadecimal digits."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


HOST = host()
