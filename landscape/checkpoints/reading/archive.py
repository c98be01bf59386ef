"""Check the zip container of torch.save before torch opens it.

A checkpoint is a simple zip: stored records side by side in one folder, then the directory, then nothing. Other features of zip
(compression, encryption, overlaps, repeated names, paths that leave the folder) are not used by torch.save and are refused.
"""

import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from landscape.errors import MalformedError, UnsafeError, printable

_END = b"PK\x05\x06"  # end of central directory: 22 bytes without a comment
_END64 = b"PK\x06\x06"  # its zip64 form, 56 bytes, and the locator that points to it, 20 bytes
_LOCATOR64 = b"PK\x06\x07"
# The largest public checkpoints have some thousands of records; the directory takes about 100 bytes for each.
_MAX_ENTRIES = 100_000
_MAX_DIRECTORY = 200 * _MAX_ENTRIES
_CHUNK = 1 << 20
_DIRECTORY = 0x10  # MS-DOS directory bit in the external attributes
_FLAGS = 0x0808  # sizes in a descriptor after the data, names in UTF-8
_DESCRIPTORS = (12, 16, 20, 24)  # bytes after a record's data: CRC and sizes, with or without signature, 32 or 64 bits
_OWN = frozenset({"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"})


@dataclass(frozen=True)
class Archive:
    """A checked container.

    Attributes:
        pickle: the bytes that describe the objects.
        records: bytes of every storage, by its key.
        ignored: names of records that torch does not read.
    """

    pickle: bytes
    records: dict[str, int]
    ignored: tuple[str, ...]


def check(file: BinaryIO, size: int) -> Archive:
    """Check the structure of a zip file of `size` bytes, including every checksum, and return its content.

    Raises:
        MalformedError: a structure that torch.save does not write.
        UnsafeError: the archive contains code (TorchScript, torch.export).
    """
    _check_end(file, size)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as container:
            entries = container.infolist()
            _recognise(entries)
            _check_names(entries)
            _check_layout(container, entries, file)
            return _contents(container, entries)
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, RuntimeError) as error:
        raise _bad(f"an intact archive, found: {error}") from None


def _check_end(file: BinaryIO, size: int) -> None:
    """Check that the directory ends the file and has a plausible size."""
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end = tail[-22:]
    if len(end) < 22 or not end.startswith(_END) or end[20:] != b"\0\0":
        file.seek(max(0, size - (1 << 20)))
        where = file.read().rfind(_END)
        raise _bad(
            "the directory at the end of the file, found " + ("bytes after it" if where >= 0 else "none: it is cut short")
        )
    count, length = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if tail[-42:-38] == _LOCATOR64:
        if tail[:4] != _END64:
            raise _bad("a zip64 directory end before its locator, found other bytes")
        count, length = int.from_bytes(tail[32:40], "little"), int.from_bytes(tail[40:48], "little")
    if count > _MAX_ENTRIES or length > _MAX_DIRECTORY:
        raise _bad(f"at most {_MAX_ENTRIES} records, found {count} in a directory of {length} bytes")


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    """Check that names are distinct, in one folder, and contain no path out of it."""
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        shown = printable(name, limit=80)
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or "\0" in name or ":" in name or not all(parts) or {".", ".."} & set(parts):
            raise _bad(f"names inside one folder, found '{shown}'")
        if name.lower() in seen:  # torch ignores case in names
            raise _bad(f"every record once, found '{shown}' twice")
        seen.add(name.lower())
        if entry.flag_bits & 0x2041:
            raise _bad(f"plain records, found '{shown}' encrypted")
        # Python's reader accepts these, but torch's treats them as a directory and would return uninitialised memory.
        if entry.external_attr & _DIRECTORY or entry.volume or entry.flag_bits & ~_FLAGS or _zip64_fields(entry.extra) > 1:
            raise _bad(f"plain files, found '{shown}' with attributes that torch.save does not write")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _bad(
                f"stored records, as torch.save writes them, found '{shown}' compressed to claim {entry.file_size} bytes"
            )


