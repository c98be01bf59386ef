"""Several processes at one task: plain `torch.distributed`, joined by `landscape.machine.torchrun`.

Every process keeps all the data and does the same steps in the same order; what is shared out is the work of a sum over
samples, or the parts of a large array. Nothing is broadcast but decisions that depend on a clock or on free memory: random
numbers are the same everywhere because their seeds are.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from landscape.errors import LandscapeError, printable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")

GOES_ON = "run the same command again: a surface goes on where it was"
# Seconds in which processes that fail for the same reason have all done so: they were in step until then.
_TOGETHER = 5.0
# Witnesses that spread by more than this, relative or absolute, are not of the same thing; rounding stays far below both.
_RELATIVE, _ABSOLUTE = 1e-2, 1e-5


class LostError(LandscapeError):
    """Another process stopped, does not answer, or is at something else."""

    exit_code = 6


@dataclass(frozen=True)
class Group:
    """Processes that work together; of size 1 where this one is alone, and then every method returns at once.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1
    _counted: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)

    @property
    def collectives(self) -> int:
        """How many times this process has waited for the others."""
        return self._counted[0]

    def part(self, n: int) -> slice:
        """The consecutive share of n things that falls to this process; sizes differ by at most one, and may be 0.

        Example:
            >>> [Group(rank, 3).part(7) for rank in range(3)]
            [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        ends = [0, *accumulate(self.parts(n))]
        return slice(ends[self.rank], ends[self.rank + 1])

    def parts(self, n: int) -> list[int]:
        """Sizes of the shares of n things, as `concat` takes them.

        Example:
            >>> Group(0, 3).parts(7), Group(0, 3).parts(2)
            ([3, 2, 2], [1, 1, 0])
        """
        return [n // self.size + (rank < n % self.size) for rank in range(self.size)]

    def sum_(self, t: "Tensor") -> "Tensor":
        """The sum over all processes of a contiguous tensor, in place; the same bits in each. Cost: one collective.

        Raises:
            LostError: a process is gone.
        """
        if self.size > 1:
            import torch.distributed as dist

            with self._waiting():
                dist.all_reduce(t)
        return t

    def total(self, part: "Callable[[], Tensor]", like: "Tensor", witness: "Tensor") -> "Tensor":
        """The sum over all processes of what `part` gives in each; what it raises in one is raised in all.

        So all of them go on in step, whatever they make of the error.

        Args:
            part: gives a tensor of the shape, dtype and device of `like`.
            like: not looked into.
            witness: what the sum is for, alike in every process up to rounding. It travels along as two numbers, so that
                processes that are not in step after all do not add up what does not belong together.

        Returns:
            The same bits in each process.

        Raises:
            LostError: a process is gone, or has another witness.

        Cost: one collective; one more where there is an error.
        """
        if self.size == 1:
            return part()
        import torch

        error, own = None, None
        try:
            own = part()
        except Exception as raised:  # whatever it is, the others are to know
            error = raised
        sign = witness.sum() / witness.abs().sum().clamp(min=torch.finfo(witness.dtype).tiny)
        notes = torch.stack((sign, sign**2, torch.full_like(sign, error is not None))).to(like)
        whole = self.sum_(torch.cat(((torch.zeros_like(like) if own is None else own).flatten(), notes)))
        mean, square, failed = (float(x) / self.size for x in whole[-3:])
        if failed > 0:
            raise next(e for e in self.everyone(error and _portable(error)) if e is not None) from error
        if square - mean**2 > _RELATIVE**2 * square + _ABSOLUTE**2:
            raise LostError(
                f"expected {self.size} processes at the same step, found them at different ones",
                fix="one of them has failed alone, or their machines differ; run again with fewer",
            )
        return whole[:-3].view_as(like)

    def concat(self, part: "Tensor", sizes: Sequence[int]) -> "Tensor":
        """Every process's part side by side along the last dimension, in the order of the ranks. Cost: one collective.

        Args:
            part: (..., sizes[rank]); the other dimensions are the same in each.
            sizes: of the parts; one may be 0.

        Returns:
            (..., sum of sizes), the same bits in each.

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

    def everyone(self, value: T) -> list[T]:
        """What each process has here, in the order of the ranks; anything that pickles. Cost: one step; all wait for all.

        Raises:
            LostError: a process is gone.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with self._waiting():
            dist.all_gather_object(found, value)
        return found

    def agreed(self, value: T) -> T:
        """What the first process has here, whatever this one has: for what depends on a clock or on free memory."""
        return self.everyone(value)[0]

    def alike(self, error: Exception) -> bool:
        """Whether every other process fails with the same error at the same step; waits a few seconds for them to do so."""
        return self.size == 1 or self._store.alike(self, str(error))

    def fail_together(self, error: Exception) -> None:
        """Before going on after an error: make sure that the others have it too, since else they wait for this one.

        Raises:
            LostError: only this process has it, or some.
        """
        if isinstance(error, LostError):
            raise error
        if not self.alike(error):
            raise LostError(f"process {self.rank} of {self.size} alone: {error}") from error

    def said(self) -> bool:
        """Whether another process has said already why all stop; if not, it is this one's to say, and to call `done_saying`."""
        return self.size > 1 and self._store.said()

    def done_saying(self) -> None:
        """Let those go that wait until all is said."""
        if self.size > 1:
            self._store.done_saying()

    def until_said(self) -> None:
        """Wait, some seconds at most, until another process has said why all stop: torchrun ends all with the first."""
        if self.size > 1:
            self._store.until_said()

    @cached_property
    def _store(self) -> "_Store":
        import torch.distributed as dist

        return _Store(dist.distributed_c10d._get_default_store())

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count a collective; a peer that is gone is told as such."""
        self._counted[0] += 1
        try:
            yield
        except RuntimeError as error:
            text = f"expected all {self.size} processes, found that one stopped or does not answer: {reason(error)}"
            raise LostError(text, fix=GOES_ON) from error


class _Store:
    """The table that processes can write to without waiting for one another; it outlives each of them under torchrun."""

    def __init__(self, store: "Store") -> None:
        import torch.distributed as dist

        self._store = dist.PrefixStore("landscape", store)
        self._failures = 0

    def alike(self, group: Group, text: str) -> bool:
        """See `Group.alike`; processes in step have waited for one another equally often."""
        self._failures += 1
        keys = [f"failed/{group.collectives}/{self._failures}/{rank}" for rank in range(group.size)]
        try:
            self._store.set(keys[group.rank], text)
            self._store.wait(keys, timedelta(seconds=_TOGETHER))
            return all(self._store.get(key) == text.encode() for key in keys)
        except RuntimeError:
            return False

    def said(self) -> bool:
        """See `Group.said`; False where that cannot be found out."""
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
    """The processes of the `landscape.machine.torchrun.joined` block that runs, else this one alone.

    That torch.distributed is initialised says nothing: a training script may well call from one process only, or give each its
    own part of the data.
    """
    return _current


@contextmanager
def working_as(members: Group) -> Iterator[Group]:
    """Let `group()` be these processes while the block runs."""
    global _current
    before, _current = _current, members
    try:
        yield members
    finally:
        _current = before


def _portable(error: Exception) -> Exception:
    """The error, if it can be sent to another process; else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of the user's own may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def reason(error: RuntimeError) -> str:
    """What the backend says first, without the place in its source."""
    first = str(error).partition("\n")[0]
    return printable(re.sub(r"^\[\S+:\d+\] ", "", first).partition(". ")[0], limit=160)
