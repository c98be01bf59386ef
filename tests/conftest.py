"""Shapes in annotations are checked while testing.

One thread, here and in the processes that tests start: networks are tiny, and a second one would only spin. By environment
variables `make test-portable` sets other numbers of threads (LANDSCAPE_TEST_THREADS) and orders (LANDSCAPE_TEST_ORDER, a seed).
"""

import gc
import os
import random
import signal

import pytest
import shape_checks
import torch
from hypothesis import settings

THREADS = os.environ.get("LANDSCAPE_TEST_THREADS", "1")
os.environ["OMP_NUM_THREADS"] = THREADS
torch.set_num_threads(int(THREADS))
# The background jobs of a shell ignore it, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples at every run, and no deadline: machines are noisy.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# A doctest run would import every conftest under one name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

shape_checks.install(
    [
        "landscape.network.parameters",
        "landscape.network.forward",
        "landscape.network.losses.mean_loss",
        "landscape.curvature.engine",
        "landscape.linalg",
    ]
)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it at every full collection."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle files, and the tests of a file, if asked to; tests of one file stay together, for they share what is costly."""
    seed = os.environ.get("LANDSCAPE_TEST_ORDER")
    if seed is not None:
        drawn = random.Random(seed)
        files = {item.path: drawn.random() for item in items}
        drawn.shuffle(items)
        items.sort(key=lambda item: files[item.path])
