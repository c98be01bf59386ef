"""The forward pass of a network on its data: outputs for a batch at any weights.

Every quantity is a sum over batches of (weight of the batch / total weight) * (mean loss of the batch), so that a smaller last
batch has the right weight. Several processes each compute a part of the sum. The parameters are placed in a private copy of the
module while it runs, see `landscape.network.functional`.
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
from landscape.network.functional import called, holding
from landscape.network.losses.mean_loss import MeanLoss
from landscape.network.outputs import Position, picked
from landscape.network.parameters import Layout

# ForwardPass or a subclass.
Pass = TypeVar("Pass", bound="ForwardPass")


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A model, a loss, the data, and the weights that vary.

    Attributes:
        model: a private copy in eval mode; of its own parameters only those outside `layout` are used.
        loss: the loss as a weighted mean.
        batches: on the device, in order.
        layout: the weights that vary.
        transform: applied to the outputs before the loss; None for none.
        folded: the network with its BatchNorms folded, which computes the same outputs; None to use `model`.
        group: the processes that divide the samples among them; each holds all samples.
        output: position of the tensor that the loss takes in what the network returns; see `landscape.network.outputs`.
        fixed: by name, rows of weights on which the loss depends but which have no gradient, such as the padding row of an
            embedding, with their trained values. They keep these values at every theta.
        writes: whether the forward pass writes to its weights, as `Embedding(max_norm=...)` does, or to its inputs; it is
            then called with copies.
    """

    model: nn.Module
    loss: MeanLoss
    batches: list[Batch]
    layout: Layout
    transform: Callable[[Tensor], Tensor] | None = None
    folded: Folded | None = None
    group: Group = ALONE
    output: Position = None
    fixed: Mapping[str, tuple[Int[Tensor, " rows"], Tensor]] = field(default_factory=dict)
    writes: bool = False

    def forward(self, params: dict[str, Tensor], batch: Batch, fold: bool = True) -> Tensor:
        """The network's output for one batch, in the form that the loss takes."""
        batch = batch.map(Tensor.clone) if self.writes else batch
        folded = self.folded if fold else None
        model, params = (self.model, params) if folded is None else (folded.model, folded(params))
        output = self.run(model, params, batch)
        return output if self.transform is None else self.transform(output)

    def run(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The tensor that the loss takes, of a module at these weights; for a loss of (model, batch), its value."""
        if self.loss.of_model is None:
            return picked(called(model, params, batch), self.output, len(batch))
        given = batch.map(Tensor.detach)  # the function may mark its inputs, to differentiate in them
        with holding(model, params):
            return self.loss.of_model(model, given.args[0])

    def outputs(self, theta: Float[Tensor, " P"]) -> Tensor:
        """The network's outputs for every sample, (N, ...), on the CPU."""
        self.loss.require_outputs("the network's outputs")
        params = self.tensors(theta)
        with values():
            return torch.cat([self.forward(params, b).detach().cpu() for b in self.batches])

    def tensors(self, theta: Float[Tensor, "*k P"]) -> dict[str, Tensor]:
        """The weights at theta by name: views of theta, or copies where rows are fixed or the pass writes to its weights."""
        named = self.layout.unflatten(theta.detach())
        for name, (rows, trained) in self.fixed.items():
            if name in named:
                named[name] = named[name].index_copy(0, rows, trained.to(theta.dtype))
        return {name: t.clone() for name, t in named.items()} if self.writes else named

    def at(self, theta: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Theta with fixed rows at their trained values."""
        return self.layout.flatten(self.tensors(theta)) if self.fixed else theta

    @cached_property
    def divisible(self) -> bool:
        """Whether samples may be processed separately, as far as the loss, the data and every layer are concerned."""
        mixes = any(isinstance(m, _BatchNorm) and (m.running_mean is None or m.training) for m in self.model.modules())
        return self.loss.comes_apart and not mixes and all(b.divisible for b in self.batches)

    @cached_property
    def weighted(self) -> list[tuple[Batch, float]]:
        """Every batch with its share of the mean."""
        return shares(self.batches, self.batches)

    @cached_property
    def own(self) -> list[tuple[Batch, float]]:
        """This process's batches, or parts of batches, with their shares of the whole mean; may be empty."""
        if self.group.size == 1 or not self.divisible:
            return self.weighted[self.group.part(len(self.weighted))]
        part = self.group.part(sum(map(len, self.batches)))
        return shares(between(self.batches, part.start, part.stop), self.batches)

    def by_input(self, params: dict[str, Tensor]) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the network at these weights as a function of its input, the inputs, and the targets."""
        self.loss.require_outputs("derivatives in the inputs")
        for batch in self.batches:
            if batch.kwargs or len(batch.args) != 1 or not batch.args[0].is_floating_point():
                raise UsageError(
                    "expected a model that takes one tensor of real numbers, found another",
                    fix="this needs gradients with respect to the inputs",
                )

            def network(x: Tensor, batch: Batch = batch) -> Tensor:
                # Only outputs are needed, so the targets are placeholders, one for each input.
                return self.forward(params, Batch((x,), {}, batch.target.new_zeros(len(x))))

            yield network, batch.args[0], batch.target

    def to(self: Pass, dtype: torch.dtype) -> Pass:
        """The same forward pass in another dtype; model, loss and data are converted copies."""
        device = self.batches[0].target.device
        loss, model = self.loss.to(device, dtype), converted(owned(self.model), None, dtype)
        batches = placed(self.batches, device, dtype)
        twin = replace(self, model=model, loss=loss, batches=batches, folded=None)
        return twin if self.folded is None else replace(twin, folded=self.folded.of(model))

    def holding(self: Pass, tensors: Mapping[str, Tensor]) -> Pass:
        """The same forward pass with the given weights and buffers, by name, in a copy of the network; others are unchanged.

        Raises:
            MismatchError: the network has no tensor of that name, or one of another shape.
        """
        model = owned(self.model)
        existing = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, t in tensors.items():
            if name not in existing or existing[name].shape != t.shape:
                found = f"shape {tuple(existing[name].shape)}" if name in existing else "none of that name"
                raise MismatchError(f"expected a network with {name} of shape {tuple(t.shape)}, found {found}")
            existing[name].data.copy_(t)
        return replace(self, model=model, folded=None if self.folded is None else self.folded.of(model))

    def per_sample(self, leaves: dict[str, Tensor], batch: Batch) -> Float[Tensor, " B"]:
        """The loss of every sample, differentiable."""
        self.loss.require_outputs("the loss of every sample")
        losses = self.loss.per_sample(self.forward(leaves, batch), batch.target, batch.weights)
        if losses is None:
            raise UsageError(
                "expected a loss that is a mean over samples, found one without a loss for each sample",
                fix="use one of PyTorch's losses",
            )
        return losses
