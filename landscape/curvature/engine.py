"""Gradients and curvature products of a network, on which Objective is built.

Each is a sum over the batches of a `ForwardPass`. With several processes each computes its part, and Objective adds up the
parts.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.double_backward import twice_differentiable
from landscape.curvature.double_backward.in_blocks import in_blocks
from landscape.curvature.kept_graphs import BUDGET, FirstOrder, Kept, saved_bytes
from landscape.curvature.linearized import Linearized
from landscape.curvature.method import PLAIN, TOGETHER, Method
from landscape.curvature.reverse_mode import grad, vjp, vjps
from landscape.machine.arithmetic import exact_math
from landscape.machine.memory import Affine
from landscape.network.batches import Batch
from landscape.network.forward import ForwardPass
from landscape.network.functional import holding

FEW = 8


@dataclass(frozen=True, eq=False)
class Engine(ForwardPass):
    """Derivatives of the mean loss of `model` over `batches` with respect to the weights in `layout`.

    Attributes:
        method: how graphs for second derivatives are built.
        room: bytes of first-order graphs that may be kept between products.
        held: bytes of such a graph by the number of samples, if measured.
        probabilities: such a graph holds those of a loss over a vocabulary, which otherwise are recomputed for every product.
        few: samples on which products are checked and timed before the first one; fewer where each takes much memory.
    """

    method: Method = PLAIN
    room: int = BUDGET
    held: Affine | None = None
    probabilities: bool = False
    few: int = FEW
    _kept: Kept[FirstOrder] = field(init=False, default_factory=Kept, repr=False)
    _outputs: Kept[Linearized] = field(init=False, default_factory=Kept, repr=False)
    _losses: Kept[Linearized] = field(init=False, default_factory=Kept, repr=False)
    _small: set[int] = field(init=False, default_factory=set, repr=False)  # batches, by identity, without anything large

    def gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Mean loss and its gradient; with several processes, this one's part of both. Cost: 3 forward passes."""
        value, total = 0.0, torch.zeros_like(theta)
        with self.derivatives(theta):
            for batch, share in self.own:
                leaves = self.leaves(theta)
                with self._large_in_blocks(batch):
                    loss = self.loss.mean(self.forward(leaves, self.method.laid_out(batch)), batch.target)
                self._add(total, grad(loss, leaves), share)
                value += share * float(loss.detach())
        return value, total

    def hvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """H v for k vectors, by reverse over reverse with a shared first-order pass.

        Cost: 3 + 6k forward passes; 6k if the graphs of the first-order pass were kept from the last call.
        """
        out = torch.zeros_like(v)
        with self.derivatives(theta):
            if self._kept.fits is None:
                self._kept.alone()
                self._kept.fits = self.graph_bytes(theta) <= self.room
            for graph in self._kept.graphs(theta, lambda: self.first_order(theta)):
                if self.method.together and len(v) > 1:
                    for rows, sums in zip(v.split(TOGETHER), out.split(TOGETHER), strict=True):
                        products = vjps(graph.gradient, graph.leaves, self.layout.unflatten(rows))
                        sums += graph.share * torch.cat([t.flatten(1) for t in products.values()], 1)
                    continue
                for i, row in enumerate(v):
                    self._add(out[i], vjp(graph.gradient, graph.leaves, self.layout.unflatten(row)), graph.share)
        return out

    def first_order(self, theta: Float[Tensor, " P"]) -> Iterator[FirstOrder]:
        """The graph of each batch's gradient, one after another."""
        for batch, share in self.own:
            leaves = self.leaves(theta)
            yield FirstOrder(leaves, self._slope(leaves, batch), share)

    def _slope(self, leaves: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The gradient of a batch's loss as a function of the leaves, by this engine's method."""
        with self.method.graph(), self._large_in_blocks(batch, self.probabilities):
            output = self.forward(leaves, self.method.laid_out(batch), self.method.folded)
            loss = self.loss.mean(output, batch.target)
        return grad(loss, leaves, create_graph=True)

    def graph_bytes(self, theta: Float[Tensor, " P"], samples: int | None = None) -> float:
        """Estimated bytes of the first-order graphs of this many samples, extrapolated from one sample and two.

        Where the data do not divide, or in batches of one sample, in proportion to the largest batch. Infinite if unknown.
        """
        if self.held is not None:
            return self.held.of(samples or sum(len(b) for b, _ in self.own)) + self.held.once * (len(self.own) - 1)
        leaves = self.leaves(theta)
        return self._extrapolated(lambda like, batch: saved_bytes(lambda: like._slope(leaves, batch), leaves), samples)

    def _extrapolated(self, held: Callable[["Engine", Batch], int], samples: int | None = None) -> float:
        """Bytes that graphs of all samples hold, or of so many, by those of one sample and of two; infinite if unknown.

        `held` tells the bytes of a batch's graph, by the engine that it is given.
        """
        batch = max(self.batches, key=len)
        wanted = samples or sum(len(b) for b, _ in self.own)
        # With so few samples no operation would reach the threshold.
        few = replace(self, method=replace(self.method, smallest=0))
        try:
            if len(batch) < 2 or not self.divisible:
                return held(self, batch) / len(batch) * wanted
            one, two = held(few, batch[:1]), held(few, batch[:2])
        except RuntimeError:  # a network that uses `torch.func` does not allow saved-tensor hooks
            return math.inf
        return float(max(two - one, 0)) * wanted + one * len(self.own)

    def held_at_once(self, theta: Float[Tensor, " P"], samples: int | None = None) -> int:
        """Bytes of graphs alive in a product: of all batches if they are kept, otherwise of the largest; 0 if unknown."""
        whole = self.graph_bytes(theta, samples)
        if whole > self.room:
            whole *= max(map(len, self.batches)) / sum(map(len, self.batches))
        return int(whole) if math.isfinite(whole) else 0

    def ggnvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """G v, G = J^T (d2 loss / d output2) J, for k vectors in one pass. J v by reverse over reverse.

        Cost: 3 + 5k forward passes; 5k if the graphs were kept from the last call.
        """
        self.loss.require_outputs("Gauss-Newton products")

        return self._weighted_product(theta, v, self._outputs, Engine._linear_outputs)

    def _linear_outputs(self, leaves: dict[str, Tensor], batch: Batch, share: float) -> Linearized:
        with self.method.graph(), in_blocks():  # without the loss, so that it does not tell whether anything is large
            output = self.forward(leaves, self.method.laid_out(batch), self.method.folded)
        return Linearized.of(leaves, output, self.loss_curvature(output, batch), share)

    def fishervp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """F v, F = sum_n w_n g_n g_n^T / sum_n w_n with the gradient g_n of each sample, for k vectors. Cost: as `ggnvp`."""

        return self._weighted_product(theta, v, self._losses, Engine._linear_losses)

    def _linear_losses(self, leaves: dict[str, Tensor], batch: Batch, share: float) -> Linearized:
        with self.method.graph():
            losses = self.per_sample(leaves, self.method.laid_out(batch))
        weights = batch.sample_weights.to(losses)
        return Linearized.of(leaves, losses, lambda slopes: slopes * weights / weights.sum(), share)

    def _weighted_product(
        self,
        theta: Float[Tensor, " P"],
        v: Float[Tensor, "k P"],
        kept: Kept[Linearized],
        linearized: Callable[["Engine", dict[str, Tensor], Batch, float], Linearized],
    ) -> Float[Tensor, "k P"]:
        """sum over batches of J^T W J v for k vectors, by graphs that are kept if they fit."""
        out = torch.zeros_like(v)
        with self.derivatives(theta):
            if kept.fits is None:
                kept.alone()
                leaves = self.leaves(theta)
                held = self._extrapolated(lambda like, b: saved_bytes(lambda: linearized(like, leaves, b, 1.0), leaves))
                kept.fits = held <= self.room
            for graph in kept.graphs(theta, lambda: (linearized(self, self.leaves(theta), b, share) for b, share in self.own)):
                for i, row in enumerate(v):
                    out[i] += graph.share * self._flat(graph.product(self.layout.unflatten(row)))
        return out

    def to(self, dtype: torch.dtype) -> "Engine":
        """The same engine in another dtype, with the plain method."""
        return replace(super().to(dtype), method=PLAIN, held=None)

    def release(self) -> None:
        """Let go of kept graphs."""
        for kept in (self._kept, self._outputs, self._losses):
            kept.clear()

    def hold(self, theta: Float[Tensor, " P"]) -> None:
        """Make the parameters of a network of its own views of theta, so that the weights are in memory once."""
        named = dict(self.model.named_parameters())
        if not self.writes:
            for name, view in self.layout.unflatten(theta).items():
                named[name].data = view

    def loss_curvature(self, output: Tensor, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The map u -> (d2 loss / d output2) u for the batch's mean loss."""
        point = output.detach().requires_grad_()
        with in_blocks():
            loss = self.loss.mean(point, batch.target)
        slope = grad(loss, {"output": point}, create_graph=True)
        return lambda u: vjp(slope, {"output": point}, {"output": u})["output"]

    @contextmanager
    def _large_in_blocks(self, batch: Batch, keep: bool = False) -> Iterator[None]:
        """Losses over a vocabulary and long attention in blocks; without a context where a batch was seen to have neither.

        For passes from the weights to the loss: only those see everything.
        """
        if not self.in_blocks(batch):
            yield
            return
        with in_blocks(keep) as replaced:
            yield
        if not replaced.used:
            self._small.add(id(batch))

    def in_blocks(self, batch: Batch) -> bool:
        """Whether a loss over a vocabulary or long attention was not ruled out on a batch."""
        return id(batch) not in self._small

    @contextmanager
    def derivatives(self, theta: Float[Tensor, " P"]) -> Iterator[None]:
        """Arithmetic for derivatives at theta, with operations that have second derivatives.

        The layers hold these weights throughout the block, so that a backward pass that runs a layer again, as activation
        checkpointing does, runs it at theta.
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
        """Parameters as leaves of a new graph; views of theta if possible."""
        return {name: t.detach().requires_grad_() for name, t in self.tensors(theta).items()}

    def _add(self, total: Tensor, tensors: dict[str, Tensor], share: float) -> None:
        """Add a share of these tensors to a flat vector, in place.

        A vector above 32 MiB has its pages mapped and cleared anew whenever it is made (`landscape.machine.malloc`).
        """
        for entry in self.layout:
            total[entry.start : entry.stop].add_(tensors[entry.name].detach().reshape(-1), alpha=share)

    def _flat(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.layout.flatten(tensors)
