"""Determine a file's format from its first bytes, independent of its name."""

import os
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from landscape.errors import MalformedError, UsageError, printable
from landscape.machine import files

Kind = Literal["safetensors", "zip", "legacy pickle", "tar"]
# Files of a folder of torch.distributed.checkpoint; they are known by their names.
Part = Literal["distributed metadata", "distributed parts"]

_LOOK = 4096
_PICKLE_OPENERS = frozenset(b"(]})NIJKMGLFSUTVXcl d\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f")
# A text pickle writes a global name in two lines: c<module>\n<name>\n, or i<module>\n<name>\n.
_TEXT_GLOBAL = re.compile(rb"[ci][A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n")

# First bytes of other files that are passed by mistake, with advice.
_STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git-LFS pointer, not the file it points to", "run `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a rar archive", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array (.npy)", "save a state dict of tensors with torch.save or safetensors"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras?)", "export the weights to safetensors"),
    (b"GGUF", "a GGUF file of quantized weights", "get the float weights as safetensors"),
    (b"\x89PNG", "a PNG picture", "pass the checkpoint"),
    (b"\xff\xd8\xff", "a JPEG picture", "pass the checkpoint"),
    (b"%PDF", "a PDF document", "pass the checkpoint"),
    (b"\x7fELF", "a program (ELF)", "pass the checkpoint"),
    (b"PK\x05\x06", "an empty zip archive", "save the checkpoint again"),
)


def open_checkpoint(path: str | Path) -> tuple[BinaryIO, int]:
    """Open a regular file that is not empty; see `landscape.machine.files.open_regular`.

    Returns:
        The file, at its beginning, and its size in bytes.

    Raises:
        UsageError: the path does not exist, cannot be read or is not a regular file, or the file is empty.
    """
    try:
        file = files.open_regular(path)
    except files.NotRegularError as error:
        found = _node(error.mode)
        raise UsageError(f"expected a checkpoint file, found {found}: {path}", fix="pass the path of a regular file") from None
    except FileNotFoundError:
        what = "a dangling link" if os.path.islink(path) else "nothing"
        raise UsageError(f"expected a checkpoint file, found {what} at {path}", fix="check the path") from None
    except PermissionError:
        raise UsageError(f"expected a readable file, found no permission for {path}", fix="check its permissions") from None
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a NUL byte
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"expected a checkpoint file, found a path that cannot be opened ({reason}): {path}") from None
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        file.close()
        raise UsageError(f"expected a checkpoint, found an empty file (0 bytes): {path}", fix="save or download it again")
    return file, size


def check_look(path: str | Path) -> None:
    """Refuse a file that cannot be a checkpoint by its first bytes, before anything that reads tensors is imported.

    A directory is not looked into.

    Raises:
        UsageError, MalformedError: as `open_checkpoint` and `sniff`.
    """
    if not os.path.isdir(path):
        file, size = open_checkpoint(path)
        with file:
            sniff(file, size, printable(Path(path).name, limit=120))


def sniff(file: BinaryIO, size: int, name: str) -> Kind:
    """The container format of an open file, from its first bytes; the file is left at its beginning.

    Raises:
        MalformedError: the bytes are not those of a checkpoint; the message says what they look like.
    """
    head = file.read(_LOOK)
    file.seek(0)
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if re.match(rb"\x80[\x00-\x05]", head) or (head[0] in _PICKLE_OPENERS and _TEXT_GLOBAL.search(head)):
        return "legacy pickle"
    for magic, what, fix in _STRANGERS:
        if head.startswith(magic):
            raise MalformedError(f"expected a checkpoint, found {what}: {name}", fix=fix)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        raise MalformedError(
            f"expected a checkpoint, found an HTML page: {name}",
            fix="the download failed; fetch the file itself",
        )
    if _is_tar(head):
        return "tar"
    if name.endswith(".safetensors"):
        return "safetensors"  # its own reader says what is wrong with the header
    if start.startswith((b"{", b"[")):
        raise MalformedError(f"expected a checkpoint, found text that looks like JSON: {name}", fix="pass the file of weights")
    raise MalformedError(
        f"expected safetensors or a torch.save file, found bytes of no known format ({head[:8].hex(' ')}): {name}",
        fix="save or download it again",
    )


def open_beside(
    folder: Path, name: str, words: tuple[str, str, str], bad: Callable[[str], MalformedError]
) -> tuple[BinaryIO, int]:
    """Open a file in the folder itself, as a file beside it names it; a name or a link that leads out of it is refused.

    Args:
        folder, name: the folder, and the name as it was found.
        words: for messages: what the file is, what it lies beside, and what the folder is called.
        bad: the error for what was expected and found.
    """
    shown, (what, beside, place) = printable(name, limit=80), words
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0:") or len(name.encode("utf-8", "surrogatepass")) > 255:
        raise bad(f"names of files beside {beside}, found '{shown}'")
    path = folder / name
    if not path.exists():
        raise bad(f"the {what} '{shown}' beside {beside}, found none")
    if path.resolve().parent != folder.resolve():
        raise bad(f"{what}s beside {beside}, found '{shown}', a link that leads out of its {place}")
    return open_checkpoint(path)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether the file begins with a plausible header length and the brace of a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _is_tar(head: bytes) -> bool:
    """Whether the first block has a valid tar checksum."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _node(mode: int) -> str:
    """The kind of a file system node, as text."""
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe (FIFO)"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((words for test, words in kinds if test(mode)), "something other than a regular file")
