"""Row 12: cut and flipped files end in an error of ours or in tensors that the file declares; nothing else, ever."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import safetensors.torch
import torch

from landscape import checkpoints
from landscape.errors import LandscapeError

pytestmark = pytest.mark.usefixtures("quick")
BUDGET = 32 << 20


def content(kind: str) -> bytes:
    """A good checkpoint of some hundred bytes to some kilobytes."""
    state = hostile.network() | {"n": torch.tensor(3), "h": torch.ones(3, dtype=torch.float16)}
    if kind == "safetensors":
        return safetensors.torch.save(state, {"format": "pt"})
    return hostile.saved({"state_dict": state, "epoch": 3, "metric": np.float64(0.5)}, legacy=kind == "legacy")


def outcome(path: Path) -> checkpoints.Checkpoint | None:
    """Read a file: a checkpoint, or None for an error of ours; every other exception is a failure of the test."""
    try:
        found = checkpoints.read(path, budget=BUDGET)
        for name in found.candidates:
            found.weights(name)
    except LandscapeError as error:
        if error.exit_code not in (2, 3, 4, 5, 6) or not str(error).isprintable():
            raise
        return None
    return found


def check(kind: str, data: bytes, path: Path, good: dict[str, torch.Tensor]) -> bool:
    """Write, read and judge one damaged file; says whether it was read."""
    path.write_bytes(data)
    found = outcome(path)
    if found is None:
        return False
    tensors = [item for state in found.candidates.values() for item in state.values()]
    assert sum(item.numel() * item.element_size() for item in tensors) <= len(data)
    if kind == "zip":  # every byte that matters has a checksum
        (state,) = found.candidates.values()
        assert state.keys() == good.keys()
        assert all(torch.equal(state[key], item) for key, item in good.items())
    elif kind == "safetensors":
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        (state,) = found.candidates.values()
        assert {key: list(item.shape) for key, item in state.items()} == {key: item["shape"] for key, item in header.items()}
        for key, item in state.items():
            begin, end = header[key]["data_offsets"]
            assert item.reshape(-1).view(torch.uint8).numpy().tobytes() == data[8 + length + begin : 8 + length + end]
    return True


def boundaries(kind: str, data: bytes) -> Iterator[int]:
    """Every place where one record of the format ends and another begins, and one byte to either side."""
    marks = {0, len(data) - 1}
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            marks |= {entry.header_offset for entry in file.infolist()} | {file.start_dir}
            marks |= {entry.header_offset + 30 + len(entry.filename) for entry in file.infolist()}
        marks |= {i for i in range(len(data)) if data[i : i + 2] == b"PK"}
    elif kind == "safetensors":
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__")
        marks |= {8, 8 + length} | {8 + length + offset for item in header.values() for offset in item["data_offsets"]}
    else:
        marks |= {i + 1 for i in range(len(data)) if data[i : i + 1] == b"."}
        marks |= {i for i in range(len(data)) if data[i : i + 2] == b"\x80\x02"}
    near = {mark + step for mark in marks for step in (-1, 0, 1)}
    return iter(sorted(cut for cut in near if 0 < cut < len(data)))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_cut_at_every_boundary(tmp_path: Path, kind: str) -> None:
    data = content(kind)
    for cut in boundaries(kind, data):
        assert not check(kind, data[:cut], tmp_path / "cut", {}), f"read a file cut at {cut} of {len(data)}"


def flips(kind: str, count: int, path: Path, seed: int) -> None:
    """`count` files, each with one to three bytes changed."""
    data, chance = content(kind), random.Random(seed)
    path.write_bytes(data)
    whole = outcome(path)
    assert whole is not None
    (good,) = whole.candidates.values()
    for _ in range(count):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        check(kind, bytes(damaged), path, good)


@pytest.mark.parametrize(("kind", "count"), [("zip", 80), ("legacy", 80), ("safetensors", 40)])
def test_200_flips(tmp_path: Path, kind: str, count: int) -> None:
    flips(kind, count, tmp_path / "flipped", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("zip", 3000), ("legacy", 3000), ("safetensors", 4000)])
def test_10_000_flips(tmp_path: Path, kind: str, count: int) -> None:
    flips(kind, count, tmp_path / "flipped", seed=1)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_flips_inside_the_pickle_alone(tmp_path: Path, kind: str) -> None:
    """Flips that keep the checksum right reach the dry run and torch's unpickler themselves."""
    chance = random.Random(2)
    storage = hostile.Stored(4)
    if kind == "legacy":
        storage.reference = (*storage.reference, None)  # type: ignore[assignment]  # the legacy form has a sixth item
    data = hostile.dumps(
        {"state_dict": {"w": hostile.Rebuilt(storage, 0, (2, 2), (2, 1))}, "x": np.float64(1.5), "y": [1, {2: ()}]}
    )
    build: Callable[[bytes], bytes] = (
        (lambda pickled: hostile.archive(pickled, {"0": b"\0" * 16}))
        if kind == "zip"
        else (lambda pickled: hostile.legacy(pickled, [("0", b"\0" * 16, 4)]))
    )
    path = tmp_path / "flipped"
    path.write_bytes(build(data))
    assert outcome(path) is not None
    for _ in range(60):
        damaged = bytearray(data)
        damaged[chance.randrange(2, len(data))] = chance.randrange(256)
        path.write_bytes(build(bytes(damaged)))
        found = outcome(path)
        if found is not None:
            sizes: list[Any] = [
                item.numel() * item.element_size() for state in found.candidates.values() for item in state.values()
            ]
            assert sum(sizes) <= BUDGET
