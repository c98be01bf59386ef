"""Connect the processes that torchrun started, from its environment variables."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from landscape.errors import UsageError, reason
from landscape.machine.distributed import ALONE, Group, LostError, group, working_as

TIMEOUT = "LANDSCAPE_TIMEOUT"
# Seconds to wait for another process before it counts as hung: long compared with the slowest product.
_PATIENCE = 1800.0


def launched() -> tuple[int, int]:
    """Rank and number of processes from torchrun's environment variables; (0, 1) without them. Imports no torch.

    Raises:
        UsageError: they are not numbers, or contradict each other.
    """
    if "MASTER_ADDR" not in os.environ:
        return 0, 1
    rank, size = _count("RANK", 0), _count("WORLD_SIZE", 1)
    if not rank < size:
        raise UsageError(
            f"expected RANK below WORLD_SIZE, found {rank} and {size}", fix="start with torchrun, or unset MASTER_ADDR"
        )
    return rank, size


def _count(name: str, default: int) -> int:
    """A non-negative integer from the environment."""
    text = os.environ.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(
            f"expected the environment variable {name} to be the number of a process, found {text!r}",
            fix="start with torchrun, or unset MASTER_ADDR",
        )
    return int(text)


@contextmanager
def joined(timeout: float | None = None) -> Iterator[Group]:
    """Work together with the other processes that torchrun started, by NCCL between GPUs and gloo between CPUs.

    Every Objective created inside the block divides its samples among the processes. All processes must create the same
    objectives, from all the data, and call the same functions. If torch.distributed is already initialised, its processes are
    used, and it is left as it was. Without torchrun the group is this process alone.

    Args:
        timeout: seconds to wait for the others at each step; default: the environment variable LANDSCAPE_TIMEOUT, or 1800.

    Raises:
        LostError: the other processes did not connect.
        UsageError: LANDSCAPE_TIMEOUT is not a number of seconds.

    Example:
        Without torchrun the group has one process.
        >>> with joined() as members:
        ...     members.size, members.agreed("seven")
        (1, 'seven')
    """
    if launched()[1] == 1 and "torch" not in sys.modules:  # a command without torch should not wait for its import
        yield ALONE
        return
    import torch.distributed as dist

    initialised = dist.is_available() and dist.is_initialized()
    if launched()[1] == 1 and not initialised:
        yield ALONE
        return
    if not initialised:
        _initialise(_seconds() if timeout is None else timeout)
    launched_group = Group(dist.get_rank(), dist.get_world_size())
    try:
        with working_as(group() if group() == launched_group else launched_group) as members:
            yield members
    finally:
        if not initialised:
            dist.destroy_process_group()


def _initialise(seconds: float) -> None:
    """Initialise torch.distributed from torchrun's environment variables."""
    import torch
    import torch.distributed as dist

    # Its functions take the group of the moment of import as a default. Imported later, as torch._dynamo does, they keep the
    # group's threads alive until the process ends, where a thread that lets go of a tensor aborts it now and then.
    import torch.distributed.nn

    size, backend = launched()[1], "gloo"
    if torch.cuda.is_available():
        # NCCL allows one process per GPU; more processes communicate through the host.
        one_per_gpu = _count("LOCAL_WORLD_SIZE", size) <= torch.cuda.device_count() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if one_per_gpu else "cpu:gloo,cuda:gloo"
        torch.cuda.set_device(local_gpu())
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except RuntimeError as error:
        raise LostError(f"expected {size} processes to come together, found: {reason(error)}") from error


def local_gpu() -> int:
    """Number of the GPU on this machine that this process uses."""
    import torch

    return _count("LOCAL_RANK", 0) % max(1, torch.cuda.device_count())


def _seconds() -> float:
    """The timeout from the environment, in seconds."""
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else _PATIENCE
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"expected {TIMEOUT} to be a positive number of seconds, found {text!r}", fix=f"{TIMEOUT}=600")
    return seconds
