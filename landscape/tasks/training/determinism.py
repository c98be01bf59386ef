"""What the bits of a training run depend on beside its recipe: settings of the process, software and hardware."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from landscape.version import __version__


@contextmanager
def own_settings(device: torch.device, seed: int, threads: int) -> Iterator[None]:
    """Global settings that the bits depend on, for the length of a run.

    Dropout draws from the global generators: those of the CPU and of `device` are seeded, and put back afterwards. Sums on the
    CPU depend on the number of threads: a resumed run goes on with as many as it was started with.
    """
    before = torch.get_num_threads()
    cuda = device.type == "cuda"
    index = (torch.cuda.current_device() if device.index is None else device.index) if cuda else 0
    with (
        torch.random.fork_rng(devices=[index] if cuda else []),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
        ),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def versions(device: torch.device, threads: int) -> dict[str, Any]:
    """Software and hardware that the bits depend on."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "landscape": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "device": device.type,
        "hardware": hardware,
        "threads": threads,
    }
