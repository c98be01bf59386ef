"""Memory budget of a computation, and how batches, kept graphs, blocks of vectors and Krylov bases are sized to fit it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from landscape.errors import UsageError
from landscape.machine.sizes import said

# Share of the free memory that a run takes by default.
_SHARE = 0.8
# A longer Krylov basis needs fewer products between restarts, and products dominate the cost; beyond these lengths little is
# gained.
_BASIS_BYTES, _LONGEST = 256 << 20, 512
# Most vectors in a block product: with this many, the cost of the first-order pass is already well shared.
_BLOCK = 8
# Vectors alive for each vector of a block: itself, its product, the sum over batches, and the solver's copy.
_EACH = 4
# Vectors kept from the first probe of a density, from which the eigenpairs at both ends are started.
_STARTS = 10
# Vectors that an eigensolver holds beside its basis and its products, when memory is short.
_BESIDE = 3

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000), ("", 1024))
}


_MOST = 2**63  # largest size in bytes


def parsed(text: str) -> int:
    """Number of bytes in a size such as 512MiB, 8GiB, 8GB or 1000000.

    Raises:
        UsageError: the text is not a size.

    Example:
        >>> parsed("8GiB"), parsed("1.5 MB"), parsed("1000000"), parsed("2g")
        (8589934592, 1500000, 1000000, 2147483648)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    units = {name.lower(): size for name, size in _UNITS.items()}
    if match is None or match[2].lower() not in units or not 0 < float(match[1]) * units[match[2].lower()] < _MOST:
        raise UsageError(f"expected a memory size, found {text!r}", fix="for example 512MiB, 8GiB, 8GB, or plain bytes")
    return int(float(match[1]) * units[match[2].lower()])


def allowed(device: torch.device) -> int:
    """Bytes that a run may take of the memory now free on a device; processes on one machine share its memory."""
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_SHARE * min(_free()) / _processes_here())


