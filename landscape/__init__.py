"""Loss landscapes and sharpness of PyTorch networks: every number has an error bar, every claim a check.

    import landscape as ls

    objective = ls.Objective(model, loss, data)
    print(ls.sharpness(objective))

Names are imported when they are first used, so that `import landscape` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from landscape.errors import LandscapeError
from landscape.version import __version__

if TYPE_CHECKING:
    from landscape.comparison import compare
    from landscape.information_plane import information, mutual_information
    from landscape.machine.shown_progress import progress
    from landscape.machine.torchrun import joined
    from landscape.measures import (
        MEASURES,
        adaptive_lambda_max,
        adaptive_trace,
        asam,
        forecast,
        frobenius,
        keskar,
        lambda_max,
        lambda_min,
        sam,
        sharpness,
        trace,
    )
    from landscape.memorization import samples
    from landscape.network.losses.model_loss import ModelLoss
    from landscape.network.losses.next_token import NextTokenLoss
    from landscape.objective import Objective
    from landscape.reparam import certificate, find_symmetries, rescale
    from landscape.spectra import breakdown, eigenpairs, minibatch_spectra, spectral_density
    from landscape.surfaces import interpolation, line, plane, train_curve
    from landscape.tasks import Task, load
    from landscape.watching import MemorizationAlarm, Watch

_HOMES = {
    "ModelLoss": "network.losses.model_loss",
    "NextTokenLoss": "network.losses.next_token",
    "Objective": "objective",
    "Task": "tasks",
    "load": "tasks",
    "MEASURES": "measures",
    "sharpness": "measures",
    "lambda_max": "measures",
    "lambda_min": "measures",
    "trace": "measures",
    "frobenius": "measures",
    "keskar": "measures",
    "adaptive_trace": "measures",
    "adaptive_lambda_max": "measures",
    "sam": "measures",
    "asam": "measures",
    "forecast": "measures",
    "samples": "memorization",
    "breakdown": "spectra",
    "eigenpairs": "spectra",
    "minibatch_spectra": "spectra",
    "spectral_density": "spectra",
    "information": "information_plane",
    "mutual_information": "information_plane",
    "line": "surfaces",
    "plane": "surfaces",
    "interpolation": "surfaces",
    "train_curve": "surfaces",
    "rescale": "reparam",
    "find_symmetries": "reparam",
    "certificate": "reparam",
    "compare": "comparison",
    "joined": "machine.torchrun",
    "MemorizationAlarm": "watching",
    "progress": "machine.shown_progress",
    "Watch": "watching",
}

__all__ = [
    "MEASURES",
    "LandscapeError",
    "MemorizationAlarm",
    "ModelLoss",
    "NextTokenLoss",
    "Objective",
    "Task",
    "Watch",
    "__version__",
    "adaptive_lambda_max",
    "adaptive_trace",
    "asam",
    "breakdown",
    "certificate",
    "compare",
    "eigenpairs",
    "find_symmetries",
    "forecast",
    "frobenius",
    "information",
    "interpolation",
    "joined",
    "keskar",
    "lambda_max",
    "lambda_min",
    "line",
    "load",
    "minibatch_spectra",
    "mutual_information",
    "plane",
    "progress",
    "rescale",
    "sam",
    "samples",
    "sharpness",
    "spectral_density",
    "trace",
    "train_curve",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the subpackage that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'landscape' has no attribute {name!r}")
    return getattr(importlib.import_module(f"landscape.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
