"""Several processes on one task, by plain `torch.distributed`; `landscape.machine.torchrun` connects them.

Every process keeps all the data and does the same steps in the same order. They divide the work of a sum over samples, or the
columns of a large array. Only decisions that depend on a clock or on free memory are broadcast; random numbers agree because
their seeds do.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from landscape.errors import LandscapeError, reason

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")

GOES_ON = "run the same command again: a surface resumes where it stopped"
# Seconds within which processes that fail for the same reason all fail, since they were in step until then.
_TOGETHER = 5.0
# Witnesses that spread by more than this, relative or absolute, belong to different steps; rounding stays far below both.
_RELATIVE, _ABSOLUTE = 1e-2, 1e-5


class LostError(LandscapeError):
    """Another process stopped, does not answer, or is at another step."""

    exit_code = 6


@dataclass(frozen=True)
class Group:
    """Processes that work together. In a group of size 1 every method returns at once.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1
    _counted: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)

    @property
    def collectives(self) -> int:
        """Number of collectives so far, each of which waits for all processes."""
        return self._counted[0]

    def part(self, n: int) -> slice:
        """This process's consecutive share of n items; the sizes of shares differ by at most one, and may be 0.

        Example:
            >>> [Group(rank, 3).part(7) for rank in range(3)]
            [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        ends = [0, *accumulate(self.parts(n))]
        return slice(ends[self.rank], ends[self.rank + 1])

    def parts(self, n: int) -> list[int]:
        """Sizes of all shares of n items, as `concat` takes them.

        Example:
            >>> Group(0, 3).parts(7), Group(0, 3).parts(2)
            ([3, 2, 2], [1, 1, 0])
        """
        return [n // self.size + (rank < n % self.size) for rank in range(self.size)]

    def sum_(self, t: "Tensor") -> "Tensor":
        """Sum a contiguous tensor over all, in place; the same bits in each. One collective. Raises LostError: one is gone."""
        if self.size > 1:
            import torch.distributed as dist

            with self._waiting():
                dist.all_reduce(t)
        return t

    def total(self, part: "Callable[[], Tensor]", like: "Tensor", witness: "Tensor") -> "Tensor":
        """The sum of `part()` over all processes. An error that one process raises is raised in all, so that they stay in step.

        Args:
            part: returns a tensor of the shape, dtype and device of `like`.
            like: a tensor; its values are not read.
            witness: the point or vectors that the sum is computed for, equal in every process up to rounding. Two numbers
                made from it are summed along, to detect processes that are at different steps.

        Returns:
            The sum, the same bits in each process.

        Raises:
            LostError: a process is gone, or has another witness.

        Cost: one collective; a second one if there is an error.
        """
        if self.size == 1:
            return part()
        import torch

        error, share = None, None
        try:
            share = part()
        except Exception as raised:  # any error must reach the other processes
            error = raised
        sign = witness.sum() / witness.abs().sum().clamp(min=torch.finfo(witness.dtype).tiny)
        notes = torch.stack((sign, sign**2, torch.full_like(sign, error is not None))).to(like)
        whole = self.sum_(torch.cat(((torch.zeros_like(like) if share is None else share).flatten(), notes)))
        mean, square, failed = (float(x) / self.size for x in whole[-3:])
        if failed > 0:
            raise next(e for e in self.everyone(error and _portable(error)) if e is not None) from error
        if square - mean**2 > _RELATIVE**2 * square + _ABSOLUTE**2:
            raise LostError(
                f"expected {self.size} processes at the same step, found them at different ones",
                fix="one of them failed alone, or their machines differ; run again with fewer processes",
            )
        return whole[:-3].view_as(like)

    def concat(self, part: "Tensor", sizes: Sequence[int]) -> "Tensor":
        """Concatenate all processes' parts along the last dimension, in the order of the ranks. Cost: one collective.

        Args:
            part: (..., sizes[rank]); the leading dimensions are the same in each process.
            sizes: length of each part; may be 0.

        Returns:
            (..., sum of sizes), the same bits in each process.

        Raises:
            LostError: a process is gone.
        """
        if self.size == 1:
            return part
        import torch
        import torch.distributed as dist

        padded = part.new_zeros((*part.shape[:-1], max(sizes)))
        padded[..., : sizes[self.rank]] = part
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._waiting():
            dist.all_gather(parts, padded)
        return torch.cat([p[..., :n] for p, n in zip(parts, sizes, strict=True)], dim=-1)

    def gather(self, part: "Tensor") -> "Tensor":
        """All processes' parts, of one shape, as rows. Cost: one collective. Raises LostError: a process is gone."""
        if self.size == 1:
            return part[None]
        found = part.new_empty((self.size, *part.shape))
        with self._waiting():
            _named("all_gather_single", "all_gather_into_tensor")(found.view(-1), part.contiguous().view(-1))
        return found

    def scatter_sum(self, parts: "Tensor") -> "Tensor":
        """Row `rank` of the sum over all processes of (size, n). Cost: one collective. Raises LostError, likewise."""
        if self.size == 1:
            return parts[0]
        mine = parts.new_empty(parts.shape[1])
        with self._waiting():
            _named("reduce_scatter_single", "reduce_scatter_tensor")(mine, parts.contiguous().view(-1))
        return mine

    def everyone(self, value: T) -> list[T]:
        """The value of each process, in the order of the ranks; any value that pickles. Cost: one collective.

        Raises:
            LostError: a process is gone.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        gathered: list[Any] = [None] * self.size
        with self._waiting():
            dist.all_gather_object(gathered, value)
        return gathered

    def agreed(self, value: T) -> T:
        """The first process's value, in every process: for decisions that depend on a clock or on free memory."""
        return self.everyone(value)[0]

    def alike(self, error: Exception | str) -> bool:
        """Whether every other process fails with the same error at the same step; waits a few seconds for them."""
        return self.size == 1 or self._store.alike(self, str(error))

    def fail_together(self, error: Exception, alike: str | None = None) -> None:
        """Before continuing after an error: make sure that all processes have it, since otherwise they wait for this one.

        What must be the same in all is `alike`; by default the error's text.

        Raises:
            LostError: not all have it. Those that wait in a collective raise the same text when this process ends.
        """
        if isinstance(error, LostError):
            raise error
        if not self.alike(error if alike is None else alike):
            text = f"process {self.rank} of {self.size} alone: {error}"
            self._store.alone(text)
            raise LostError(text) from error

    def said(self) -> bool:
        """Whether another process already reports the error; if not, this one must report it and call `done_saying`."""
        return self.size > 1 and self._store.said()

    def done_saying(self) -> None:
        """Release the processes that wait in `until_said`."""
        if self.size > 1:
            self._store.done_saying()

    def until_said(self) -> None:
        """Wait, a few seconds at most, until another process has reported the error: torchrun ends all with the first exit."""
        if self.size > 1:
            self._store.until_said()

    @cached_property
    def _store(self) -> "_Store":
        import torch.distributed as dist

        return _Store(dist.distributed_c10d._get_default_store())

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count a collective; turn the backend's error about a missing process into `LostError`."""
        self._counted[0] += 1
        try:
            yield
        except RuntimeError as error:
            text = f"expected all {self.size} processes, found that one stopped or does not answer: {reason(error)}"
            alone = self._store.alone()
            raise (LostError(alone) if alone else LostError(text, fix=GOES_ON)) from error


