"""Read safetensors files: every header entry is checked, and tensors are read by ordinary reads.

The library maps files into memory; if a mapped file shrinks while in use, the process is ended by a signal. Ordinary reads cost
one copy and avoid this.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from landscape.errors import LandscapeError, MalformedError, UsageError, printable

MAX_HEADER = 100_000_000  # the format's own limit
_HEADER_COST = 32  # most bytes of Python objects for one byte of JSON, roughly

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor of a header: its dtype, its shape, and the position of its bytes in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """The content of a checked header."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(file: BinaryIO, size: int, *, budget: int) -> Header:
    """Read and check the header of a safetensors file of `size` bytes.

    The tensors must fill the rest of the file exactly: no overlap, no gap, nothing after the last.

    Raises:
        MalformedError: the header violates the format.
        UsageError: the file is valid but larger than `budget`.
    """
    if size < 8:
        raise _bad(f"8 bytes of header length, found a file of {size} bytes")
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length == 0:
        raise _bad("a header, found one of length 0")
    if length > MAX_HEADER:
        raise _bad(f"a header of at most 100 MB, found one of {length} bytes")
    if length > size - 8:
        raise _bad(f"a header inside the file, found one of {length} bytes in a file of {size} bytes")
    if length * _HEADER_COST > budget:
        raise _bad(f"a header that parses within the memory budget, found {length} bytes: over the memory budget")
    content = parse_json(file.read(length), "the header")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad("metadata that maps strings to strings, found something else")
    entries = {name: _entry(name, value, 8 + length) for name, value in content.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].nbytes)):
        if entry.begin != end:
            problem = "an overlap" if entry.begin < end else "a hole"
            raise _bad(f"tensors that lie side by side, found {problem} before '{printable(name, limit=80)}'")
        end += entry.nbytes
    if end > size:
        raise _bad(f"a file of {end} bytes, found {size}: it is cut short")
    if end < size:
        raise _bad(f"nothing after the last tensor, found {size - end} bytes")
    if size > budget:
        raise UsageError(
            f"expected a file within the memory budget of {budget} bytes, found {size} bytes", fix="raise the budget"
        )
    return Header(entries, metadata)


def read_tensors(file: BinaryIO, header: Header) -> dict[str, Tensor]:
    """The tensors that a checked header declares, in the header's order."""
    tensors = {}
    for name, entry in header.entries.items():
        if not entry.nbytes:
            tensors[name] = torch.empty(entry.shape, dtype=entry.dtype)
            continue
        raw = torch.empty(entry.nbytes, dtype=torch.uint8)
        file.seek(entry.begin)
        shown = printable(name, limit=80)
        if file.readinto(raw.numpy().data) != entry.nbytes:  # type: ignore[attr-defined]  # BinaryIO lacks it, files have it
            raise _bad(f"{entry.nbytes} bytes of '{shown}', found fewer: the file changed while it was read")
        if entry.dtype is torch.bool and bool((raw > 1).any()):
            raise _bad(f"truth values of 0 or 1, found others in '{shown}'")
        tensors[name] = raw.view(entry.dtype).reshape(entry.shape)
    return tensors


def write(file: BinaryIO, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous tensors to a stream; used by the child process for its answer."""
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        if tensor.numel():
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object from untrusted bytes: UTF-8, no repeated key, no depth that exhausts the stack."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise _bad(f"{what} in UTF-8, found other bytes") from None
    except RecursionError:
        raise _bad(f"a flat {what.removeprefix('the ')}, found JSON nested too deep") from None
    except LandscapeError:
        raise
    except ValueError as error:  # a syntax error, or an integer of thousands of digits
        raise _bad(f"JSON in {what}, found {error}") from None
    if not isinstance(value, dict):
        raise _bad(f"a JSON object in {what}, found a {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with distinct keys."""
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None
        raise _bad(f"every key once, found '{printable(twice, limit=80)}' twice")
    return content


def _entry(name: str, value: object, start: int) -> Entry:
    """One checked entry of the header; `start` is the position of the first tensor in the file."""
    shown = printable(name, limit=80)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(f"dtype, shape and data_offsets for '{shown}', found something else")
    if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
        raise _bad(f"a known dtype for '{shown}', found {printable(str(value['dtype']), limit=40)}")
    dtype, shape, offsets = DTYPES[value["dtype"]], value["shape"], value["data_offsets"]
    if not _naturals(shape) or len(shape) > 64 or math.prod(side for side in shape if side) >= 2**63:
        raise _bad(f"a shape of whole numbers for '{shown}', found something else")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(f"two rising offsets for '{shown}', found something else")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != offsets[1] - offsets[0]:
        raise _bad(f"{nbytes} bytes for '{shown}', found offsets {offsets[1] - offsets[0]} bytes apart")
    return Entry(dtype, tuple(shape), start + offsets[0], nbytes)


def _naturals(value: object) -> bool:
    """Whether a JSON value is a list of integers from 0 to 2^63 - 1; booleans do not count."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _bad(sentence: str) -> MalformedError:
    """The error for a broken safetensors file."""
    return MalformedError(f"safetensors: expected {sentence}", fix="save or download the file again")
