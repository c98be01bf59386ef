"""Checkpoints in directories: an index of safetensors shards; folders of other tools, refused with what converts them."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from landscape.checkpoints.reading import safetensors_file
from landscape.checkpoints.reading.formats import open_beside, open_checkpoint
from landscape.errors import MalformedError, UnsafeError, UsageError, printable

INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors.index.json"
_MAX_INDEX = 100_000_000
_MAX_SHARDS = 10_000
_ZERO = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+")
_MEGATRON = re.compile(r"mp_rank_\d+(_\d+)*")


@dataclass(frozen=True)
class Shards:
    """The tensors of all shards; `sha256` is that of the index followed by the shards in the order of their names."""

    tensors: dict[str, Tensor]
    sha256: str
    size: int


def resolve(directory: Path) -> Path:
    """The file to read for a directory.

    Raises:
        UnsafeError: it is a checkpoint of DeepSpeed or Megatron, which only their own programs put together.
        UsageError: the directory does not determine which file to read.
    """
    try:
        names = set(os.listdir(directory))
    except OSError as error:
        raise UsageError(f"expected a readable directory, found {error.strerror}: {directory}") from None
    _refuse_tools(directory, names)
    indexes = sorted(name for name in names if name.endswith(SUFFIX))
    if INDEX in names or len(indexes) == 1:
        return directory / (INDEX if INDEX in names else indexes[0])
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if name in names:
            return directory / name
    raise UsageError(f"expected a checkpoint file, found a directory without {INDEX}: {directory}", fix="pass one file of it")


def _refuse_tools(directory: Path, names: set[str]) -> None:
    """Refuse folders whose parts only another tool's own program puts together, with the command that does."""
    if names & {"zero_to_fp32.py", "latest"} or any(_ZERO.match(name) for name in names):
        root, tag = (directory, "") if "zero_to_fp32.py" in names or "latest" in names else (directory.parent, directory.name)
        own = (root / "zero_to_fp32.py").exists()
        program = str(root / "zero_to_fp32.py") if own else "-m deepspeed.utils.zero_to_fp32"
        raise UnsafeError(
            f"expected weights, found a DeepSpeed ZeRO checkpoint, whose parts need code to be put together: {directory}",
            fix=f"if you trust it, run: python {program} {root} OUT{f' -t {tag}' if tag else ''}, and pass OUT",
        )
    if "latest_checkpointed_iteration.txt" in names or any(_MEGATRON.fullmatch(name) for name in names):
        raise UnsafeError(
            f"expected weights, found a Megatron checkpoint, whose ranks hold parts of each weight: {directory}",
            fix="convert it with Megatron's tools/checkpoint/convert.py, or pass a folder that it saved as torch_dist",
        )


def read_shards(index: Path, *, budget: int) -> Shards:
    """Read all shards of an index.

    Raises:
        MalformedError: a name leaves the directory, a shard is missing, or a tensor is in two shards or in none.
        UsageError: the shards have more bytes than `budget`.
    """
    raw, weight_map = read_index(index, budget=budget)
    names = sorted(set(weight_map.values()))
    total = 0
    headers: dict[str, safetensors_file.Header] = {}
    for name in names:
        file, size = open_shard(index.parent, name)
        with file:
            total += size
            if total > budget:
                raise UsageError(f"expected at most {budget} bytes (the memory budget), found {total}", fix="raise the budget")
            headers[name] = safetensors_file.read_header(file, size, budget=budget)
    check_map(headers, weight_map)
    digest = hashlib.sha256(raw)
    tensors: dict[str, Tensor] = {}
    for name in names:
        file, size = open_shard(index.parent, name)
        with file:
            tensors |= safetensors_file.read_tensors(file, headers[name])
            file.seek(0)
            while block := file.read(1 << 20):
                digest.update(block)
    return Shards({key: tensors[key] for key in weight_map}, digest.hexdigest(), total + len(raw))


def read_index(index: Path, *, budget: int) -> tuple[bytes, dict[str, str]]:
    """The bytes of an index, and the file of every tensor.

    Raises:
        MalformedError: it maps something else, too many files, or is too large.
    """
    file, size = open_checkpoint(index)
    with file:
        if size > _MAX_INDEX or size * 32 > budget:
            raise _bad(f"an index within the memory budget, found {size} bytes")
        raw = file.read()
    weight_map = safetensors_file.parse_json(raw, "the index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
        raise _bad("weight_map to map every tensor to a file, found something else")
    if len(set(weight_map.values())) > _MAX_SHARDS:
        raise _bad(f"at most {_MAX_SHARDS} shards, found {len(set(weight_map.values()))}")
    return raw, weight_map


def check_map(headers: Mapping[str, safetensors_file.Header], weight_map: Mapping[str, str]) -> None:
    """Check that the shards hold the tensors that the index names, each in its own.

    Raises:
        MalformedError: a tensor is in two shards, in another one, or in none.
    """
    seen: set[str] = set()
    for name, header in headers.items():
        for key in header.entries:
            if key in seen:
                raise _bad(f"every tensor in one shard, found '{printable(key, limit=80)}' in two")
            if weight_map.get(key) != name:
                raise _bad(f"the tensors that the index names, found '{printable(key, limit=80)}' in another shard")
            seen.add(key)
    missing = next((key for key in weight_map if key not in seen), None)
    if missing is not None:
        raise _bad(f"'{printable(missing, limit=80)}' in its shard, found no such tensor")


def open_shard(directory: Path, name: str) -> tuple[BinaryIO, int]:
    """Open a shard in the directory itself; a link out of the directory is refused."""
    return open_beside(directory, name, ("shard", "the index", "directory"), _bad)


def _bad(sentence: str) -> MalformedError:
    """The error for a broken set of shards."""
    return MalformedError(f"sharded safetensors: expected {sentence}", fix="download all shards into one directory")