class _Store:
    """Key-value store that processes write to without waiting for one another; under torchrun it outlives each of them."""

    def __init__(self, store: "Store") -> None:
        import torch.distributed as dist

        self._store = dist.PrefixStore("landscape", store)
        self._failures = 0

    def alike(self, group: Group, text: str) -> bool:
        """See `Group.alike`; the keys hold the number of collectives, which is equal in processes that are in step."""
        self._failures += 1
        keys = [f"failed/{group.collectives}/{self._failures}/{rank}" for rank in range(group.size)]
        try:
            self._store.set(keys[group.rank], text)
            self._store.wait(keys, timedelta(seconds=_TOGETHER))
            return all(self._store.get(key) == text.encode() for key in keys)
        except RuntimeError:
            return False

    def alone(self, text: str | None = None) -> str | None:
        """Keep what a process that fails alone says; or what one said, None if none did or the store cannot be reached."""
        with suppress(RuntimeError):
            if text is not None:
                self._store.set("alone", text)
            return bytes(self._store.get("alone")).decode() if self._store.check(["alone"]) else None
        return None

    def said(self) -> bool:
        """See `Group.said`; False if the store cannot be reached."""
        with suppress(RuntimeError):
            return self._store.add("saying", 1) > 1
        return False

    def done_saying(self) -> None:
        """See `Group.done_saying`."""
        with suppress(RuntimeError):
            self._store.set("said", "yes")

    def until_said(self) -> None:
        """See `Group.until_said`."""
        with suppress(RuntimeError):
            self._store.wait(["said"], timedelta(seconds=_TOGETHER))


ALONE = Group()
_current = ALONE


def group() -> Group:
    """The processes of the `landscape.machine.torchrun.joined` block that is running; outside one, this process alone.

    An initialised torch.distributed is not enough: a training script may call from one process only, or give each process its
    own part of the data.
    """
    return _current


@contextmanager
def working_as(members: Group) -> Iterator[Group]:
    """Make `group()` return these processes inside the block."""
    global _current
    before, _current = _current, members
    try:
        yield members
    finally:
        _current = before


def _named(*names: str) -> Callable[..., Any]:
    """The first of these functions that this version of torch.distributed has."""
    import torch.distributed as dist

    found: Callable[..., Any] = next(getattr(dist, name) for name in names if hasattr(dist, name))
    return found


def _portable(error: Exception) -> Exception:
    """The error itself if it can be sent to another process; otherwise a RuntimeError with the same text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a user's exception class may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
