"""Training by a recipe: deterministic, resumable, with a self-describing checkpoint as the result."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from landscape import checkpoints
from landscape.errors import LandscapeError, NumericalError, UsageError
from landscape.machine import progress as reporting
from landscape.tasks.data.by_name import read_data
from landscape.tasks.data.corruption import Corrupted, check_condition, corrupt
from landscape.tasks.data.dataset import KINDS, DataSet, DataSpec
from landscape.tasks.seeds import stream_seed
from landscape.tasks.training.determinism import own_settings, versions
from landscape.tasks.training.recipe import Recipe
from landscape.tasks.training.snapshot import discard_snapshot, read_snapshot, snapshot_path, write_snapshot
from landscape.tasks.training.trainer import Record, Trainer
from landscape.tasks.training.trajectory_weights import check_kept, check_resumed, discard_kept, keep, kept_folder, new_folder

SCHEMA = 1
_SMALL = ("mlp", "digits-cnn")
_MOST_RECORDS = 2000


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        path: path of the checkpoint.
        record: the checkpoint's description: "training" (the recipe), "network", "data", "history", "final", "versions",
            "seconds".
        trajectory: folder of the weights saved during training; None without `keep_every`.
    """

    path: Path
    record: Mapping[str, Any]
    trajectory: Path | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def summary(self) -> dict[str, Any]:
        """Network, data and final scores in one flat dictionary."""
        recipe, final = self.record["training"], self.record["final"]
        told = {name: recipe[name] for name in ("network", "data", "corruption", "corruption_level", "batch_size", "seed")}
        return told | {"train_samples": self.record["data"]["train_samples"]} | final | {"seconds": self.record["seconds"]}


def train(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = True,
    data_path: str | Path | None = None,
    samples: int | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[Record], None] | None = None,
    save_every: float = 5.0,
    keep_every: int | None = None,
    each_step: Callable[[Trainer, int], None] | None = None,
) -> Trained:
    """Train a network and write a self-describing checkpoint.

    The objective is the mean cross-entropy over the (possibly corrupted) training set, for updates with label smoothing and
    mixup if the recipe has them. Training ends when the plain cross-entropy, without either and in eval mode, is at most
    `recipe.stop_loss`, or after the last epoch; `final.stopped` in the checkpoint has the reason. The history has plain
    cross-entropies, too, and the shares of the wrong and of the clean training labels that the network predicts. Every epoch
    is one pass in a new random order. The last batch may be smaller (a single remaining sample joins the batch before it,
    because BatchNorm needs two samples). With batch_size="full" the order is that of the data.

    The same recipe, data, device, number of threads and torch give the same weights to the bit, also for a run that was killed
    and resumed (it keeps its number of threads). All random numbers come from the seed; global generators are not changed. On
    CUDA, kernels of cuDNN are deterministic, but overlapping max pooling (network c1) is not.

    Args:
        recipe: the training recipe.
        out: path of the checkpoint. During training the state is in `OUT.partial`, and the state before it in
            `OUT.partial.before`. A damaged one is renamed to `.damaged`, and the run continues from the other or starts again.
        resume: continue from `OUT.partial`, or return `out` if this run is finished; False starts again.
        data_path: path of the data; or a whole spec such as "cifar10:PATH", which replaces `recipe.data`.
        samples: replaces `recipe.samples` if given.
        device: "cpu", "cuda", "cuda:1".
        progress: called with a `Record` after every evaluation.
        save_every: seconds between two writes of the state.
        keep_every: also save the weights before the first epoch, after every `keep_every` epochs, and at the end, each as a
            checkpoint `STEM-trajectory/epoch-0000.safetensors`, where STEM is `out` without its suffix. This does not change
            the run.
        each_step: called with the trainer and the number of steps done, before the first and after every step; it must not
            change any state, as a `landscape.watching.Watch` does not.

    Returns:
        The path and the description of the checkpoint; usable as a path.

    Raises:
        UsageError: no such data, network or condition; `out`, its `.partial` or its trajectory belongs to another recipe; a
            resumed or finished run saved other epochs; `out` cannot be written. Saved states remain for the same call.
        NumericalError: the training loss is not finite; nothing is saved.

    Cost: about three forward passes per step (six with SAM) and one per evaluation, over the training and the test set.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(Recipe(epochs=2), out=f"{folder}/digits.safetensors")
        ...     checkpoints.read(run.path).recipe["final"]["epochs"]
        2
    """
    recipe, spec = located(recipe if samples is None else replace(recipe, samples=samples), data_path)
    out = Path(out)
    if keep_every is not None and keep_every < 1:
        raise UsageError(f"expected keep_every as 1 epoch or more, found {keep_every}")
    trajectory = None if keep_every is None else kept_folder(out)
    place = _device(device)
    done = _finished(out, recipe, resume)
    if done is not None:
        if keep_every is not None:
            check_kept(out, recipe, keep_every, done["final"]["epochs"])
        return Trained(out, done, trajectory)
    state = read_snapshot(out) if resume else None
    if state is not None:
        _check_same(out, recipe, Recipe.from_json(json.loads(state["recipe"])))
        check_resumed(out, keep_every, state)
    _prepare(out)
    data = read_data(spec).first(recipe.samples)
    if state is not None and state["data"] != data.fingerprint:
        raise UsageError(
            f"expected the data with which {snapshot_path(out)} was started, found other data in {spec}",
            fix="pass the same data, or delete that file to start again",
        )
    corrupted = corruption_of(recipe, data)
    # The matrices of small networks are too small for several threads, which would be slower.
    fresh = 1 if recipe.network in _SMALL else torch.get_num_threads()
    threads = fresh if state is None else state["threads"]
    with own_settings(place, stream_seed(recipe.seed, "dropout"), threads):
        trainer = Trainer(recipe, data, corrupted, place)
        description = _description(recipe, data, trainer, threads)
        if state is not None:
            trainer.restore(state)
        elif keep_every is not None:
            new_folder(out, recipe)

        def save() -> None:
            same = {"recipe": json.dumps(recipe.to_json()), "data": data.fingerprint, "threads": threads}
            write_snapshot(out, trainer.state() | same | {"keep_every": keep_every})

        def keep_weights(last: bool) -> None:
            if keep_every is not None and (last or trainer.epoch % keep_every == 0):
                keep(out, trainer.model, description, trainer.epoch)

        def watch(done: int) -> None:
            if each_step is not None:
                each_step(trainer, done)

        try:
            with reporting.stage(f"training {recipe.network}", total=recipe.epochs) as advance:
                trainer.run(progress, advance, save, save_every, keep_weights, watch)
        except NumericalError:  # after any other error, such as a full disk, the saved state remains
            discard_snapshot(out)
            if keep_every is not None:
                discard_kept(out)
            raise
    record = _write(out, description, corrupted, trainer)
    discard_snapshot(out)
    return Trained(out, record, trajectory)


