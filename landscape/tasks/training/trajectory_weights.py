"""The weights that a training run keeps on its way, as the checkpoints of a trajectory."""

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from landscape import checkpoints
from landscape.errors import LandscapeError, UsageError
from landscape.tasks.training.recipe import Recipe

_NAME = re.compile(r"epoch-[0-9]{4,}\.safetensors")


def kept_folder(out: Path) -> Path:
    """Where the run that ends in `out` keeps its trajectory.

    Example:
        >>> kept_folder(Path("runs/a.safetensors")).as_posix()
        'runs/a-trajectory'
    """
    return out.with_name(f"{out.stem}-trajectory")


def kept_path(out: Path, epoch: int) -> Path:
    """The file of the weights after `epoch` epochs."""
    return kept_folder(out) / f"epoch-{epoch:04d}.safetensors"


def kept_epochs(every: int, last: int) -> list[int]:
    """The epochs whose weights a run of `last` epochs keeps: the start, every so many, and the end.

    Example:
        >>> kept_epochs(4, 10)
        [0, 4, 8, 10]
    """
    return sorted({*range(0, last + 1, every), last})


def keep(out: Path, model: nn.Module, description: Mapping[str, Any], epoch: int) -> None:
    """Write the weights after `epoch` epochs, with what they are: a checkpoint like any other, the same bytes every time."""
    state = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    checkpoints.save(kept_path(out, epoch), state, recipe={**description, "epoch": epoch})


def new_folder(out: Path, recipe: Recipe) -> None:
    """Before a fresh start: make the folder, and remove what an earlier start of this very run left there.

    Raises:
        UsageError: the folder cannot be made, or holds weights of another run.
    """
    folder = kept_folder(out)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"expected to write {folder}, found: {error.strerror}", fix="choose another --out") from error
    for path in _present(out):
        if not _same_run(path, recipe):
            raise UsageError(
                f"expected an empty folder for the run's trajectory, found {path}, which is none of this run's",
                fix="move it away or choose another --out",
            )
    discard_kept(out)
    folder.mkdir(exist_ok=True)


def check_kept(out: Path, recipe: Recipe, every: int, last: int) -> None:
    """Refuse a finished run that did not keep the epochs that are asked for.

    Raises:
        UsageError: one is not there, or is another run's.
    """
    lost = [e for e in kept_epochs(every, last) if not _same_run(kept_path(out, e), recipe)]
    if lost:
        raise UsageError(
            f"expected the trajectory of the finished run {out}, found no {kept_path(out, lost[0])}",
            fix="train it again to another --out, or leave out --keep-every",
        )


def check_resumed(out: Path, every: int | None, state: Mapping[str, Any]) -> None:
    """Refuse to go on from `state` with a trajectory that would have holes.

    Raises:
        UsageError: the run was started with another `every`, or weights that it kept are no longer there.
    """
    before = state.get("keep_every")
    if every != before:
        found, asked = (f"--keep-every {n}" if n else "no --keep-every" for n in (every, before))
        raise UsageError(f"expected {asked}, as the run was started with, found {found}", fix="say the same, or --restart")
    if every is not None:
        lost = next((e for e in range(0, state["epoch"] + 1, every) if not kept_path(out, e).is_file()), None)
        if lost is not None:
            raise UsageError(
                f"expected the weights that the run has kept, found no {kept_path(out, lost)}", fix="start anew with --restart"
            )


def discard_kept(out: Path) -> None:
    """Remove the run's trajectory, what a kill in the middle of a writing left of a file, and the folder if that was all."""
    folder = kept_folder(out)
    if not folder.is_dir():
        return
    for path in (*_present(out), *folder.glob(".epoch-*.safetensors.*")):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _present(out: Path) -> list[Path]:
    """The files of a trajectory that are there."""
    folder = glob.escape(str(kept_folder(out)))
    return [p for p in map(Path, sorted(glob.glob(f"{folder}/epoch-*.safetensors"))) if _NAME.fullmatch(p.name)]


def _same_run(path: Path, recipe: Recipe) -> bool:
    """Whether a file is there and says that it belongs to a run of this recipe."""
    if not path.is_file():
        return False
    try:
        found = checkpoints.read(path).recipe or {}
        return not recipe.differences(Recipe.from_json(found["training"]))
    except (LandscapeError, KeyError):
        return False
