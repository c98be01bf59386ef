"""Read checkpoints safely as plain tensors, select the weights in a file, and load them into a model."""

from landscape.checkpoints.checkpoint import Checkpoint, read
from landscape.checkpoints.describe import CandidateSummary, Description, TensorRow, describe
from landscape.checkpoints.fitting.fit import fit
from landscape.checkpoints.save import save
from landscape.checkpoints.series import CheckpointFiles
from landscape.checkpoints.weights import Weights

__all__ = [
    "CandidateSummary",
    "Checkpoint",
    "CheckpointFiles",
    "Description",
    "TensorRow",
    "Weights",
    "describe",
    "fit",
    "read",
    "save",
]