def located(recipe: Recipe, data_path: str | Path | None) -> tuple[Recipe, DataSpec]:
    """The recipe without a path, and the spec of its data with the path."""
    spec = DataSpec.parse(recipe.data)
    if data_path is not None:
        whole = re.split("[:,]", str(data_path), maxsplit=1)[0] in KINDS
        if not whole and spec.kind == "digits":
            raise UsageError(f"expected no data path with digits, found {data_path}", fix="name the kind: --data cifar10:PATH")
        given = DataSpec.parse(str(data_path) if whole else f"{spec.kind}:{data_path}")
        if given.kind == spec.kind:  # keep the recipe's options for the same kind of data
            given = replace(given, options=tuple((dict(spec.options) | dict(given.options)).items()))
        spec = given
    return replace(recipe, data=spec.without_path()), spec


def corruption_of(recipe: Recipe, data: DataSet) -> Corrupted:
    """Apply the recipe's corruption to raw data."""
    check_condition(recipe.corruption, recipe.corruption_level)
    return corrupt(
        data.train_x,
        data.train_y,
        recipe.corruption,
        classes=len(data.classes),
        seed=recipe.data_seed,
        level=recipe.corruption_level,
        test_x=data.test_x,
    )


def _device(device: str | torch.device) -> torch.device:
    """The device, after checking that this machine has it."""
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"expected a device of this machine, found {device!s} ({reason})", fix="use --device cpu") from error
    return place


def _finished(out: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """The description in `out` if it is this run's checkpoint; UsageError if another file is there."""
    if not out.exists():
        return None
    try:
        found = (checkpoints.read(out).recipe if out.is_file() else None) or {}
        theirs = Recipe.from_json(found["training"])
    except (LandscapeError, KeyError):
        found = {}
    if not resume or not found:
        raise UsageError(
            f"expected a free path for the checkpoint, found a file at {out}", fix="delete it or choose another --out"
        )
    _check_same(out, recipe, theirs)
    return found


def _check_same(path: Path, recipe: Recipe, theirs: Recipe) -> None:
    """Raise UsageError if a run belongs to another recipe."""
    different = recipe.differences(theirs)
    if different:
        raise UsageError(
            f"expected this recipe's run at {path}, found another one: {'; '.join(different)}",
            fix="choose another --out, or delete that run to start again",
        )


def _prepare(out: Path) -> None:
    """Check the suffix of `out`, create its folder, and check that it is writable, before any long work."""
    if out.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(
            f"expected a name ending in .safetensors, .pt or .pth, found {out.name}", fix="change the ending of --out"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        trial = out.with_name(f".{out.name}.trial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(f"expected to write {out}, found: {error.strerror}", fix="choose another --out") from error


def _description(recipe: Recipe, data: DataSet, trainer: Trainer, threads: int) -> dict[str, Any]:
    """The description in the checkpoints of a run, the same for every epoch."""
    return {
        "schema": SCHEMA,
        "training": recipe.to_json(),
        "network": {"name": recipe.network, "options": trainer.options},
        "data": data.describe(),
        "versions": versions(trainer.device, threads),
    }


def _write(out: Path, description: dict[str, Any], corrupted: Corrupted, trainer: Trainer) -> dict[str, Any]:
    """Write the finished checkpoint; returns its description."""
    outcome = {
        "history": _thinned(trainer.history),
        "final": trainer.final(),
        "seconds": round(trainer.seconds, 3),
    }
    extras = {"train_labels": corrupted.y, "redrawn_labels": corrupted.redrawn, "wrong_labels": corrupted.wrong}
    state = {name: t.detach().cpu().contiguous().clone() for name, t in trainer.model.state_dict().items()}
    checkpoints.save(out, state, recipe=description | outcome, extras=extras)
    return description | outcome


def _thinned(history: list[Record]) -> list[dict[str, Any]]:
    """At most about 2,000 evenly spaced evaluations, including the last one, to limit the checkpoint's description."""
    stride = 1 + (len(history) - 1) // _MOST_RECORDS
    return [record.to_json() for record in history[::-1][::stride][::-1]]
