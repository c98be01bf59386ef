"""How values, gradients and curvature products of a network are computed: the engine behind Objective.

Everything is a sum over batches of (weight of the batch / total weight) * (mean loss of the batch), so that a ragged last batch
counts for what it is; of several processes each has its part of the sum, and Objective adds the parts up. Parameters stand in
the engine's own copy of the module while it runs, see `landscape.functional`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.arithmetic import exact_math, values
from landscape.batches import Batch, between, placed, shares
from landscape.copying import converted, owned
from landscape.derivatives import grad, pusher, vjp, vjps
from landscape.distributed import ALONE, Group
from landscape.double_backward import twice_differentiable
from landscape.errors import MismatchError, UsageError
from landscape.folding import Folded
from landscape.functional import called, holding
from landscape.losses import MeanLoss
from landscape.memory import Affine
from landscape.method import PLAIN, TOGETHER, Method
from landscape.outputs import picked
from landscape.parameters import Layout
from landscape.retained import BUDGET, FirstOrder, Kept, saved_bytes


@dataclass(frozen=True, eq=False)
class Engine:
    """Derivatives of the mean loss of `model` over `batches` with respect to the weights in `layout`.

    Attributes:
        model: in eval mode, owned by the engine; its own parameters are not looked at but for those outside `layout`.
        loss: the loss as a weighted mean.
        batches: on the device, in order.
        layout: the weights that vary.
        transform: of the outputs, before the loss sees them; None for none.
        folded: the network with its BatchNorms folded, which computes the same; None to use `model` as it is.
        group: the processes that share the samples out; every one keeps them all.
        output: where in what the network returns the tensor stands that the loss takes; see `landscape.outputs`.
        fixed: by name, the rows of weights that no derivative reaches though the loss depends on them, as the padding row of an
            embedding, and their trained values, which they keep at every theta.
        writes: whether the forward pass writes to its weights, as `Embedding(max_norm=...)` does, or to its inputs: it is given
            copies then.
        method: how graphs are built that are differentiated twice.
        room: bytes of first-order graphs that may stay between products.
        held: bytes of such a graph by the number of samples, where they were measured.
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
    method: Method = PLAIN
    room: int = BUDGET
    held: Affine | None = None
    _kept: Kept = field(init=False, default_factory=Kept, repr=False)

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

    def gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Mean loss and its gradient; of several processes this one's part of both. Cost: 3 forward passes."""
        value, total = 0.0, torch.zeros_like(theta)
        with self.derivatives(theta):
            for batch, share in self.own:
                leaves = self.leaves(theta)
                loss = self.loss.mean(self.forward(leaves, batch), batch.target)
                total += share * self._flat(grad(loss, leaves))
                value += share * float(loss.detach())
        return value, total

    def hvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """H v for k vectors, by reverse over reverse with the first-order pass shared.

        Cost: 3 + 6k forward passes; 6k where the graphs of the first-order pass are still there from the last call.
        """
        out = torch.zeros_like(v)
        with self.derivatives(theta):
            if self._kept.fits is None:
                self._kept.fits = self.graph_bytes(theta) <= self.room
            for graph in self._kept.graphs(theta, lambda: self.first_order(theta)):
                if self.method.together and len(v) > 1:
                    for rows, sums in zip(v.split(TOGETHER), out.split(TOGETHER), strict=True):
                        found = vjps(graph.gradient, graph.leaves, self.layout.unflatten(rows))
                        sums += graph.share * torch.cat([t.flatten(1) for t in found.values()], 1)
                    continue
                for i, row in enumerate(v):
                    out[i] += graph.share * self._flat(vjp(graph.gradient, graph.leaves, self.layout.unflatten(row)))
        return out

    def first_order(self, theta: Float[Tensor, " P"]) -> Iterator[FirstOrder]:
        """The graph of every batch's gradient, one after another."""
        for batch, share in self.own:
            leaves = self.leaves(theta)
            yield FirstOrder(leaves, self._slope(leaves, batch), share)

    def _slope(self, leaves: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The gradient of a batch's loss as a function of the leaves, in this engine's way."""
        with self.method.graph():
            output = self.forward(leaves, self.method.laid_out(batch), self.method.folded)
            loss = self.loss.mean(output, batch.target)
        return grad(loss, leaves, create_graph=True)

    def graph_bytes(self, theta: Float[Tensor, " P"], samples: int | None = None) -> float:
        """Estimate of what the first-order graphs of so many samples hold, all together, from those of one sample and of two.

        Infinite where batches of a single sample say too little.
        """
        if self.held is not None:
            return self.held.of(samples or sum(len(b) for b, _ in self.own)) + self.held.once * (len(self.own) - 1)
        batch = max(self.batches, key=len)
        if len(batch) < 2 or not self.divisible:
            return math.inf
        leaves, like = self.leaves(theta), replace(self, method=replace(self.method, smallest=0))

        def held(n: int) -> int:
            return saved_bytes(lambda: like._slope(leaves, batch[:n]), leaves)

        try:
            one, two = held(1), held(2)
        except RuntimeError:  # nothing may watch what a network saves that uses `torch.func` itself
            return math.inf
        return float(max(two - one, 0)) * (samples or sum(len(b) for b, _ in self.own)) + one * len(self.own)

    def held_at_once(self, theta: Float[Tensor, " P"], samples: int | None = None) -> int:
        """Bytes of graphs alive during a product: of all batches where they are kept, else of the largest; 0 where unknown."""
        whole = self.graph_bytes(theta, samples)
        if whole > self.room:
            whole *= max(map(len, self.batches)) / sum(map(len, self.batches))
        return int(whole) if math.isfinite(whole) else 0

    def ggnvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """G v, G = J^T (d2 loss / d output2) J, for k vectors in one pass. J v by reverse over reverse. Cost: 3 + 6k passes."""
        out = torch.zeros_like(v)
        with self.derivatives(theta):
            for batch, share in self.own:
                leaves = self.leaves(theta)
                output = self.forward(leaves, batch)
                push = pusher(output, leaves)
                bend = self.loss_curvature(output, batch)
                for i, row in enumerate(v):
                    out[i] += share * self._flat(
                        vjp({"output": output}, leaves, {"output": bend(push(self.layout.unflatten(row)))})
                    )
        return out

    def fishervp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """F v, F = sum_n w_n g_n g_n^T / sum_n w_n with every sample's own gradient g_n, for k vectors. Cost: 3 + 6k passes."""
        out = torch.zeros_like(v)
        with self.derivatives(theta):
            for batch, share in self.own:
                leaves = self.leaves(theta)
                losses = self.per_sample(leaves, batch)
                weights = batch.sample_weights.to(losses)
                push = pusher(losses, leaves)
                for i, row in enumerate(v):
                    slopes = push(self.layout.unflatten(row)) * weights / weights.sum()
                    out[i] += share * self._flat(vjp({"losses": losses}, leaves, {"losses": slopes}))
        return out

    def by_input(self, params: dict[str, Tensor]) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the network with these weights as a function of its inputs, its inputs, its targets."""
        for batch in self.batches:
            if batch.kwargs or len(batch.args) != 1 or not batch.args[0].is_floating_point():
                raise UsageError("expected a model that takes one tensor of real numbers", fix="inputs have no gradient here")

            def network(x: Tensor, batch: Batch = batch) -> Tensor:
                # Any number of inputs, of which only the outputs are wanted.
                return self.forward(params, Batch((x,), {}, batch.target.new_zeros(len(x))))

            yield network, batch.args[0], batch.target

    def to(self, dtype: torch.dtype) -> "Engine":
        """Its twin in another dtype: model, loss and data are converted copies."""
        device = self.batches[0].target.device
        loss, model = self.loss.to(device, dtype), converted(owned(self.model), None, dtype)
        batches = placed(self.batches, device, dtype)
        twin = replace(self, model=model, loss=loss, batches=batches, folded=None, method=PLAIN, held=None)
        return twin if self.folded is None else replace(twin, folded=self.folded.of(model))

    def holding(self, tensors: Mapping[str, Tensor]) -> "Engine":
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

    def loss_curvature(self, output: Tensor, batch: Batch) -> Callable[[Tensor], Tensor]:
        """u -> (d2 loss / d output2) u of the batch's mean loss."""
        at = output.detach().requires_grad_()
        slope = grad(self.loss.mean(at, batch.target), {"output": at}, create_graph=True)
        return lambda u: vjp(slope, {"output": at}, {"output": u})["output"]

    @contextmanager
    def derivatives(self, theta: Float[Tensor, " P"]) -> Iterator[None]:
        """Arithmetic for derivatives of this network at theta, with operations that have second ones.

        Its layers hold these weights all along, so that a backward pass that runs a layer again, as activation checkpointing
        does, runs it at theta.
        """
        recurrent = any(isinstance(m, nn.RNNBase) for m in self.model.modules())
        leaves = self.leaves(theta)
        with ExitStack() as stack:
            stack.enter_context(exact_math(derivatives=True, recurrent=recurrent))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(twice_differentiable())
            stack.enter_context(holding(self.model, leaves))
            if self.folded is not None:
                stack.enter_context(holding(self.folded.model, self.folded(leaves)))
            yield

    def leaves(self, theta: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """Parameters as leaves of a fresh graph; views of theta where they can be."""
        return {name: t.detach().requires_grad_() for name, t in self.tensors(theta).items()}

    def _flat(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.layout.flatten(tensors)
