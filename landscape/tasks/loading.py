"""Build a Task from a checkpoint, or from names."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape import checkpoints
from landscape.checkpoints.fitting.adapter import BASE_OF_TASK, is_adapter
from landscape.errors import MismatchError, UsageError, printable
from landscape.machine.agreement import check_alike
from landscape.machine.distributed import group
from landscape.machine.files import bare_name
from landscape.network.forward_checks import channels_first
from landscape.network.losses.loss_checks import from_one
from landscape.tasks.data.by_name import read_data
from landscape.tasks.data.corruption import Corrupted
from landscape.tasks.data.dataset import DataSet, DataSpec
from landscape.tasks.folder_weights import base_digest, on_its_base, streamed
from landscape.tasks.hugging_face import TEXT, role_of
from landscape.tasks.libraries import full_name, model_by_name
from landscape.tasks.names_to_add import check_no_data, unnamed, without_data
from landscape.tasks.networks import build
from landscape.tasks.recognition import recognize
from landscape.tasks.task import Source, Task
from landscape.tasks.text_task import text_task
from landscape.tasks.training.by_recipe import SCHEMA, corruption_of, located
from landscape.tasks.training.network_for_data import WEIGHT_DTYPES, network_options, options_for
from landscape.tasks.training.recipe import Recipe
from landscape.tasks.userfile import load_user_task


def load(
    path: str | Path,
    *,
    task: str | Task | None = None,
    model: str | nn.Module | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    data: str | None = None,
    weights: str | None = None,
) -> Task:
    """The task of a checkpoint, with the checkpoint's weights in its model.

    A checkpoint of `landscape train` describes itself: its network is a built-in one, the data are read again, and the
    corruption is recomputed from its seed and compared with the labels in the checkpoint. Data with a path are read from the
    path in `data`, not from a path in the checkpoint. Any other checkpoint needs `task`, or `model` and `data`. Nothing that a
    checkpoint names is imported, run or read from disk.

    Args:
        path: the checkpoint.
        task: "task.py", "task.py:function", or a Task.
        model: a built-in network or "torchvision:NAME", "timm:NAME", "hf:FOLDER"; or a module, which is loaded in place.
        model_kwargs: keyword arguments of the model, or of the task file's function.
        data: "digits", "cifar10:PATH", "imagefolder:PATH", "safetensors:PATH", or "text:PATH" with options such as
            "text:book.txt,block=128" for a model "hf:FOLDER". For a checkpoint of `landscape train` this names the path of its
            data. Other data than those of its training are used without corruption, with a notice.
        weights: name of the weights, if the file holds several sets.

    Returns:
        The task, with `checkpoint`, `notices`, and for a checkpoint of `landscape train` also `recipe` and `extras`.

    Raises:
        UsageError: missing or inconsistent arguments; under torchrun, a process read another file.
        UnsafeError, MalformedError: as for `checkpoints.read`.
        MismatchError: the weights do not fit the model.
        NumericalError: the weights are not finite.
    """
    built: Task | None = None
    if isinstance(model, str) and model.startswith("hf:") and data is not None and task is None and weights is None:
        built = resolve(model=model, model_kwargs=model_kwargs, data=data)
        if (whole := streamed(Path(path), built)) is not None:
            return whole
    checkpoint = checkpoints.read(path)
    check_alike(group(), {"checkpoint": checkpoint.sha256})
    chosen = checkpoint.weights(weights)
    check_no_data(path, checkpoint, chosen)
    record: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()
    adapter = False
    if task is None and model is None:
        record = _record(path, checkpoint, chosen, data)
        built, notices = _recorded(record, checkpoint.extras, data, chosen.state)
    else:
        adapter = isinstance(model, str) and is_adapter(chosen.state)
        if adapter and not str(model).startswith("hf:"):
            raise MismatchError(
                f"expected the weights of a whole network for --model {model}, found an adapter, whose base would be random",
                fix="build the base with its own weights in a task.py, or save the merged network (merge_and_unload)",
            )
        if isinstance(model, str) and task is None and data is None:
            raise without_data(path, model, model_kwargs or {}, recognize(chosen, checkpoint.path, checkpoint.meta))
        built = built or resolve(task=task, model=model, model_kwargs=model_kwargs, data=data)
        if adapter:
            built = on_its_base(built, str(model).removeprefix("hf:"), chosen)  # which says whose the base's weights are
    base = base_digest(built.model, chosen)
    try:
        fitted = checkpoints.fit(built.model, chosen)
    except MismatchError as error:
        found = recognize(chosen, checkpoint.path, checkpoint.meta) if isinstance(model, str) and not adapter else None
        if found is None:
            raise
        mended = MismatchError(error.problem, fix=f"add {shlex.join(found.arguments)}, which they fit", options=found.arguments)
        mended.table = error.table
        raise mended from None
    told = [notice for notice in fitted if not (adapter and notice == BASE_OF_TASK)]
    return replace(
        built,
        name=built.name or (f"{record['training']['data']}-{record['training']['network']}" if record else bare_name(path)),
        recipe=built.recipe if built.recipe is not None else record,
        checkpoint=Source(str(path), checkpoint.sha256, chosen.name),
        base=base,
        notices=_unique(*built.notices, *notices, *checkpoint.notices, *chosen.notices, *told),
        extras=built.extras or checkpoint.extras,
    )


def resolve(
    recipe: Recipe | None = None,
    *,
    task: str | Task | None = None,
    model: str | nn.Module | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    data: str | None = None,
    seed: int | None = None,
) -> Task:
    """A task without a checkpoint; the model has its initial weights.

    Args:
        recipe: a training recipe: the task has its network before the first step, and its data with their corruption.
        task, model, model_kwargs, data: as for `load`; with a recipe, `data` is the path of its data.
        seed: seed of the initial weights of a built-in network, or of a recipe as a whole.

    Raises:
        UsageError: neither a recipe, nor a task, nor a model with data; several of them; unknown names; a model that does not
            accept the data.

    Example:
        >>> resolve(model="mlp", data="digits").size("test")
        450
    """
    if recipe is not None:
        if task is not None or model is not None:
            raise UsageError("expected a recipe, a task or a model, found several of them", fix="leave the others out")
        return _untrained(recipe if seed is None else replace(recipe, seed=seed), data)
    if task is not None:
        if model is not None or data is not None:
            raise UsageError("expected either --task, or --model with --data; found both", fix="leave one of them out")
        return task if isinstance(task, Task) else load_user_task(task, model_kwargs)
    if model is None or data is None:
        missing = "--model" if model is None else "--data"
        raise UsageError(
            f"expected --task FILE, or --model NAME with --data KIND:PATH; found no {missing}", fix=f"add {missing}"
        )
    model = full_name(model) if isinstance(model, str) else model
    spec = DataSpec.parse(data)
    if spec.kind == "text":
        return text_task(model, model_kwargs or {}, spec)
    found = read_data(spec)
    options = dict(model_kwargs or {})
    if isinstance(model, str) and ":" not in model:
        options = network_options(model, tuple(found.train_x.shape[1:]), len(found.classes)) | options
        options |= {} if seed is None else {"seed": seed}
    if isinstance(model, nn.Module) and options:
        raise UsageError("expected model options with the name of a model, found a module that is already built")
    net = model if isinstance(model, nn.Module) else model_by_name(model, options)
    if (role := role_of(getattr(net.config, "architectures", None)) if hasattr(net, "config") else None) in TEXT:
        raise UsageError(f"expected text for a {role}, found {spec.kind}", fix="pass --data text:FILE")
    built = _task(net, found.train(), found.test(), model if isinstance(model, str) else type(model).__name__)
    _try(built, found)
    return built


def _task(model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor] | None, name: str | None) -> Task:
    """A classification task with cross-entropy, for the built-in data."""
    return Task(model, nn.CrossEntropyLoss(), train, test, name=name)


def _untrained(recipe: Recipe, data: str | None) -> Task:
    """A recipe's task before training."""
    recipe, spec = located(recipe, data)
    found = read_data(spec).first(recipe.samples)
    corrupted = corruption_of(recipe, found)
    dtype = WEIGHT_DTYPES[recipe.dtype]
    net = build(recipe.network, seed=recipe.seed, **options_for(recipe, found)).to(dtype)
    return _corrupted_task(net, found, corrupted, dtype, recipe.network)


