"""The directory in which a surface is computed: an immutable manifest, the directions, and the journal."""

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
_MOST_THREADS = 4096  # more is no number of threads


class Run:
    """A surface in the making.

    Args:
        folder: of manifest and journal, made if missing; None for one that lives in memory and cannot be resumed.
        inputs: all that determines the values, each a short text or number: digests of weights and data, of the directions,
            span, grid, dtype, "device", ... Versions, the kind of processor or GPU and the number of threads are added.

    Raises:
        UsageError: the folder holds another surface; the message says what differs.

    Attributes:
        journal: what is known so far; what was there, and what had to be set aside, is remarked upon.
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
            progress.remark(f"going on with {folder}: {len(self.journal.records):,} values were there")
        for problem in self.journal.problems:
            progress.remark(f"journal: {problem}")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute with the threads that the surface was begun with, on which the last bits depend; close the journal."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.manifest["threads"])
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            self.journal.close()

    def keep_vectors(self, number: int, vectors: Tensor) -> None:
        """Keep a point's eigenvectors for those that start from them."""
        if self.folder is None:
            self._memory[number] = vectors
            return
        try:
            (self.folder / VECTORS).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder / VECTORS, error) from None
        write(self._vectors(number), save({"vectors": vectors.contiguous().cpu()}))

    def vectors(self, number: int, like: Tensor) -> Tensor | None:
        """A point's eigenvectors; None if they are not there."""
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
        """Let eigenvectors go that nobody starts from any more."""
        self._memory.pop(number, None)
        if self.folder is not None:
            with suppress(OSError):
                self._vectors(number).unlink(missing_ok=True)

    def drop_all_vectors(self) -> None:
        """Let all eigenvectors go: the surface is done."""
        self._memory.clear()
        if self.folder is not None:
            for path in list((self.folder / VECTORS).glob("*.safetensors")):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _vectors(self, number: int) -> Path:
        assert self.folder is not None  # callers have looked
        return self.folder / VECTORS / f"{number}.safetensors"

    def _agree(self, folder: Path) -> None:
        """Write the manifest if there is none; else take its threads and refuse what differs."""
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
                f"expected to go on with the surface in {folder}, found other inputs: {differences(there, ours)}",
                fix="choose another directory, or undo the change",
            )


def _machinery(inputs: dict[str, Any]) -> dict[str, Any]:
    """What decides about the last bits beside the inputs."""
    found: dict[str, Any] = {
        "landscape": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        # Functions are told apart by their bytecode, which the minor versions of Python write differently.
        "python": ".".join(platform.python_version_tuple()[:2]),
        # The kernels that torch chooses for a processor differ in the last bits.
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
    """What was settled under a name by the first process that came here; what `settle` says, if that is this one.

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
        raise MalformedError(f"expected what was settled in {path}, found a damaged file", fix="delete the folder") from None


def store_directions(folder: Path, directions: Sequence[Direction]) -> None:
    """Keep directions beside the manifest, so that a run that goes on need not compute them again; the first ones stay."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [
        {"name": d.name, "norm": d.norm, "buffers": d.buffers is not None, "orthogonalized": d.orthogonalized}
        for d in directions
    ]
    tensors = {f"{i}": d.vector.contiguous().cpu() for i, d in enumerate(directions)}
    for i, d in enumerate(directions):
        tensors |= {f"{i}.{n}": b.contiguous().cpu() for n, b in (d.buffers or {}).items()}
    create(folder / DIRECTIONS, save(tensors, {"directions": json.dumps(kept)}))


def stored_directions(folder: Path, like: Tensor) -> tuple[Direction, ...] | None:
    """The directions that `store_directions` kept; None if there are none.

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
                out.append(Direction(d["name"], vector, d["norm"], buffers, orthogonalized))
            return tuple(out)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise MalformedError(
            f"expected the directions of a surface in {path}, found a damaged file", fix="delete it, or choose another --out"
        ) from None


def digest(*arrays: Tensor | np.ndarray) -> str:
    """SHA-256 of the values, shapes and dtypes of some arrays."""
    whole = [np.ascontiguousarray(a.detach().cpu().numpy() if isinstance(a, Tensor) else a) for a in arrays]
    return sha256((piece for a in whole for piece in (f"{a.dtype.str}{a.shape}", a.data)), delimited=False)
