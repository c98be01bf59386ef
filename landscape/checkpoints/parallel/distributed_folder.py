"""The weights of a distributed checkpoint, put together from the parts in its files, one file at a time."""

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.checkpoints.parallel.saved_metadata import bad
from landscape.checkpoints.reading.contents import NOT_WEIGHTS, USUAL_KEYS, Contents
from landscape.checkpoints.reading.formats import open_beside, open_checkpoint
from landscape.checkpoints.reading.isolate import parse_apart
from landscape.checkpoints.reading.safetensors_file import NAMES
from landscape.errors import MalformedError, UsageError, printable
from landscape.machine import progress

METADATA = ".metadata"
_LARGEST = 1 << 28  # bytes of metadata; of a hundred thousand parts it has some 20 million
_TOP = "(top level)"


@dataclass(frozen=True)
class Folder:
    """The contents of a distributed checkpoint; `sha256` is that of its metadata and of the files with weights, by name."""

    contents: Contents
    sha256: str
    size: int
    files: int


def read_folder(folder: Path, *, budget: int) -> Folder:
    """Read the weights of a folder that `torch.distributed.checkpoint.save` wrote, with any number of processes.

    The metadata, a pickle, is never unpickled: a child process reads the symbols in it. Every file with weights is read by a
    child of its own, which checks and loads the parts as single checkpoints; they are copied into whole tensors here. The
    state of an optimizer is left out.

    Args:
        folder: with `.metadata` and files `__N_M.distcp`.
        budget: most bytes that the weights may take.

    Raises:
        UnsafeError: the metadata or a part names something that is not data.
        MalformedError: a file is missing, cut short, outside the folder, or differs from the metadata; the parts of a tensor
            overlap or leave a gap; there are no weights.
        UsageError: the weights have more bytes than `budget`.

    Cost: two passes over the files, and some 2 s for each file to start its child. Memory: the weights, and those of one file.
    """
    plan, digest, size = _plan(folder, budget)
    chosen = _chosen(plan["tensors"])
    contents = Contents({name: {} for name in chosen})
    total = 0
    parts: dict[str, list[tuple[Tensor, dict[str, Any], str]]] = {}
    for name, tensors in chosen.items():
        for key, entry in tensors.items():
            dtype = getattr(torch, entry["dtype"])
            usable = dtype in NAMES and not dtype.is_complex
            total += math.prod(entry["size"]) * dtype.itemsize if usable else 0
            if total > budget:
                raise UsageError(f"expected at most {budget} bytes (the memory budget), found more", fix="raise the budget")
            _check_parts(key, entry)
            target = torch.empty(entry["size"], dtype=dtype, device="cpu" if usable else "meta")
            contents.candidates[name][key] = target
            if not usable:
                contents.unusable.setdefault(name, {})[key] = f"of {dtype}"
                continue
            for chunk in entry["chunks"]:
                if math.prod(chunk["sizes"]):
                    parts.setdefault(chunk["file"], []).append((target, chunk, key))
    with progress.stage("files of the checkpoint", len(parts)) as advance:
        for file_name in sorted(parts):
            size += _take(folder, file_name, plan["ends"][file_name], parts[file_name], digest, budget)
            advance(1)
    others = [key for key, path in plan["others"].items() if not _is_state(path)]
    if others:
        shown = ", ".join(printable(key, limit=60) for key in others[:3])
        contents.notices.append(f"left out {len(others)} entries that are no tensors ({shown})")
    return Folder(contents, digest.hexdigest(), size, len(parts))


def _plan(folder: Path, budget: int) -> tuple[dict[str, Any], Any, int]:
    """What the metadata says, its digest to be continued, and its size."""
    file, size = open_checkpoint(folder / METADATA)
    with file:
        if size > _LARGEST:
            raise bad(f"at most {_LARGEST} bytes of metadata, found {size}")
        contents = parse_apart(file, "distributed metadata", size, budget)
        file.seek(0)
        return contents.meta, hashlib.sha256(file.read()), size


