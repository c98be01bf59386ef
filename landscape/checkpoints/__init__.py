"""Read checkpoints safely as plain tensors, select the weights in a file, and load them into a model.

Names are imported on first use, so that a file that is missing or no checkpoint is refused without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscape.checkpoints.checkpoint import Checkpoint, read
    from landscape.checkpoints.description import CandidateSummary, Description, TensorRow, describe
    from landscape.checkpoints.fitting.fit import fit
    from landscape.checkpoints.saving import save
    from landscape.checkpoints.series import CheckpointFiles
    from landscape.checkpoints.streaming import Streamed, stream
    from landscape.checkpoints.weights import Weights

_HOME = {
    "Checkpoint": "checkpoint",
    "read": "checkpoint",
    "CandidateSummary": "description",
    "Description": "description",
    "TensorRow": "description",
    "describe": "description",
    "fit": "fitting.fit",
    "save": "saving",
    "CheckpointFiles": "series",
    "Streamed": "streaming",
    "stream": "streaming",
    "Weights": "weights",
}

__all__ = [
    "CandidateSummary",
    "Checkpoint",
    "CheckpointFiles",
    "Description",
    "Streamed",
    "TensorRow",
    "Weights",
    "describe",
    "fit",
    "read",
    "save",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
