"""A block of long vectors stored on the device, in host memory, on disk, or distributed over processes."""

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.products import column_chunks, gram, inner_products, norm, rotate_rows

Where = Literal["device", "host", "disk"]

# Bytes of a basis on disk that are mapped into memory at a time.
STREAM = 32 << 20


@runtime_checkable
class Group(Protocol):
    """Processes that work together, each with the same vectors; see `landscape.machine.distributed.Group`."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def sum_(self, t: Tensor) -> Tensor:
        """Sum over the processes, in place."""

    def concat(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts of all processes, of unequal sizes, along the last dimension."""


@dataclass(frozen=True)
class Alone:
    """A group of one process."""

    rank: int = 0
    size: int = 1

    def sum_(self, t: Tensor) -> Tensor:
        """The tensor itself."""
        return t

    def concat(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The part itself."""
        return part


@dataclass(frozen=True)
class Place:
    """Where a Krylov basis is stored; results are equal up to rounding.

    Attributes:
        where: "device", where the operator works; "host", in CPU memory, where the CPU then orthogonalizes; or "disk", in an
            unnamed memory-mapped file, which disappears with the process however that ends.
        folder: of the file; default $TMPDIR, else /var/tmp, else the system's default.
        group: each process stores its share of the columns; input and output vectors are complete in each process.
        own: number of columns of this process, where input and output vectors are not complete but these columns only, as of
            weights that are sharded themselves; None for complete vectors.
    """

    where: Where = "device"
    folder: Path | None = None
    group: Group = Alone()
    own: int | None = None


class Rows:
    """Up to `count` vectors of length P, with projections, rotations and linear combinations computed where they are stored.

    Operations on a vector use its `part`: the columns of this process, on the device of the rows. For a single process on the
    device the part is the vector itself, and all operations are ordinary ones on one tensor.

    Args:
        count: number of rows to allocate.
        dim: P.
        dtype, device: of input and output vectors.
        place: where the rows are stored.

    Raises:
        UsageError: the disk has too little space.
    """

    def __init__(
        self, count: int, dim: int, dtype: torch.dtype, device: torch.device | str, place: Place | None = None
    ) -> None:
        place = place or Place()
        self.group, self.device = place.group, torch.device(device)
        share, more = divmod(dim, self.group.size)
        self.sizes = [share + (rank < more) for rank in range(self.group.size)]
        begin = sum(self.sizes[: self.group.rank])
        self.columns = slice(begin, begin + self.sizes[self.group.rank])
        self._complete = place.own is None
        if place.own is not None:
            self.columns = slice(0, place.own)
        self.width = dim if place.own is None else place.own  # of input and output vectors
        shape = (count, self.columns.stop - self.columns.start)
        self._store: _Memory = (
            _Disk(shape, dtype, place.folder)
            if place.where == "disk"
            else _Memory(torch.empty(shape, dtype=dtype, device="cpu" if place.where == "host" else device))
        )

    def __len__(self) -> int:
        return len(self._store.block)

    def part(self, w: Float[Tensor, "*k P"]) -> Tensor:
        """This process's columns of complete vectors."""
        return w[..., self.columns].to(self._store.block.device)

    def __setitem__(self, index: int | slice, part: Tensor) -> None:
        """Write the parts of vectors."""
        self._store.write(index, part)

    def __getitem__(self, index: slice) -> Float[Tensor, "k P"]:
        """Complete vectors; views if one process stores them on the device."""
        return self._whole(self._store.read(index))

    def move(self, source: int, target: int) -> None:
        """Copy a row."""
        self[target] = self._store.read(slice(source, source + 1))[0]

    def norm(self, part: Tensor) -> float:
        """Euclidean norm of the complete vector, accumulated in float64."""
        length = norm(part)
        return length if self.group.size == 1 else float(self._sum(torch.tensor(length**2, dtype=torch.float64))) ** 0.5

    def orthogonalize(self, w: Tensor, count: int) -> tuple[Tensor, Float[Tensor, " count"]]:
        """The part w minus its projection on the first `count` rows, and the coefficients of that projection.

        Classical Gram-Schmidt, done twice: two GEMVs in each pass, and as orthogonal as modified Gram-Schmidt with
        reorthogonalization (Giraud, Langou, Rozložník 2005). The argument is not modified, since a matvec may return a tensor
        that it still needs.
        """
        first = self.coefficients(w, count)
        rest, second = torch.empty_like(w), torch.zeros_like(first)
        for columns, block in self._store.stream(slice(count)):  # the second pass begins where the first one ends
            torch.addmv(w[columns], block.T, first.to(w.dtype), alpha=-1, out=rest[columns])
            second += inner_products(block, rest[columns])
        second = self._sum(second)
        for columns, block in self._store.stream(slice(count)):
            rest[columns].addmv_(block.T, second.to(w.dtype), alpha=-1)
        return rest, first + second

    def coefficients(self, w: Tensor, count: int) -> Float[Tensor, " count"]:
        """Inner products of the part w with the first `count` rows, float64."""
        found = torch.zeros(count, dtype=torch.float64, device=w.device)
        for columns, block in self._store.stream(slice(count)):
            found += inner_products(block, w[columns])
        return self._sum(found)

    def rotate(self, begin: int, coefficients: np.ndarray) -> None:
        """Overwrite the k rows from `begin` by coefficientsᵀ @ the m rows from there; coefficients (m, k)."""
        for _, block in self._store.stream(slice(begin, begin + len(coefficients))):
            rotate_rows(block, coefficients)

    def combine(self, begin: int, coefficients: np.ndarray) -> Float[Tensor, "*k P"]:
        """coefficients @ the rows from `begin`, as complete vectors; coefficients (m,) or (k, m)."""
        block = self._store.block
        turn = torch.from_numpy(np.ascontiguousarray(coefficients)).to(block)
        parts = block.new_empty(*turn.shape[:-1], block.shape[1])
        for columns, rows in self._store.stream(slice(begin, begin + turn.shape[-1])):
            parts[..., columns] = turn @ rows
        return self._whole(parts)

    def gram(self, vectors: Float[Tensor, "k P"]) -> tuple[np.ndarray, np.ndarray]:
        """Inner products of the rows with each other, (count, count), and with complete vectors, (count, k), in float64."""
        own, others = np.zeros((len(self), len(self))), np.zeros((len(self), len(vectors)))
        parts = self.part(vectors)
        for columns, block in self._store.stream(slice(len(self))):
            own += gram(block, block)
            others += gram(block, parts[:, columns])
        both = self._sum(torch.from_numpy(np.hstack((own, others)))).numpy()
        return both[:, : len(self)], both[:, len(self) :]

    def _whole(self, parts: Tensor) -> Tensor:
        if not self._complete:
            return parts.to(self.device)
        return self.group.concat(parts.to(self.device), self.sizes)

    def _sum(self, t: Tensor) -> Tensor:
        """The sum over the processes, which may communicate only on the operator's device."""
        return t if self.group.size == 1 else self.group.sum_(t.to(self.device)).to(t.device)


class _Memory:
    """Rows in one tensor."""

    def __init__(self, block: Tensor) -> None:
        self.block = block

    def read(self, index: slice) -> Tensor:
        return self.block[index]

    def write(self, index: int | slice, part: Tensor) -> None:
        self.block[index] = part

    def stream(self, index: slice) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of columns of these rows, as views; in memory a single chunk."""
        yield slice(0, self.block.shape[1]), self.block[index]


class _Disk(_Memory):
    """Rows in a mapped file. Pages are released after use: the system's cache may keep them, this process does not."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, folder: Path | None) -> None:
        size = max(shape[0] * shape[1] * dtype.itemsize, 1)
        folder = folder or scratch()
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # has no name, or loses it when closed
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a signal later
                file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise UsageError(
                f"expected {size / 2**30:.1f} GiB of disk in {folder} for a basis of vectors, found {error.strerror}",
                fix="set TMPDIR to a folder with enough space, or pass a larger --memory",
            ) from error
        count = shape[0] * shape[1]
        flat = torch.frombuffer(self._map, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
        super().__init__(flat.reshape(shape))

    def read(self, index: slice) -> Tensor:
        out = self.block[index].clone()
        self._release()
        return out

    def write(self, index: int | slice, part: Tensor) -> None:
        super().write(index, part)
        self._release()

    def stream(self, index: slice) -> Iterator[tuple[slice, Tensor]]:
        rows = self.block[index]
        # Whole pages of every row, in pieces that inner_products does not split further.
        size = max(STREAM // (max(len(rows), 1) * rows.element_size()) >> 13 << 13, 1 << 13)
        for columns in column_chunks(rows.shape[1], size):
            yield columns, rows[:, columns]
            self._release()

    def _release(self) -> None:
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def scratch() -> Path:
    """The folder for large temporary files; /tmp is often in memory, /var/tmp is not."""
    return Path(os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()))


def orthonormal_rows(block: Float[Tensor, "k P"]) -> Float[Tensor, "r P"]:
    """Orthonormal basis of the row space; rows that depend on earlier ones are dropped, so r <= k."""
    out = Rows(len(block), block.shape[1], block.dtype, block.device)
    kept = 0
    eps = torch.finfo(block.dtype).eps
    largest = max((norm(row) for row in block), default=0.0)
    for row in block:
        w, _ = out.orthogonalize(row, kept)
        length = norm(w)
        if length > 100 * eps * largest:
            # An almost dependent row lost digits above; a further pass restores orthogonality to rounding.
            w, _ = out.orthogonalize(w / length, kept)
            out[kept] = w / norm(w)
            kept += 1
    return out[:kept]