def _zip64_fields(extra: bytes) -> int:
    """Number of zip64 size fields of an entry; with several, two readers could use different ones."""
    count = 0
    while len(extra) >= 4:
        count += extra[:2] == b"\x01\0"
        extra = extra[4 + int.from_bytes(extra[2:4], "little") :]
    return count


def _check_layout(container: zipfile.ZipFile, entries: list[zipfile.ZipInfo], file: BinaryIO) -> None:
    """Check that records fill the file from its first byte to the directory, and that every checksum is right."""
    position = 0
    for entry in sorted(entries, key=lambda item: item.header_offset):
        shown = printable(entry.filename, limit=80)
        gap = entry.header_offset - position
        if gap and gap not in _DESCRIPTORS:
            raise _bad(f"records side by side, found {'an overlap' if gap < 0 else f'{gap} bytes'} before '{shown}'")
        if gap and not position:
            raise _bad(f"the first record at the start, found {gap} bytes before it")
        file.seek(entry.header_offset)
        head = file.read(30)
        if int.from_bytes(head[18:22], "little") not in (0, entry.file_size, 0xFFFFFFFF):
            raise _bad(f"one size for '{shown}', found two that disagree")
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        position = entry.header_offset + 30 + lengths + entry.file_size
        with container.open(entry) as record:
            while record.read(_CHUNK):  # reading to the end makes zipfile compare the CRC
                pass
    gap = container.start_dir - position
    if gap and gap not in _DESCRIPTORS:
        raise _bad(f"the directory right after the records, found {gap} bytes between")


def _recognise(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse other kinds of archives, recognised by the names in them."""
    names = [entry.filename for entry in entries]
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise _code("TorchScript", "torch.save(torch.jit.load(PATH).state_dict(), NEW)")
    if inner & {"archive_format", "serialized_exported_program.json"}:
        raise _code("torch.export (.pt2)", "torch.save(torch.export.load(PATH).state_dict, NEW)")
    if any(name.startswith((".data/python", ".data/extern")) for name in inner):
        raise _code("torch.package", "torch.save(MODEL.state_dict(), NEW)")
    if names and all(name.endswith(".npy") for name in names):
        raise MalformedError("expected a checkpoint, found NumPy arrays (.npz)", fix="save a state dict as safetensors")
    if "data.pkl" not in inner:
        raise _bad("a record data.pkl, as torch.save writes it, found none: another kind of zip archive")


def _contents(container: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Archive:
    """The pickle and the sizes of the storages."""
    folder = entries[0].filename.split("/")[0]  # as in torch: the folder of the first record in the directory
    names = {entry.filename: entry for entry in entries}
    outside = next((name for name in names if not name.startswith(f"{folder}/")), None)
    if outside is not None:
        raise _bad(f"one folder, found '{printable(outside, limit=80)}' outside '{printable(folder, limit=80)}'")
    if f"{folder}/byteorder" in names and container.read(f"{folder}/byteorder") not in (b"little", b"big"):
        raise _bad("byteorder to be little or big, found another word")
    inner = {name.partition("/")[2]: entry.file_size for name, entry in names.items()}
    records = {name.removeprefix("data/"): size for name, size in inner.items() if name.startswith("data/")}
    ignored = sorted(name for name in inner if name not in _OWN and not name.startswith("data/"))
    return Archive(container.read(f"{folder}/data.pkl"), records, tuple(ignored))


def _code(what: str, convert: str) -> UnsafeError:
    """The error for an archive that contains a program."""
    return UnsafeError(
        f"expected weights, found a {what} archive: this is code", fix=f"if you trust it, save only its weights: {convert}"
    )


def _bad(sentence: str) -> MalformedError:
    """The error for a broken container."""
    return MalformedError(f"zip: expected {sentence}", fix="save or download the file again")
