"""Files that are written whole or not at all, and read only where they are files and no larger than they should be."""

import errno
import json
import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from landscape.errors import UsageError

_PART = re.compile(r"\..+\.\d+-[0-9a-f]{8}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OLD = 600.0  # seconds after which nobody is still writing a part
_SETTLE = 0.1  # seconds in which processes that began together have all placed theirs, where links do not tell who was first
# Bytes of JSON that are read: a picture of 500 x 500 points with ten quantities has 50 million; parsed it takes ten times that.
_JSON = 128 << 20


class NotRegularError(OSError):
    """What was to be read is no regular file.

    Attributes:
        mode: its `st_mode`.
    """

    def __init__(self, path: str | Path, mode: int) -> None:
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        found = next((name for test, name in kinds if test(mode)), "a device")
        super().__init__(errno.EINVAL, f"it is {found}, no file", str(path))
        self.mode = mode


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read its bytes, unless it is a pipe, a device or a folder: those would be waited for, or never end.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file (`NotRegularError`); `strerror` says which.
    """
    # A pipe that is opened without waiting tells what it is; a device is not opened at all.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularError(path, mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    file = os.fdopen(handle, "rb")
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):  # another one since
        file.close()
        raise NotRegularError(path, mode)
    return file


def read_json(path: str | Path, limit: int = _JSON) -> Any:
    """What a JSON file holds.

    Args:
        path: of the file.
        limit: bytes that it may have; JSON takes some ten times that in memory once it is read.

    Raises:
        OSError: as `open_regular`.
        ValueError: it is larger, or no JSON, or nested deeper than can be read; one line that says which.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise ValueError(f"{max(size, len(content)):,} bytes, more than the {limit:,} that are read")
    return parsed_json(content)


def parsed_json(content: str | bytes) -> Any:
    """`json.loads`, whose every refusal is a ValueError of one line: deep nesting and endless numbers too.

    Raises:
        ValueError: it is no JSON, or none that can be read here.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def sealed(record: dict[str, Any]) -> bytes:
    """A record as a line "CRC-32 JSON": floats by their shortest exact form, keys in order.

    Example:
        >>> unsealed(sealed({"b": 0.1, "a": None}))
        {'a': None, 'b': 0.1}
    """
    body = json.dumps(record, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def unsealed(line: bytes) -> dict[str, Any] | None:
    """Inverse of `sealed`; None where the line is not what was written."""
    crc, _, body = line.rstrip(b"\n").partition(b" ")
    try:
        record = parsed_json(body) if int(crc, 16) == zlib.crc32(body) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` spelt out.

    Raises:
        UsageError: there is no such user, or no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"expected a path, found {str(path)!r}: {error}", fix="spell the folder out") from None


def write(path: str | Path, content: bytes) -> Path:
    """Write bytes to a file by way of a temporary one in the same folder, synced and renamed: nobody ever reads half of it.

    The folder is synced too, so that the name outlives a power cut.

    Raises:
        UsageError: the file cannot be written there.
    """
    return _placed(Path(path), content, os.replace)


def create(path: str | Path, content: bytes) -> Path:
    """As `write`, unless the file is there: of several processes one wins, and all read the same afterwards.

    Accuracy: where the file system has no hard links, processes that begin within a tenth of a second of one another may
    replace each other's; all still read the same.

    Raises:
        UsageError: the file cannot be written there.
    """
    return Path(path) if os.path.lexists(path) else _placed(Path(path), content, _first)


def _placed(target: Path, content: bytes, place: Callable[[Path, Path], None]) -> Path:
    """Write a part and put it in its place."""
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            with open(part, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            place(part, target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise unwritable(target, error) from None
    return target


def _first(part: Path, target: Path) -> None:
    """Put a part in its place unless somebody else's is there."""
    try:
        os.link(part, target)
    except FileExistsError:
        return
    except OSError:  # no hard links here
        if not target.exists():
            os.replace(part, target)
        time.sleep(_SETTLE)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder outlive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_part(name: str) -> bool:
    """Whether a file is one that `write` has not renamed yet, or never will because its process was killed."""
    return _PART.fullmatch(name) is not None


def sweep(folder: str | Path) -> None:
    """Remove the parts that killed processes left behind: those that are too old to be anybody's work."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                if is_part(entry.name) and entry.is_file() and time.time() - entry.stat().st_mtime > _OLD:
                    os.unlink(entry.path)


def unwritable(path: Path, error: Exception) -> UsageError:
    """The refusal of a path that the system refused."""
    full = getattr(error, "errno", None) in _FULL
    fix = "free some space and run the same command again" if full else "name a file in a folder that exists and can be written"
    return UsageError(f"expected to write {str(path)!r}, found: {getattr(error, 'strerror', None) or error}", fix=fix)