def _corrupted_task(net: nn.Module, data: DataSet, used: Corrupted, dtype: torch.dtype, name: str | None) -> Task:
    """The task with corrupted data."""
    test = None if used.test_x is None or data.test_y is None else (data.prepare(used.test_x, dtype), data.test_y)
    return _task(net, (data.prepare(used.x, dtype), used.y), test, name)


def _record(
    path: str | Path, checkpoint: checkpoints.Checkpoint, chosen: checkpoints.Weights, data: str | None
) -> Mapping[str, Any]:
    """The checkpoint's record of its training; without one, the error that says what is missing and what the weights fit."""
    recipe = checkpoint.recipe
    if not isinstance(recipe, Mapping) or "training" not in recipe:
        raise unnamed(path, checkpoint, chosen, data)
    if recipe.get("schema") != SCHEMA:
        raise UsageError(
            f"expected a recipe of schema {SCHEMA}, found {recipe.get('schema')!r}", fix="use the version that wrote it"
        )
    return recipe


def _recorded(
    record: Mapping[str, Any], extras: Mapping[str, Tensor], data: str | None, state: Mapping[str, Tensor]
) -> tuple[Task, tuple[str, ...]]:
    """The task that a checkpoint of `landscape train` describes, and notices about it."""
    recipe = Recipe.from_json(record["training"])
    kept = _mapping(record.get("data"))
    here, spec = located(recipe, data)
    if data is None and spec.kind != "digits":
        raise _untold(spec, kept.get("path"))
    found = read_data(spec)
    dtype = WEIGHT_DTYPES[recipe.dtype]
    net = _network(recipe, _mapping(_mapping(record.get("network")).get("options")), state).to(dtype)
    used = found.first(min(recipe.samples or len(found.train_y), len(found.train_y)))
    if used.fingerprint == kept.get("sha256"):
        corrupted = corruption_of(recipe, used)
        notices = _check_labels(extras.get("train_labels"), corrupted.y)
        return _corrupted_task(net, used, corrupted, dtype, None), notices
    if data is None:
        raise UsageError(
            f"expected the data that the network was trained on, found other data in {spec}",
            fix=f"pass their path with --data {here.data}:PATH, or pass --data {spec} to use these without corruption",
        )
    task = _task(net, found.train(), found.test(), None)
    _try(task, found)
    return task, (f"{spec} does not hold the data that the network was trained on: they are used without corruption",)


