"""Weights of the folders of transformers and PEFT: streamed into the model, or an adapter on the weights of its base."""

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from landscape import checkpoints
from landscape.checkpoints.fitting import adapter
from landscape.checkpoints.fitting.fit import tensors_of
from landscape.checkpoints.weights import TOP
from landscape.machine.agreement import check_alike
from landscape.machine.distributed import group
from landscape.machine.json_values import plain
from landscape.network.identity.hashes import named_tensors, sha256
from landscape.tasks.hugging_face import with_adapter
from landscape.tasks.task import Source, Task


def streamed(path: Path, task: Task) -> Task | None:
    """The task with the weights of a checkpoint, copied into its model one tensor at a time; None where that is not possible.

    Args:
        path: a folder, an index of shards, or a safetensors file.
        task: its model is overwritten.

    Raises:
        UsageError: under torchrun, a process read another file.
        MalformedError, NumericalError: as for `checkpoints.stream`.
    """
    if not path.exists() or (path.is_dir() and (path / "adapter_config.json").exists()):
        return None
    found = checkpoints.stream(path, task.model)
    if found is None:
        return None
    check_alike(group(), {"checkpoint": found.sha256})
    notices = tuple(dict.fromkeys((*task.notices, *found.notices)))
    return replace(task, checkpoint=Source(str(path), found.sha256, TOP), notices=notices)


def on_its_base(task: Task, folder: str, chosen: checkpoints.Weights) -> Task:
    """The task with its model's own weights, from its folder, and an adapter on it whose weights are still to be loaded.

    Args:
        task: with the base, whose weights are random.
        folder: of the base.
        chosen: the adapter's weights and configuration.
    """
    base = streamed(Path(folder), task)
    if base is None:
        read = checkpoints.read(folder)
        told = (*read.notices, *checkpoints.fit(task.model, read.weights()))
        base = replace(task, checkpoint=Source(folder, read.sha256, TOP), notices=(*task.notices, *told))
    notice = (
        f"the base's weights are those of {folder} (sha256 {(base.sha256 or '')[:12]}), the adapter's those of the checkpoint"
    )
    return replace(base, model=with_adapter(task.model, chosen.adapter), checkpoint=None, notices=(*base.notices, notice))


def base_digest(model: nn.Module, chosen: checkpoints.Weights) -> str | None:
    """SHA-256 of the weights below an adapter, before it is loaded, and of its settings; None for a whole network's weights.

    Cost: one reading of the model's weights.
    """
    if not adapter.is_adapter(chosen.state):
        return None
    kept = adapter.held(chosen.state, tensors_of(model.state_dict(keep_vars=True)))
    settings = json.dumps(plain(dict(chosen.adapter or {})), sort_keys=True, default=str)
    return sha256([settings, *named_tensors({key: item for key, item in kept.items() if item.device.type != "meta"})])
