"""The files of a journal: lines with checksums, and merging the files of dead processes."""

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
_MANY = 16  # finished files that trigger a merge; reading fewer takes only milliseconds
_LARGE = 1 << 26  # bytes of a file that is no longer merged: reading its lines takes longer than opening many files
_TIER = 2  # a file is merged only with others of at least half its size in total, so that lines are rarely copied
_FOREIGN = 600.0  # seconds without a write after which the process of a segment from another machine counts as dead


@dataclass(frozen=True)
class Record:
    """A line with the record of a point.

    Attributes:
        key, text: key of the point, and its record as canonical JSON.
        at: in a merged file, the index of the line's original segment in the file's list, and the offset of its end there.
    """

    key: str
    text: str
    at: tuple[int, int] | None = None


@dataclass(frozen=True)
class Opening:
    """The first line of a file.

    Attributes:
        run: digest of the run to which the file belongs.
        after: files that existed when it was started.
        of: in a merged file, the original files and the number of bytes taken from each: (name, size).
    """

    run: str
    after: tuple[str, ...]
    of: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Claim:
    """A line that announces the points that its writer computes next."""

    keys: tuple[str, ...]


def text_of(content: dict[str, Any]) -> str:
    """Canonical JSON, with floats in their shortest exact form."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)


def parsed(line: bytes) -> Record | Opening | Claim | None:
    """The content of a line; None if it is damaged."""
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
    """Whether a file is a merged one, which is never written to again."""
    return name.startswith(_COMPACTED)


def is_over(folder: Path, name: str, writing: set[str]) -> bool:
    """Whether no process writes to a file any more, as far as is known.

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
        return name not in writing  # else an earlier process had this number
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def compact(folder: Path, run: str, read: dict[str, int], names: Sequence[str]) -> str | None:
    """Merge finished files into one, if there are many, and remove them.

    The new file is written under a temporary name, synced, and renamed; only then are the others removed, unless they have
    grown meanwhile. A process that is killed in between leaves both. The first line of the new file lists what it contains, so
    that readers skip what they have already read. Claims, failures, and damaged lines (which are in quarantine) are dropped.
    Two processes that merge at the same time write the same file, or two files with the same records.

    Args:
        folder: folder of the journal.
        run: digest of the run; files of another run are not changed.
        read: file -> bytes that this process has read, which are merged.
        names: files that no process writes to.

    Returns:
        Name of the new file; None if there is none.

    Raises:
        UsageError: the file cannot be written.

    Cost: reading these files, and a sync. Files of 64 MiB or more are not merged, and a file is merged only with others of at
        least half its size in total, so that each line is copied only a few times over many interruptions.
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
            ).stat().st_size == size:  # else a process still writes to it, and its new lines are read from there
                os.unlink(folder / name)
    return path.name


def _chosen(sizes: dict[str, int]) -> list[str]:
    """The files to merge: the smallest ones, up to the first that is larger than twice all before it."""
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
    """The original files of a file's records, and its valid records by original position; None if it is of another run."""
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
