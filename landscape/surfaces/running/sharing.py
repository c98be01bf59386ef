"""A surface under several processes: each does points of its own, through a folder that all of them see."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landscape.machine.distributed import Group


@contextmanager
def shared_folder(group: Group, folder: str | Path | None) -> Iterator[Path]:
    """The folder for the points of a surface: the one that is given, or a temporary one that the first process makes.

    Nobody leaves the block before all have read what the others found.

    Raises:
        LostError: a process is gone.
    """
    made = tempfile.mkdtemp(prefix="landscape-") if folder is None and group.rank == 0 else None
    if made is not None:
        # Not at the first error: the others would lose what they stand on before they hear of it.
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    there = group.agreed(made) if folder is None else folder
    yield Path(str(there))
    group.everyone(None)
    if made is not None:
        shutil.rmtree(made, ignore_errors=True)