def _processes_here() -> int:
    """Number of processes of this run on this machine, from torchrun's environment; 1 if it is not set or not readable."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(text), 1) if text.isascii() and text.isdecimal() and len(text) < 10 else 1


def _free() -> Iterator[int]:
    """Bytes that are free on the machine, and in each control group of this process."""
    try:
        meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        yield int(meminfo["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 if hasattr(os, "sysconf") else 4 << 30
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, kinds, path in (line.split(":", 2) for line in lines):
        if kinds and "memory" not in kinds.split(","):
            continue
        root = Path("/sys/fs/cgroup/memory" if kinds else "/sys/fs/cgroup")
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            yield from _left(folder, limit, used)


def _left(folder: Path, limit: str, used: str) -> Iterator[int]:
    """Bytes left in one control group, if it has a limit; file cache counts as free."""
    try:
        most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
        numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield max(most - taken + int(numbers.get("total_inactive_file", numbers.get("inactive_file", "0"))), 0)
    except (OSError, ValueError):  # the group is not visible here, or its limit is "max"
        return


@dataclass(frozen=True)
class Affine:
    """A number of bytes that is affine in the number of samples."""

    once: float
    each: float

    def of(self, samples: int) -> float:
        """Bytes for a number of samples."""
        return self.once + self.each * samples

    def plus(self, other: "Affine") -> "Affine":
        """Both amounts together."""
        return Affine(self.once + other.once, self.each + other.each)

    def times(self, factor: float) -> "Affine":
        """This amount times a factor."""
        return Affine(factor * self.once, factor * self.each)


@dataclass(frozen=True)
class Basis:
    """A Krylov basis: number of vectors before a restart, where they are stored, and their bytes in each process."""

    size: int
    where: Literal["device", "host", "disk"]
    bytes: int

    def __str__(self) -> str:
        where = {"device": "in memory", "host": "in host memory", "disk": "on disk"}[self.where]
        return f"basis of {self.size} vectors {said(self.bytes)} {where}"


@dataclass(frozen=True)
class Plan:
    """How the work on one network is sized to fit its budget; the same in all processes.

    Attributes:
        budget: bytes in each process, beyond what Python and its libraries take.
        fixed: bytes of network, data and the workspace of arithmetic.
        graphs: peak bytes of the graphs and activations of a product.
        kept: whether first-order graphs are kept between products.
        batch: most samples in one pass.
        dim: number of weights.
        row: bytes of one vector of weights.
        host: bytes of CPU memory that are left for a basis; 0 if the network itself is on the CPU.
        check: peak bytes of the checks and the trial before the first product.
    """

    budget: int
    fixed: int
    graphs: int
    kept: bool
    batch: int
    dim: int
    row: int
    host: int = 0
    check: int = 0

    @property
    def rest(self) -> int:
        """Bytes left for vectors."""
        return max(self.budget - self.fixed - self.graphs, 0)

    @property
    def block(self) -> int:
        """Number of vectors in a block product."""
        return min(max(self.rest // (_EACH * self.row), 1), _BLOCK)

    def basis(self, wanted: int, processes: int = 1) -> Basis:
        """The basis for `wanted` eigenpairs, of which each of `processes` holds its share.

        Where one of the usual length does not fit, it is shorter, which takes more products but no disk; the solver then holds
        few vectors beside it.
        """
        if self.dim <= 40:
            return Basis(self.dim, "device", self.dim * self.row)
        least = min(_usual(wanted), self.dim - 1)
        best = max(least, min(_LONGEST, _BASIS_BYTES // (8 * self.dim)))
        share = self._share(processes)
        fit = (self.rest - (4 * wanted + 6) * self.row) // share - 1
        if fit >= least:
            size = min(best, fit, self.dim - 1)
            return Basis(size, "device", (size + 1) * share)
        fit = min((self.rest - _BESIDE * self.row) // share - 1, least - 1)
        if fit >= wanted + max(6, wanted // 2):
            return Basis(fit, "device", (fit + 1) * share)
        return Basis(least, *self._elsewhere((least + 1) * share))

    def directions(self, count: int, beside: int) -> Basis:
        """`count` vectors that are no Krylov basis, and where they fit beside so many at work: in memory, or elsewhere."""
        size = count * self.row
        fits = size + beside * self.row <= self.rest
        return Basis(count, "device", size) if fits else Basis(count, *self._elsewhere(size))

    def beside(self, basis: Basis, wanted: int) -> int:
        """Vectors at work beside this basis for `wanted` eigenpairs."""
        return _BESIDE if basis.size < min(_usual(wanted), self.dim - 1) else 4 * wanted + 6

    def together(self, *uses: tuple[Basis, int]) -> int:
        """Vectors beside the largest of bases used one after another, each with its own number of vectors beside it."""
        held = [u.bytes if u.where == "device" else 0 for u, _ in uses]
        most = max(size + count * self.row for size, (_, count) in zip(held, uses, strict=True))
        return -((max(held) - most) // self.row)

    def probes(self, steps: int, wanted: int, processes: int = 1) -> tuple[int, Basis]:
        """How many of `wanted` probes of a density advance together, and the basis that holds them all.

        Where not even one probe's basis fits, each holds the last two of its vectors only: `Basis.size` is then
        `2 * together`.
        """
        share = self._share(processes)
        together = max(self.rest - _STARTS * self.row, 0) // (steps * share + _EACH * self.row)
        if together >= 1:
            together = min(together, wanted)
            return together, Basis(together * steps, "device", together * steps * share)
        if self.host >= steps * share:
            together = min(max(self.rest // (_EACH * self.row), 1), wanted, self.host // (steps * share))
            return together, Basis(together * steps, "host", together * steps * share)
        together = min(max(self.rest // (2 * share + _EACH * self.row), 1), wanted)
        return together, Basis(together * 2, "device", together * 2 * share)

    def _share(self, processes: int) -> int:
        """Bytes of one process's share of a vector."""
        return -(-self.dim // processes) * (self.row // self.dim)

    def _elsewhere(self, size: int) -> tuple[Literal["host", "disk"], int]:
        return ("host" if size <= self.host else "disk"), size

    def forecast(self, *uses: Basis, vectors: int = 0) -> int:
        """Peak bytes if these bases are used one after another, besides `vectors` working vectors."""
        held = max((u.bytes for u in uses if u.where == "device"), default=0)
        return self.fixed + max(self.graphs + held + vectors * self.row, self.check)

    def line(self, *uses: Basis, vectors: int = 0) -> str:
        """The forecast as one line of text."""
        parts = [
            f"network, data and overhead {said(self.fixed)}",
            f"graphs {said(self.graphs)}{' kept' if self.kept else ''} at {self.batch} samples a pass",
            *(str(u) for u in uses),
            f"{vectors} vectors at work {said(vectors * self.row)}",
        ]
        needed = self.forecast(*uses, vectors=vectors)
        room = f" of {said(self.budget)}"
        if needed > self.budget:
            room = (
                f", more than the budget of {said(self.budget)}; it is tried all the same: if it fails, pass "
                "fewer --samples, or more --memory if there is more"
            )
        return f"memory: about {said(needed)}{room}: {', '.join(parts)}"

    def to_json(self, *uses: Basis, vectors: int = 0) -> dict[str, object]:
        """The plan as it is recorded with a run."""
        return {
            "budget": self.budget, "forecast": self.forecast(*uses, vectors=vectors), "graphs": self.graphs,
            "graphs_kept": self.kept, "batch_size": self.batch, "block": self.block,
            "bases": [{"vectors": u.size, "where": u.where, "bytes": u.bytes} for u in uses],
        }  # fmt: skip


def _usual(wanted: int) -> int:
    """Vectors in a basis for `wanted` eigenpairs that is not cut short: the default of `landscape.linalg.eigenpairs`."""
    return max(40, 2 * wanted + 16)


def plan(
    budget: int,
    fixed: int,
    peak: Affine,
    held: Affine,
    sizes: list[int],
    dim: int,
    row: int,
    *,
    check: float,
    cut: bool,
    host: int,
) -> Plan:
    """Choose the batch size and whether to keep the graphs.

    Args:
        budget, fixed, dim, row, host: as in `Plan`.
        peak: peak bytes of a product on a batch, graph included.
        held: bytes of the graph alone.
        sizes: samples in each batch of one process.
        check: peak bytes of the checks before the first product, besides `fixed`.
        cut: whether batches may be made smaller.

    Raises:
        UsageError: not even the smallest batch fits; the message says which budget would.
    """
    least_vectors = 2 * _EACH * row
    wish = min(max(_BASIS_BYTES, 48 * row), 2 * _LONGEST * row)
    room = budget - fixed
    graphs = max(room - max(wish, least_vectors), min(room // 2, room - least_vectors))

    checkable = room >= check

    def all_held(batch: int) -> float:
        return sum(-(-n // batch) * held.once + held.each * n for n in sizes)

    largest = max(sizes)
    batches = [largest]
    while cut and batches[-1] > 1:
        batches.append(batches[-1] // 2)
    for batch in (b for b in batches if b in (largest,) or b >= 32) if checkable else ():
        whole = all_held(batch) + max(peak.of(batch) - held.of(batch), 0)
        if whole <= graphs:
            return Plan(budget, fixed, int(whole), True, batch, dim, row, host, int(check))
    for room_for in (graphs, room - least_vectors) if checkable else ():
        for batch in batches:
            if peak.of(batch) <= room_for:
                return Plan(budget, fixed, int(peak.of(batch)), False, batch, dim, row, host, int(check))
    least = fixed + max(peak.of(batches[-1]) + least_vectors, check)
    raise UsageError(
        f"expected a memory budget of at least {said(1.1 * least)} for one pass of {batches[-1]} "
        f"sample{'s' * (batches[-1] > 1)}, found {said(budget)}",
        fix=f"pass --memory {(int(1.1 * least) >> 20) + 1}MiB{'' if cut else ', or a smaller --batch-size'}",
    )
