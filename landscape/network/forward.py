"""The forward pass of a network on its data: what it returns for a batch, at any weights, before anything is derived from it.

Everything is a sum over batches of (weight of the batch / total weight) * (mean loss of the batch), so that a ragged last batch
counts for what it is; of several processes each has its part of the sum. Parameters stand in a copy of the module of our own
while it runs, see `landscape.network.functional`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.errors import MismatchError, UsageError
from landscape.machine.arithmetic import values
from landscape.machine.distributed import ALONE, Group
from landscape.network.batches import Batch, between, placed, shares
from landscape.network.copying import converted, owned
from landscape.network.folding import Folded
from landscape.network.functional import called
from landscape.network.losses.mean_loss import MeanLoss
from landscape.network.outputs import picked
from landscape.network.parameters import Layout

# A forward pass, with whatever a subclass of it has besides.
Pass = TypeVar("Pass", bound="ForwardPass")


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A model, a loss, their data, and the weights that vary.

    Attributes:
        model: in eval mode, a copy of our own; its own parameters are not looked at but for those outside `layout`.
        loss: the loss as a weighted mean.
        batches: on the device, in order.
        layout: the weights that vary.
        transform: of the outputs, before the loss sees them; None for none.
        folded: the network with its BatchNorms folded, which computes the same; None to use `model` as it is.
        group: the processes that share the samples out; every one keeps them all.
        output: where in what the network returns the tensor stands that the loss takes; see `landscape.network.outputs`.
        fixed: by name, the rows of weights that no derivative reaches though the loss depends on them, as the padding row of an
            embedding, and their trained values, which they keep at every theta.
        writes: whether the forward pass writes to its weights, as `Embedding(max_norm=...)` does, or to its inputs: it is given
            copies then.
    """

    model: nn.Module
    loss: MeanLoss
    batches: list[Batch]
    layout: Layout
    transform: Callable[[Tensor], Tensor] | None = None
    folded: Folded | None = None
    group: Group = ALONE
    output: int | str | None = None
    fixed: Mapping[str, tuple[Int[Tensor, " rows"], Tensor]] = field(default_factory=dict)
    writes: bool = False

    def forward(self, params: dict[str, Tensor], batch: Batch, fold: bool = True) -> Tensor:
        """The network's output for one batch, as the loss takes it."""
        batch = batch.map(Tensor.clone) if self.writes else batch
        if self.folded is None or not fold:
            found = picked(called(self.model, params, batch), self.output, len(batch))
        else:
            found = picked(called(self.folded.model, self.folded(params), batch), self.output, len(batch))
        return found if self.transform is None else self.transform(found)

    def outputs(self, theta: Float[Tensor, " P"]) -> Tensor:
        """The network's outputs for every sample, (N, ...), on the CPU."""
        params = self.tensors(theta)
        with values():
            return torch.cat([self.forward(params, b).detach().cpu() for b in self.batches])

    def tensors(self, theta: Float[Tensor, "*k P"]) -> dict[str, Tensor]:
        """The weights at theta under their names: views of it, but for those that do not vary or would be written to."""
        named = self.layout.unflatten(theta.detach())
        for name, (rows, trained) in self.fixed.items():
            if name in named:
                named[name] = named[name].index_copy(0, rows, trained.to(theta.dtype))
        return {name: t.clone() for name, t in named.items()} if self.writes else named

    def at(self, theta: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Theta with the trained values of what does not vary."""
        return self.layout.flatten(self.tensors(theta)) if self.fixed else theta

    @cached_property
    def divisible(self) -> bool:
        """Whether samples may be taken apart: by the loss, by the data, by every layer."""
        mixes = any(isinstance(m, _BatchNorm) and (m.running_mean is None or m.training) for m in self.model.modules())
        return self.loss.comes_apart and not mixes and all(b.divisible for b in self.batches)

    @cached_property
    def weighted(self) -> list[tuple[Batch, float]]:
        """Every batch with its share of the mean."""
        return shares(self.batches, self.batches)

    @cached_property
    def own(self) -> list[tuple[Batch, float]]:
        """The batches, or parts of them, that fall to this process, with their shares of the whole mean; perhaps none."""
        if self.group.size == 1 or not self.divisible:
            return self.weighted[self.group.part(len(self.weighted))]
        part = self.group.part(sum(map(len, self.batches)))
        return shares(between(self.batches, part.start, part.stop), self.batches)

    def by_input(self, params: dict[str, Tensor]) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the network with these weights as a function of its inputs, its inputs, its targets."""
        for batch in self.batches:
            if batch.kwargs or len(batch.args) != 1 or not batch.args[0].is_floating_point():
                raise UsageError("expected a model that takes one tensor of real numbers", fix="inputs have no gradient here")

            def network(x: Tensor, batch: Batch = batch) -> Tensor:
                # Any number of inputs, of which only the outputs are wanted.
                return self.forward(params, Batch((x,), {}, batch.target.new_zeros(len(x))))

            yield network, batch.args[0], batch.target

    def to(self: Pass, dtype: torch.dtype) -> Pass:
        """Its twin in another dtype: model, loss and data are converted copies."""
        device = self.batches[0].target.device
        loss, model = self.loss.to(device, dtype), converted(owned(self.model), None, dtype)
        batches = placed(self.batches, device, dtype)
        twin = replace(self, model=model, loss=loss, batches=batches, folded=None)
        return twin if self.folded is None else replace(twin, folded=self.folded.of(model))

    def holding(self: Pass, tensors: Mapping[str, Tensor]) -> Pass:
        """Its twin with other weights and buffers, under their names, in a copy of the network; the others stay.

        Raises:
            MismatchError: the network has no such tensor, or one of another shape.
        """
        model = owned(self.model)
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, t in tensors.items():
            if name not in own or own[name].shape != t.shape:
                found = f"shape {tuple(own[name].shape)}" if name in own else "none of that name"
                raise MismatchError(f"expected a network with {name} of shape {tuple(t.shape)}, found {found}")
            own[name].data.copy_(t)
        return replace(self, model=model, folded=None if self.folded is None else self.folded.of(model))

    def per_sample(self, leaves: dict[str, Tensor], batch: Batch) -> Float[Tensor, " B"]:
        """Every sample's own loss, differentiable."""
        losses = self.loss.per_sample(self.forward(leaves, batch), batch.target, batch.weights)
        if losses is None:
            raise UsageError(
                "expected a loss that is a mean over samples, found one that does not come apart", fix="use a loss of PyTorch's"
            )
        return losses