def _network(recipe: Recipe, options: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The recipe's network. Before it is allocated, its size is compared with the weights in the file."""
    shapes = build(recipe.network, device="meta", **options).state_dict()
    wanted, held = (sum(t.numel() for t in tensors.values()) for tensors in (shapes, state))
    if wanted > 2 * held + 1000:
        raise MismatchError(
            f"expected {wanted} values for the recipe's {recipe.network}, found {held} in the checkpoint",
            fix="name its model and data with --model and --data",
        )
    return build(recipe.network, seed=recipe.seed, **options)


def _check_labels(kept: Tensor | None, recomputed: Tensor) -> tuple[str, ...]:
    """Compare the labels from the recipe's seed with those in the checkpoint."""
    if kept is None:
        return ("training labels recomputed from the seed; the checkpoint has none to compare them with",)
    if not torch.equal(kept, recomputed):
        raise MismatchError(
            "expected the training labels that the recipe's seed gives, found others in the checkpoint",
            fix="train again, or name the data with --task",
        )
    return ()


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a dictionary with text keys, else an empty one; a checkpoint may contain anything."""
    return value if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) else {}


def _untold(spec: DataSpec, path: Any) -> UsageError:
    """The error that asks for a path; a path in a checkpoint is not opened unless the user names it, too."""
    there = f" (they were at {printable(path, limit=200)!r})" if isinstance(path, str) else ""
    return UsageError(
        f"expected the path of the {spec.kind} data, found only the checkpoint's description of them{there}",
        fix=f"name them with --data {spec.kind}:PATH",
    )


def _try(task: Task, data: DataSet) -> None:
    """Run one sample through the network: it must accept its shape and have an output for every class."""
    x, _ = task.train if isinstance(task.train, tuple) else (None, None)
    assert isinstance(x, Tensor)
    modes = {module: module.training for module in task.model.modules()}
    first = next(task.model.parameters(), x)
    sample = x[:1].to(device=first.device, dtype=first.dtype if x.is_floating_point() else None)
    try:
        with torch.no_grad():
            output = task.model.eval()(sample)
    except Exception as error:  # networks may raise anything for an input of the wrong shape
        raise UsageError(
            f"expected a network that accepts samples of shape {tuple(x.shape[1:])}, found: {str(error).splitlines()[0]}",
            fix=channels_first(x.shape) or "choose data and network options that fit each other",
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    outputs = output.shape[1] if isinstance(output, Tensor) and output.ndim > 1 else 0
    if outputs < len(data.classes):
        raise UsageError(
            f"expected an output for each of {len(data.classes)} classes, found {outputs}",
            fix=from_one(data.train_y, outputs) or f"pass the number of classes, e.g. -M num_classes={len(data.classes)}",
        )


def _unique(*notices: str) -> tuple[str, ...]:
    """Notices without duplicates, in order."""
    return tuple(dict.fromkeys(notices))
