"""The plan of a distributed checkpoint, from the symbols of its metadata; nothing in the file is built or called.

`.metadata` is a pickle of dataclasses of torch.distributed.checkpoint. A dry run of it gives the same tree, of symbols in place
of instances. Runs in the child process only.
"""

from typing import Any, BinaryIO

from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.pickles import examine
from landscape.checkpoints.reading.symbols import DTYPES, Global, Made
from landscape.errors import MalformedError, printable

_METADATA, _FILESYSTEM = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
_TENSOR, _CHUNK, _INDEX = (
    f"{_METADATA}.TensorStorageMetadata",
    f"{_METADATA}.ChunkStorageMetadata",
    f"{_METADATA}.MetadataIndex",
)
_BYTES, _WHOLE, _INFO = f"{_METADATA}.BytesStorageMetadata", f"{_METADATA}.Metadata", f"{_FILESYSTEM}._StorageInfo"
_PROPERTIES = f"{_METADATA}.TensorProperties"
_NAMES = frozenset(
    {_TENSOR, _CHUNK, _INDEX, _BYTES, _WHOLE, _INFO, _PROPERTIES, f"{_METADATA}.StorageMeta"}
    | {f"{_METADATA}._MEM_FORMAT_ENCODING", f"{_FILESYSTEM}._StoragePrefix", f"{_FILESYSTEM}.SerializationFormat"}
)
_PROTOCOL = 5  # highest protocol that Python 3.8 to 3.14 write by default or on request


def plan(file: BinaryIO, size: int, budget: int) -> Contents:
    """The tensors that a distributed checkpoint holds, and where their parts are, as metadata of empty contents.

    "tensors": name -> path in the saved dictionary, dtype, size, and a list of chunks with offsets, sizes, file, position and
    length; "others": names of what is no tensor -> path; "ends": file -> how many bytes it has at least.

    Raises:
        UnsafeError: the pickle names something else than torch's classes for metadata.
        MalformedError: it is broken, or not the metadata of a distributed checkpoint.
    """
    file.seek(0)
    findings = examine(file, budget=budget, more=_NAMES, protocol=_PROTOCOL)
    if findings.end != size:
        raise bad(f"one pickle in .metadata, found {size - findings.end} bytes after it")
    whole = _state(findings.value, _WHOLE)
    entries, places = whole.get("state_dict_metadata"), whole.get("storage_data")
    if not isinstance(entries, dict) or not isinstance(places, dict):
        raise bad("a dictionary of tensors and one of files in .metadata, found something else")
    paths = whole.get("planner_data")
    where: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
    ends: dict[str, int] = {}
    for index, info in places.items():
        key, place = _state(index, _INDEX), _state(info, _INFO)
        name, begin, length = _word(key.get("fqn")), place.get("offset"), place.get("length")
        if not isinstance(begin, int) or not isinstance(length, int) or not (0 <= begin < 2**63 and 0 <= length < 2**63):
            raise bad(f"the place of '{printable(name, limit=80)}' in its file, found something else")
        where[name, _numbers(key.get("offset") or ())] = place
        file_name = _word(place.get("relative_path"))
        ends[file_name] = max(ends.get(file_name, 0), begin + length)
    tensors, others = {}, {}
    for name, entry in entries.items():
        path = _path(_word(name), paths)
        if isinstance(entry, Made) and entry.maker == _BYTES:
            others[name] = path
        else:
            tensors[name] = {"path": path} | _tensor(name, _state(entry, _TENSOR), where)
    return Contents({}, meta={"tensors": tensors, "others": others, "ends": ends})


def _tensor(name: str, entry: dict[str, Any], where: dict[tuple[str, tuple[int, ...]], dict[str, Any]]) -> dict[str, Any]:
    """Dtype, size and chunks of a tensor."""
    shown = printable(name, limit=80)
    properties = entry.get("properties")
    if not isinstance(properties, Made) or properties.maker != _PROPERTIES:
        raise bad(f"properties of '{shown}', found something else")
    dtype = properties.state[0] if isinstance(properties.state, tuple) and properties.state else None
    if not isinstance(dtype, Global) or dtype.name not in DTYPES:
        raise bad(f"a dtype of torch for '{shown}', found something else")
    if not isinstance(entry.get("chunks"), list):
        raise bad(f"a list of chunks of '{shown}', found something else")
    chunks = []
    for chunk in entry["chunks"]:
        state = _state(chunk, _CHUNK)
        offsets, sizes = _numbers(state.get("offsets")), _numbers(state.get("sizes"))
        info = where.get((name, offsets))
        if info is None:
            raise bad(f"a file for the part of '{shown}' at {offsets}, found none")
        if info.get("transform_descriptors"):
            raise bad(f"parts as torch.save writes them, found '{shown}' transformed by an extension")
        chunks.append(
            {"offsets": list(offsets), "sizes": list(sizes), "file": info["relative_path"]}
            | {"position": info["offset"], "length": info["length"]}
        )
    return {"dtype": dtype.name.removeprefix("torch."), "size": list(_numbers(entry.get("size"))), "chunks": chunks}


def _path(name: str, paths: Any) -> list[str]:
    """The keys that lead to an entry in the saved dictionary; its name alone if they are not known."""
    path = paths.get(name) if isinstance(paths, dict) else None
    return [str(part) for part in path] if isinstance(path, tuple | list) and path else [name]


def _state(value: Any, maker: str) -> dict[str, Any]:
    """The attributes of a symbol for an instance of a class."""
    if not isinstance(value, Made) or value.maker != maker or not isinstance(value.state or {}, dict):
        raise bad(f"{maker.rpartition('.')[2]} in .metadata, found something else")
    return value.state or {}


def _numbers(value: Any) -> tuple[int, ...]:
    """A shape or an offset."""
    if not isinstance(value, tuple) or len(value) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in value):
        raise bad("shapes of whole numbers in .metadata, found something else")
    return value


def _word(value: Any) -> str:
    """A name."""
    if not isinstance(value, str):
        raise bad("names in .metadata, found something else")
    return value


def bad(sentence: str) -> MalformedError:
    """The error for a broken folder."""
    return MalformedError(f"distributed checkpoint: expected {sentence}", fix="copy the whole folder again")
