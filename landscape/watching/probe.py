"""The loss of a network in training on a fixed batch: built once, then read off the network's weights at each check."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from landscape.network.copying import owned, unwrapped
from landscape.objective import Objective


class Probe:
    """The Objective of a network that is being trained.

    An Objective refuses weights that change. Here one is built of a copy, whose checks hold for all of the training, and each
    check of the training evaluates it at a snapshot of weights and buffers.

    Args:
        model, loss, batch, options: as for `Objective`.
        batch_statistics: whether BatchNorm normalizes by the statistics of the batch, as in training, or by its running ones.

    Raises:
        UsageError, NumericalError: as `Objective`.

    Cost: a copy of the model, and the checks of an Objective before its first derivative.
    """

    def __init__(self, model: nn.Module, loss: Any, batch: Any, *, batch_statistics: bool = False, **options: Any) -> None:
        self.model = unwrapped(model)
        running = Objective(owned(self.model), loss, batch, **options).alone()
        running.preflight()
        self._base = running.batch_normalized() if batch_statistics and running.batchnorms else running
        _ = self._base.plan  # memory and method are chosen here, once: what `at` derives keeps them
        named = dict(self.model.named_parameters())
        self.weights = [named[name] for name in self._base.layout.names]
        self._rest = [name for name in (*named, *self._base.buffers) if name not in self._base.layout.names]

    @property
    def base(self) -> Objective:
        """The Objective at the weights that the network had at first."""
        return self._base

    def now(self) -> Objective:
        """The Objective at the network's present weights and buffers. Cost: a copy of the model, no pass over the data."""
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        found = {n: t.clone() if t.is_inference() else t.detach() for n, t in named}  # a graph takes no inference tensor
        theta = self._base.layout.flatten(found)
        return self._base.at(theta, {name: found[name] for name in self._rest})


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Put back every random state after the block: of Python, of NumPy, of PyTorch and, once it is in use, of CUDA.

    Autocast is off inside: what is measured is the loss in the precision of the Objective. So is inference mode, in which
    there are no gradients.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the caller's own global state
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        with torch.autocast(device.type, enabled=False), torch.inference_mode(False):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as above
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
