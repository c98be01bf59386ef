"""A surface under several processes: each computes a part of the points, through a shared folder."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landscape.machine.distributed import Group


@contextmanager
def shared_folder(group: Group, folder: str | Path | None) -> Iterator[Path]:
    """The folder for the points of a surface: the given one, or a temporary one that the first process creates.

    No process leaves the block before all processes have read all points.

    Raises:
        LostError: a process is gone.
    """
    made = tempfile.mkdtemp(prefix="landscape-") if folder is None and group.rank == 0 else None
    if made is not None:
        # Removed at exit, not at the first error: other processes still use the folder until they learn of the error.
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    there = group.agreed(made) if folder is None else folder
    yield Path(str(there))
    group.everyone(None)
    if made is not None:
        shutil.rmtree(made, ignore_errors=True)