def _chosen(tensors: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The tensors that are no state of an optimizer, by the dictionary that held them and their name in it."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in tensors.values():
        if not _is_state(entry["path"]):
            *outer, key = entry["path"]
            found.setdefault(".".join(outer) or _TOP, {})[key] = entry
    loose = found.get(_TOP, {})
    if len(found) > 1 and not any(entry["size"] for entry in loose.values()):
        found.pop(_TOP, None)  # a step counter beside the dictionary of weights
    if not found:
        held = ", ".join(printable(name, limit=40) for name in list(tensors)[:8]) or "nothing"
        raise MalformedError(
            f"expected weights, found no weights; the checkpoint holds {held}", fix="save the model's state dict with it"
        )
    return found


def _is_state(path: list[str]) -> bool:
    """Whether an entry belongs to an optimizer, a schedule or the like, by the keys that lead to it.

    Below a usual key of weights nothing does: a network may have a layer that is called `loss`.
    """
    if len(path) == 1:
        return path[0].startswith("optim") and _not_weights(path[0].partition(".")[0])
    for key in path[:-1]:
        if key in USUAL_KEYS:
            return False
        if _not_weights(key):
            return True
    return False


def _not_weights(key: str) -> bool:
    """Whether a key has a word of what a checkpoint holds besides weights."""
    return any(word in key.lower() for word in NOT_WEIGHTS)


def _check_parts(key: str, entry: dict[str, Any]) -> None:
    """Check that the parts of a tensor lie inside it, do not overlap and leave no gap."""
    size, shown = entry["size"], printable(key, limit=80)
    boxes = []
    for chunk in entry["chunks"]:
        begin, extent = chunk["offsets"], chunk["sizes"]
        if len(begin) != len(size) or len(extent) != len(size):
            raise bad(f"parts of '{shown}' with {len(size)} dimensions, found one of {len(extent)}")
        if any(b + n > s for b, n, s in zip(begin, extent, size, strict=True)):
            raise bad(f"parts inside '{shown}' of shape {size}, found one of shape {extent} at {begin}")
        if math.prod(extent):
            boxes.append((begin, extent))
    held = sum(math.prod(extent) for _, extent in boxes)
    if held != math.prod(size) or _overlap(boxes):
        raise bad(f"parts that make up '{shown}' of shape {size}, found gaps or parts that overlap")


def _overlap(boxes: list[tuple[list[int], list[int]]]) -> bool:
    """Whether two boxes share a point: a sweep along the axis on which most of them begin at different places."""
    dims = len(boxes[0][0]) if boxes else 0
    axis = max(range(dims), key=lambda d: len({begin[d] for begin, _ in boxes}), default=None)
    if axis is None:
        return len(boxes) > 1  # several values of one scalar
    ordered = sorted(
        ((begin, [b + n for b, n in zip(begin, extent, strict=True)]) for begin, extent in boxes), key=lambda box: box[0][axis]
    )
    for i, (begin, end) in enumerate(ordered):
        for other, stop in ordered[i + 1 :]:
            if other[axis] >= end[axis]:
                break
            if all(a < d and c < b for a, b, c, d in zip(begin, end, other, stop, strict=True)):
                return True
    return False


def _take(folder: Path, name: str, end: int, asked: list[tuple[Tensor, dict[str, Any], str]], digest: Any, budget: int) -> int:
    """Copy the parts in one file into their tensors; returns the file's size."""
    places = [
        (key, chunk["position"], chunk["length"], str(target.dtype).removeprefix("torch."), chunk["sizes"])
        for target, chunk, key in asked
    ]
    file, size = open_beside(folder, name, ("file", ".metadata", "folder"), bad)
    if size < end:
        file.close()
        raise bad(f"{end} bytes in '{printable(name, limit=80)}', found a file of {size} bytes")
    with file, tempfile.NamedTemporaryFile("w", suffix=".json") as listed:
        json.dump(places, listed)
        listed.flush()
        found = parse_apart(file, "distributed parts", size, budget, listed.name).candidates["parts"]
        for number, (target, chunk, _) in enumerate(asked):
            box = tuple(slice(b, b + n) for b, n in zip(chunk["offsets"], chunk["sizes"], strict=True))
            target[box].copy_(found[str(number)])
        file.seek(0)
        digest.update(f"{name} ".encode())
        while block := file.read(1 << 24):
            digest.update(block)
    return size
