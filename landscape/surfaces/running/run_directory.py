"""The directory of a surface run: an immutable manifest, the directions, and the journal."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from landscape.errors import MalformedError, UsageError
from landscape.machine import progress
from landscape.machine.files import create, sweep, unwritable, write
from landscape.machine.json_values import differences
from landscape.network.identity.hashes import sha256
from landscape.surfaces.axes.directions import Direction
from landscape.surfaces.running.journal import Journal
from landscape.version import __version__

MANIFEST, DIRECTIONS, VECTORS = "manifest.json", "directions.safetensors", "vectors"
_SCHEMA = 1
_MOST_THREADS = 4096  # largest plausible number of threads


class Run:
    """A surface that is being computed.

    Args:
        folder: folder of manifest and journal, created if missing; None keeps the run in memory, and it cannot be continued.
        inputs: everything that determines the values, each a short text or number: digests of weights, data and directions,
            span, grid, dtype, "device", ... Versions, the kind of processor or GPU and the number of threads are added.

    Raises:
        UsageError: the folder has another surface; the message says what differs.

    Attributes:
        journal: the values so far; a remark reports how many were found and what was set aside.
    """

    def __init__(self, folder: Path | None, inputs: dict[str, Any]) -> None:
        self.folder = folder
        self._memory: dict[int, Tensor] = {}
        self.manifest: dict[str, Any] = {"schema": _SCHEMA, "threads": torch.get_num_threads()} | _machinery(inputs) | inputs
        if folder is not None:
            self._agree(folder)
            sweep(folder)
            sweep(folder / VECTORS)
            sweep(folder / "journal")
        self.digest = sha256([json.dumps(self.manifest, sort_keys=True)], delimited=False)
        self.journal = Journal(None if folder is None else folder / "journal", self.digest)
        if self.journal.records:
            progress.remark(f"continuing {folder}: found {len(self.journal.records):,} values")
        for problem in self.journal.problems:
            progress.remark(f"journal: {problem}")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Use the number of threads of the first run, on which the last bits depend; close the journal at the end."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.manifest["threads"])
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            self.journal.close()

    def keep_vectors(self, number: int, vectors: Tensor) -> None:
        """Save a point's eigenvectors for the points that start from them."""
        if self.folder is None:
            self._memory[number] = vectors
            return
        try:
            (self.folder / VECTORS).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder / VECTORS, error) from None
        write(self._vectors(number), save({"vectors": vectors.contiguous().cpu()}))

    def vectors(self, number: int, like: Tensor) -> Tensor | None:
        """A point's eigenvectors; None if they are not saved."""
        if self.folder is None:
            return self._memory.get(number)
        if not self._vectors(number).exists():
            return None
        try:
            with safe_open(self._vectors(number), "pt") as file:
                return file.get_tensor("vectors").to(like)
        except (OSError, SafetensorError):
            return None

    def drop_vectors(self, number: int) -> None:
        """Delete a point's eigenvectors, which no point needs any more."""
        self._memory.pop(number, None)
        if self.folder is not None:
            with suppress(OSError):
                self._vectors(number).unlink(missing_ok=True)

    def drop_all_vectors(self) -> None:
        """Delete all eigenvectors; the surface is finished."""
        self._memory.clear()
        if self.folder is not None:
            for path in list((self.folder / VECTORS).glob("*.safetensors")):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _vectors(self, number: int) -> Path:
        assert self.folder is not None  # checked by the callers
        return self.folder / VECTORS / f"{number}.safetensors"

    def _agree(self, folder: Path) -> None:
        """Write the manifest if there is none; else take its number of threads and raise if other entries differ."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        path = create(folder / MANIFEST, (json.dumps(self.manifest, indent=2) + "\n").encode())
        try:
            there = json.loads(path.read_text())
            threads = int(there["threads"])
            if not 1 <= threads <= _MOST_THREADS:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise MalformedError(
                f"expected the manifest of a surface in {path}, found a damaged one", fix="delete the folder, or choose another"
            ) from None
        self.manifest["threads"] = threads
        ours = json.loads(json.dumps(self.manifest))
        differing = [k for k in sorted({*there, *ours}) if there.get(k) != ours.get(k)]
        if differing:
            raise UsageError(
                f"expected the inputs of the surface in {folder}, found other inputs: {differences(there, ours)}",
                fix="choose another directory, or undo the change",
            )


def _machinery(inputs: dict[str, Any]) -> dict[str, Any]:
    """Properties of software and hardware that affect the last bits."""
    found: dict[str, Any] = {
        "landscape": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        # Functions are identified by their bytecode, which differs between minor versions of Python.
        "python": ".".join(platform.python_version_tuple()[:2]),
        # torch's kernels for different processors differ in the last bits.
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    device = torch.device(inputs.get("device", "cpu"))
    if device.type == "cuda":
        found |= {
            "GPU": torch.cuda.get_device_name(device),
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
        }
    return found


def agreed(folder: Path, name: str, settle: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The value that the first process stored under a name; the first process stores `settle()`.

    Raises:
        MalformedError: the file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if not path.exists():
        create(path, (json.dumps(settle(), indent=2) + "\n").encode())
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise MalformedError(f"expected stored settings in {path}, found a damaged file", fix="delete the folder") from None


def store_directions(folder: Path, directions: Sequence[Direction]) -> None:
    """Save directions for continued runs. Directions that are already saved are not overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [
        {
            "name": d.name,
            "norm": d.norm,
            "buffers": d.buffers is not None,
            "orthogonalized": d.orthogonalized,
            "fixed": None if d.fixed is None else list(d.fixed),
        }
        for d in directions
    ]
    tensors = {f"{i}": d.vector.contiguous().cpu() for i, d in enumerate(directions)}
    for i, d in enumerate(directions):
        tensors |= {f"{i}.{n}": b.contiguous().cpu() for n, b in (d.buffers or {}).items()}
    create(folder / DIRECTIONS, save(tensors, {"directions": json.dumps(kept)}))


def stored_directions(folder: Path, like: Tensor) -> tuple[Direction, ...] | None:
    """The directions that `store_directions` saved; None if there are none.

    Raises:
        MalformedError: the file is damaged.
    """
    path = folder / DIRECTIONS
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            kept = json.loads(file.metadata()["directions"])
            names = list(file.keys())
            out = []
            for i, d in enumerate(kept):
                own = [n for n in names if n.startswith(f"{i}.")]
                buffers = {n.partition(".")[2]: file.get_tensor(n).to(like) for n in own} if d["buffers"] else None
                vector, orthogonalized = file.get_tensor(f"{i}").to(like), d.get("orthogonalized", False)
                fixed = None if d.get("fixed") is None else tuple(d["fixed"])
                out.append(Direction(d["name"], vector, d["norm"], buffers, orthogonalized, fixed))
            return tuple(out)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise MalformedError(
            f"expected the directions of a surface in {path}, found a damaged file", fix="delete it, or choose another --out"
        ) from None


def digest(*arrays: Tensor | np.ndarray) -> str:
    """SHA-256 of the values, shapes and dtypes of arrays."""
    whole = [np.ascontiguousarray(a.detach().cpu().numpy() if isinstance(a, Tensor) else a) for a in arrays]
    return sha256((piece for a in whole for piece in (f"{a.dtype.str}{a.shape}", a.data)), delimited=False)
