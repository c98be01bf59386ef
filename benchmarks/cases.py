"""A network with its data: what every candidate is given."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import landscape as ls
from benchmarks.networks import TITLES, trained

BATCH = 128  # samples that go through a network together; every tool gets the same batches


@dataclass(frozen=True)
class Case:
    """A trained network, its loss, and the first samples of its training data.

    Attributes:
        name, title: of the network.
        model: in eval mode; candidates get copies.
        loss: the mean over samples.
        x, y: all samples.
        origin: what another process needs to make the same: name, data, checkpoint.
    """

    name: str
    title: str
    model: nn.Module
    loss: nn.Module
    x: Tensor
    y: Tensor
    origin: tuple[str, str | None, str | None]

    @classmethod
    def of(cls, name: str, data: str | None = None, checkpoint: str | Path | None = None) -> "Case":
        """A network by name; ResNet-20 from a checkpoint and data of the user's own where they are given."""
        title = TITLES[name]
        if name == "resnet20" and checkpoint is not None:
            task = ls.load(checkpoint, model="resnet20", data=data)
            model, (x, y), title = task.model.eval(), task.data("train"), f"{title}, {Path(checkpoint).name}"
        else:
            model, x, y = trained(name)
        origin = (name, data, None if checkpoint is None else str(checkpoint))
        return cls(name, title, model, nn.CrossEntropyLoss(), x, y, origin)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.x)

    @property
    def weights(self) -> int:
        """How many weights the network has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def batch(self) -> int:
        """Samples a batch."""
        return min(BATCH, self.samples)

    @property
    def images(self) -> bool:
        """Whether there is a choice of memory format."""
        return self.x.ndim == 4 and any(isinstance(m, nn.Conv2d) for m in self.model.modules())

    def first(self, samples: int) -> "Case":
        """The same with the first samples only; a multiple of a batch, since not every peer weights a short batch rightly."""
        samples = min(samples, self.samples)
        if samples > BATCH:
            samples -= samples % BATCH
        return replace(self, x=self.x[:samples], y=self.y[:samples])

    def laid_out(self, channels_last: bool) -> "Case":
        """A copy whose network and images are stored in one of the two memory formats."""
        form = torch.channels_last if channels_last else torch.contiguous_format
        model = copy.deepcopy(self.model)
        if not self.images:
            return replace(self, model=model)
        return replace(self, model=model.to(memory_format=form), x=self.x.contiguous(memory_format=form))

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The data in batches."""
        return list(zip(self.x.split(self.batch), self.y.split(self.batch), strict=True))
