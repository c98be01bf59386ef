"""Tasks: model, loss and data; built-in networks, data sets, corruption and training; a user's task.py.

Names are looked up on first use, so that the command line can list the training tasks without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.tasks.corruption import CONDITIONS, corrupt
    from landscape.tasks.data import read_data
    from landscape.tasks.dataset import KINDS, DataSet
    from landscape.tasks.libraries import parse_options
    from landscape.tasks.loading import load, resolve
    from landscape.tasks.networks import NETWORKS, build
    from landscape.tasks.recipe import Recipe
    from landscape.tasks.task import Source, Task
    from landscape.tasks.trainer import Record
    from landscape.tasks.training import Trained, train
    from landscape.tasks.training_tasks import DEMO_RECIPES, TRAINING_TASKS, TrainingTask, customise

_HOME = {
    "CONDITIONS": "corruption",
    "corrupt": "corruption",
    "KINDS": "dataset",
    "DataSet": "dataset",
    "read_data": "data",
    "parse_options": "libraries",
    "load": "loading",
    "resolve": "loading",
    "NETWORKS": "networks",
    "build": "networks",
    "Recipe": "recipe",
    "Source": "task",
    "Task": "task",
    "Record": "trainer",
    "Trained": "training",
    "train": "training",
    "DEMO_RECIPES": "training_tasks",
    "TRAINING_TASKS": "training_tasks",
    "TrainingTask": "training_tasks",
    "customise": "training_tasks",
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
