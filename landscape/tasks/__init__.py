"""Tasks: model, loss and data; built-in networks, data sets, corruption and training; a user's task.py.

Names are imported on first use, so that the command line can list the training tasks without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.tasks.data.by_name import read_data
    from landscape.tasks.data.corruption import CONDITIONS, corrupt
    from landscape.tasks.data.dataset import KINDS, DataSet
    from landscape.tasks.libraries import model_by_name, parse_options
    from landscape.tasks.loading import load, resolve
    from landscape.tasks.networks import NETWORKS, build
    from landscape.tasks.task import Source, Task
    from landscape.tasks.training.by_recipe import Trained, train
    from landscape.tasks.training.named_runs import DEMO_RECIPES, TRAINING_TASKS, TrainingTask, customise
    from landscape.tasks.training.recipe import Recipe
    from landscape.tasks.training.trainer import Record

_HOME = {
    "CONDITIONS": "data.corruption",
    "corrupt": "data.corruption",
    "KINDS": "data.dataset",
    "DataSet": "data.dataset",
    "read_data": "data.by_name",
    "model_by_name": "libraries",
    "parse_options": "libraries",
    "load": "loading",
    "resolve": "loading",
    "NETWORKS": "networks",
    "build": "networks",
    "Recipe": "training.recipe",
    "Source": "task",
    "Task": "task",
    "Record": "training.trainer",
    "Trained": "training.by_recipe",
    "train": "training.by_recipe",
    "DEMO_RECIPES": "training.named_runs",
    "TRAINING_TASKS": "training.named_runs",
    "TrainingTask": "training.named_runs",
    "customise": "training.named_runs",
}

__all__ = [
    "CONDITIONS",
    "DEMO_RECIPES",
    "KINDS",
    "NETWORKS",
    "TRAINING_TASKS",
    "DataSet",
    "Recipe",
    "Record",
    "Source",
    "Task",
    "Trained",
    "TrainingTask",
    "build",
    "corrupt",
    "customise",
    "load",
    "model_by_name",
    "parse_options",
    "read_data",
    "resolve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
