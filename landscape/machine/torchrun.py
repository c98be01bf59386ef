"""Coming together: the processes that torchrun started, as its environment variables say."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from landscape.errors import UsageError
from landscape.machine.distributed import ALONE, Group, LostError, group, reason, working_as

TIMEOUT = "LANDSCAPE_TIMEOUT"
# Seconds to wait for the others before they are taken to hang: long beside the slowest product.
_PATIENCE = 1800.0


def launched() -> tuple[int, int]:
    """Rank and number of processes as torchrun's environment variables say; (0, 1) without them. Imports no torch.

    Raises:
        UsageError: they are no numbers, or make no sense together.
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
    """A whole number from 0 out of the environment."""
    text = os.environ.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(
            f"expected the environment variable {name} as a number of a process, found {text!r}",
            fix="start with torchrun, or unset MASTER_ADDR",
        )
    return int(text)


@contextmanager
def joined(timeout: float | None = None) -> Iterator[Group]:
    """Work with the other processes that torchrun started, NCCL between GPUs and gloo between CPUs; alone where there are none.

    Every Objective that is made inside shares its samples out: all processes are to make the same ones, of all the data, and to
    do the same with them. Where torch.distributed is initialised already, its processes are taken, and it is left as it was.

    Args:
        timeout: seconds to wait for the others at each step; default the environment variable LANDSCAPE_TIMEOUT, or 1800.

    Raises:
        LostError: the others did not come.
        UsageError: LANDSCAPE_TIMEOUT is no number of seconds.

    Example:
        Without torchrun there is only this one.
        >>> with joined() as members:
        ...     members.size, members.agreed("seven")
        (1, 'seven')
    """
    if launched()[1] == 1 and "torch" not in sys.modules:  # a command that needs no torch is not to wait for it
        yield ALONE
        return
    import torch.distributed as dist

    initialised = dist.is_available() and dist.is_initialized()
    if launched()[1] == 1 and not initialised:
        yield ALONE
        return
    if not initialised:
        _initialise(_seconds() if timeout is None else timeout)
    there = Group(dist.get_rank(), dist.get_world_size())
    try:
        with working_as(group() if group() == there else there) as members:
            yield members
    finally:
        if not initialised:
            dist.destroy_process_group()


def _initialise(seconds: float) -> None:
    """What torchrun's environment variables ask for."""
    import torch
    import torch.distributed as dist

    size, backend = launched()[1], "gloo"
    if torch.cuda.is_available():
        # NCCL takes one process a GPU; more of them go through the host.
        apart = _count("LOCAL_WORLD_SIZE", size) <= torch.cuda.device_count() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if apart else "cpu:gloo,cuda:gloo"
        torch.cuda.set_device(local_gpu())
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except RuntimeError as error:
        raise LostError(f"expected {size} processes to come together, found: {reason(error)}") from error


def local_gpu() -> int:
    """The number of the GPU that is this process's own on its machine."""
    import torch

    return _count("LOCAL_RANK", 0) % max(1, torch.cuda.device_count())


def _seconds() -> float:
    """The patience that the environment asks for."""
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else _PATIENCE
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"expected {TIMEOUT} as a positive number of seconds, found {text!r}", fix=f"{TIMEOUT}=600")
    return seconds
