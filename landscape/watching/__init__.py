"""Sharpness through a training run: from its own loop, from callbacks of training libraries, or from saved checkpoints."""

from landscape.watching.optimizer_state import preconditioner
from landscape.watching.watcher import Watch

__all__ = ["Watch", "preconditioner"]
