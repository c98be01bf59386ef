"""Files that are written whole or not at all, and read only if they are regular files of a plausible size."""

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
_OLD = 600.0  # seconds; a temporary file older than this is no longer being written
_SETTLE = 0.1  # seconds within which concurrent processes place their files, where hard links cannot tell which was first
# Bytes of JSON that are read at most: a surface of 500 x 500 points with ten quantities has 50 million; parsed, it takes ten
# times as much.
_JSON = 128 << 20


class NotRegularError(OSError):
    """The file to read is not a regular file.

    Attributes:
        mode: `st_mode` of the file.
    """

    def __init__(self, path: str | Path, mode: int) -> None:
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for test, name in kinds if test(mode)), "a device")
        super().__init__(errno.EINVAL, f"it is {kind}, not a file", str(path))
        self.mode = mode


# Endings of checkpoints, tables and archives, which no title needs.
_ENDINGS = {".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl", ".safetensors", ".index", ".json", ".npz"}


def bare_name(path: str | Path) -> str:
    """The name of a checkpoint or folder without the ending of its format; a dot inside the name, as in "lr0.1", is kept.

    Example:
        >>> bare_name("runs/lr0.1"), bare_name("runs/lr0.1.pth"), bare_name("a/model.safetensors.index.json")
        ('lr0.1', 'lr0.1', 'model')
    """
    name = Path(path).name
    while (ending := Path(name).suffix.lower()) in _ENDINGS:
        name = name[: -len(ending)]
    return name


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading bytes. Pipes, devices and folders are refused: reading them may block or never end.

    Raises:
        OSError: the file does not exist, cannot be read, or is not regular (`NotRegularError`); `strerror` says which.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer. A device is not opened at all.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularError(path, mode)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    file = os.fdopen(handle, "rb")
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):  # the path was replaced in the meantime
        file.close()
        raise NotRegularError(path, mode)
    return file


def read_json(path: str | Path, limit: int = _JSON) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        limit: largest size in bytes; parsed JSON takes some ten times as much memory.

    Raises:
        OSError: as `open_regular`.
        ValueError: the file is larger, or not JSON, or nested too deeply; one line that says which.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise ValueError(f"{max(size, len(content)):,} bytes, more than the {limit:,} that are read")
    return parsed_json(content)


def parsed_json(content: str | bytes) -> Any:
    """`json.loads`, with every refusal a ValueError of one line, also for deep nesting and very long numbers.

    Raises:
        ValueError: the content is not JSON, or cannot be parsed here.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def sealed(record: dict[str, Any]) -> bytes:
    """A record as a line "CRC-32 JSON": floats in their shortest exact form, keys sorted.

    Example:
        >>> unsealed(sealed({"b": 0.1, "a": None}))
        {'a': None, 'b': 0.1}
    """
    body = json.dumps(record, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def unsealed(line: bytes) -> dict[str, Any] | None:
    """Inverse of `sealed`; None if the line is damaged."""
    crc, _, body = line.rstrip(b"\n").partition(b" ")
    try:
        record = parsed_json(body) if int(crc, 16) == zlib.crc32(body) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` expanded.

    Raises:
        UsageError: there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"expected a path, found {str(path)!r}: {error}", fix="write the folder in full") from None


def write(path: str | Path, content: bytes, *, parents: bool = False) -> Path:
    """Write bytes to a temporary file in the same folder, sync it and rename it, so that nobody reads half a file.

    The folder is synced too, so that the name survives a power failure.

    Args:
        parents: make folders that are missing, as for a path that somebody wrote by hand.

    Raises:
        UsageError: the file cannot be written there.
    """
    target = Path(path)
    if parents:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise unwritable(target, error) from None
    return _placed(target, content, os.replace)


def create(path: str | Path, content: bytes) -> Path:
    """As `write`, but keep a file that exists: of several processes one wins, and all read the same content afterwards.

    Accuracy: on a file system without hard links, processes that begin within a tenth of a second of one another may replace
    each other's file; all still read the same content.

    Raises:
        UsageError: the file cannot be written there.
    """
    return Path(path) if os.path.lexists(path) else _placed(Path(path), content, _first)


def _placed(target: Path, content: bytes, place: Callable[[Path, Path], None]) -> Path:
    """Write a temporary file and move it to its target."""
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
    """Move the temporary file to its target unless the target exists."""
    try:
        os.link(part, target)
    except FileExistsError:
        return
    except OSError:  # no hard links here
        if not target.exists():
            os.replace(part, target)
        time.sleep(_SETTLE)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its names survive a power failure, if the system supports that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_part(name: str) -> bool:
    """Whether this is a temporary file of `write`: not renamed yet, or left by a process that was killed."""
    return _PART.fullmatch(name) is not None


def sweep(folder: str | Path) -> None:
    """Remove temporary files that killed processes left behind, by their age."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                if is_part(entry.name) and entry.is_file() and time.time() - entry.stat().st_mtime > _OLD:
                    os.unlink(entry.path)


def unwritable(path: Path, error: Exception) -> UsageError:
    """The error for a path that cannot be written."""
    full = getattr(error, "errno", None) in _FULL
    fix = "free some space and run the same command again" if full else "name a file in a folder that exists and can be written"
    return UsageError(f"expected to write {str(path)!r}, found: {getattr(error, 'strerror', None) or error}", fix=fix)
