"""Builders of checkpoint bytes, good and hostile, that share no code with the readers."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch


class Evil:
    """Pickles to a call of os.system that would create the canary."""

    def __init__(self, canary: Path) -> None:
        self.command = f"touch '{canary}'"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Stored:
    """Stands for a storage in a handmade pickle."""

    def __init__(self, numel: int, key: str = "0", location: str = "cpu", cls: type = torch.FloatStorage) -> None:
        self.reference = ("storage", cls, key, location, numel)


class Rebuilt:
    """Stands for a tensor in a handmade pickle, with whatever it claims."""

    def __init__(self, storage: Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.claim = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.claim


class _Pickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        return item.reference if isinstance(item, Stored) else None


def dumps(value: Any, protocol: int = 2) -> bytes:
    """A pickle in which `Stored` is a persistent reference."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def archive(
    data: bytes, records: dict[str, bytes] | None = None, *, more: dict[str, bytes] | None = None, **options: Any
) -> bytes:
    """A zip as torch.save writes it, with the given pickle and storages."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", b"little")
        for key, content in (records or {}).items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", b"3\n")
        for name, content in (more or {}).items():
            file.writestr(name, content)
    return stream.getvalue()


def claims(numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *, held: int = 16, **stored: Any) -> bytes:
    """A checkpoint of one tensor `w` that makes claims on a storage of `held` bytes."""
    return archive(dumps({"w": Rebuilt(Stored(numel, **stored), offset, size, stride)}), {"0": b"\0" * held})


def saved(value: Any, *, legacy: bool = False, **options: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy, **options)
    return stream.getvalue()


def legacy(value: bytes, storages: list[tuple[str, bytes, int]] = ()) -> bytes:  # type: ignore[assignment]  # an empty default
    """torch.save's format before zip, around a given pickle."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = pickle.dumps([key for key, _, _ in storages], 2)
    return head + value + tail + b"".join(struct.pack("<q", numel) + content for _, content, numel in storages)


def tar(members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def safetensors(header: bytes, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file around a given header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + payload


def network() -> dict[str, torch.Tensor]:
    """A small state dict."""
    generator = torch.Generator().manual_seed(0)
    return {
        "fc1.weight": torch.randn(5, 4, generator=generator),
        "fc1.bias": torch.randn(5, generator=generator),
        "fc2.weight": torch.randn(3, 5, generator=generator),
        "fc2.bias": torch.randn(3, generator=generator),
    }
