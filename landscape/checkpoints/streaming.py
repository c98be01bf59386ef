"""Weights of safetensors files copied into a model one after another, so that a file and the model are never held both."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from landscape.checkpoints import shards
from landscape.checkpoints.checkpoint import default_budget
from landscape.checkpoints.fitting.adapter import is_adapter
from landscape.checkpoints.fitting.fit import aliases_of, disagreements, fill, tensors_of
from landscape.checkpoints.parallel.distributed_folder import METADATA
from landscape.checkpoints.reading import safetensors_file
from landscape.checkpoints.reading.formats import open_checkpoint
from landscape.checkpoints.reading.safetensors_file import Entry, Header
from landscape.checkpoints.weights import HALF, check_dtype, check_finite, conversions
from landscape.machine import progress


@dataclass(frozen=True)
class Streamed:
    """What was read: the digest, as `Checkpoint.sha256` has it, and notices as those of `fit`."""

    sha256: str
    notices: tuple[str, ...]


def stream(path: Path, model: nn.Module) -> Streamed | None:
    """Copy the weights of a safetensors file, or of the shards of an index, into a model, one tensor at a time.

    Args:
        path: a file, an index, or a folder with one of them.
        model: its parameters and buffers are overwritten, in their own dtype. If this raises, some may be.

    Returns:
        The digest and notices; None, with the model as it was, where the files are of another format, or where names or shapes
        are not the model's own: `read` and `fit` then convert them, or say what disagrees.

    Raises:
        MalformedError: as `read`.
        NumericalError: a weight is NaN or infinite.

    Cost: memory for the largest tensor, in the file's precision and in the model's; two readings of the files.
    """
    if os.path.lexists(path / METADATA):  # parts of torch.distributed.checkpoint
        return None
    path = shards.resolve(path) if path.is_dir() else path
    budget = default_budget()
    raw, weight_map, files = b"", None, [path.name]
    if path.name.endswith(shards.SUFFIX):
        raw, weight_map = shards.read_index(path, budget=budget)
        files = sorted(set(weight_map.values()))
    elif path.suffix != ".safetensors" or not path.is_file():
        return None

    def opened(name: str) -> tuple[BinaryIO, int]:
        return open_checkpoint(path) if weight_map is None else shards.open_shard(path.parent, name)

    headers = {name: _header(opened(name), budget) for name in files}
    if weight_map is not None:
        shards.check_map(headers, weight_map)
    if any("landscape" in header.metadata for header in headers.values()):  # of `save`, with a recipe and a seal
        return None
    entries = {key: entry for header in headers.values() for key, entry in header.entries.items()}
    model_state = tensors_of(model.state_dict(keep_vars=True))
    fitted = _fitted(entries, model_state)
    if fitted is None:
        return None
    kept, notices = fitted
    digest = hashlib.sha256(raw)
    halves: Counter[str] = Counter()
    for name in files:
        file, _ = opened(name)
        with file, torch.no_grad():
            header = headers[name]
            with progress.stage(f"reading {name}", total=len(header.entries)) as advance:
                for key, entry in header.entries.items():
                    (tensor,) = safetensors_file.read_tensors(file, Header({key: entry}, {})).values()
                    _check(key, tensor)
                    if key in kept:
                        model_state[key].detach().copy_(tensor)
                    if tensor.dtype in HALF:
                        halves[str(tensor.dtype).removeprefix("torch.")] += 1
                    advance(1)
            file.seek(0)
            while block := file.read(1 << 20):
                digest.update(block)
    return Streamed(digest.hexdigest(), (*conversions(halves), *notices))


def _header(opened: tuple[BinaryIO, int], budget: int) -> Header:
    """The checked header of an open file, which is closed; the file may exceed the budget, for its tensors are read apart."""
    file, size = opened
    with file:
        return safetensors_file.read_header(file, size, budget=max(budget, size))


def _check(key: str, tensor: Tensor) -> None:
    """Refuse a tensor that is no weight, or is not finite."""
    check_dtype(key, tensor)
    check_finite({key: tensor})


def _fitted(entries: dict[str, Entry], model_state: dict[str, Tensor]) -> tuple[set[str], list[str]] | None:
    """The names that are copied and notices of what the file lacks; None unless all names are the model's own."""
    aliases = aliases_of(model_state)
    twice = Counter(aliases[key] for key in entries if key in aliases)
    if any(count > 1 for count in twice.values()):  # tied in the model, two tensors in the file: compared by `fit`
        return None
    shapes = {
        key: torch.empty(entry.shape, dtype=torch.float32 if entry.dtype in HALF else entry.dtype, device="meta")
        for key, entry in entries.items()
    }
    if is_adapter(shapes) or any(entry.dtype.is_complex for entry in entries.values()):
        return None
    filled, notices = fill(shapes, model_state, aliases)
    if disagreements(filled, model_state, aliases):
        return None
    narrowed = any(e.dtype is torch.float64 and model_state[k].dtype is not torch.float64 for k, e in entries.items())
    return None if narrowed else ({key for key in entries if key in filled}, notices)
