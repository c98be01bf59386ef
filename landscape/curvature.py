"""How values, gradients and curvature products of a network are computed: the engine behind Objective.

Everything is a sum over batches of (weight of the batch / total weight) * (mean loss of the batch), so that a ragged last batch
counts for what it is. Parameters enter through `torch.func.functional_call`; the module itself is never written to.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.batches import Batch
from landscape.errors import NumericalError, UsageError
from landscape.losses import MeanLoss
from landscape.parameters import Layout


@contextmanager
def exact_math(derivatives: bool = False, recurrent: bool = False) -> Iterator[None]:
    """IEEE arithmetic inside the block, the caller's settings after it.

    TensorFloat-32 and the bfloat16 matmul path are off, cuDNN chooses deterministic algorithms. For `derivatives` attention
    uses its math kernel, since the fused ones have no double backward; cuDNN's `recurrent` layers have none either and are
    avoided.
    """
    precision = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.enter_context(
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled and not (derivatives and recurrent),
                benchmark=False,
                deterministic=True,
                allow_tf32=False,
            )
        )
        if derivatives:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


@dataclass(frozen=True, eq=False)
class Engine:
    """Derivatives of the mean loss of `model` over `batches` with respect to the weights in `layout`.

    Attributes:
        model: in eval mode, owned by the engine; its own parameters are not looked at but for those outside `layout`.
        loss: the loss as a weighted mean.
        batches: on the device, in order.
        layout: the weights that vary.
        transform: of the outputs, before the loss sees them; None for none.
    """

    model: nn.Module
    loss: MeanLoss
    batches: list[Batch]
    layout: Layout
    transform: Callable[[Tensor], Tensor] | None = None

    def forward(self, params: dict[str, Tensor], batch: Batch) -> Tensor:
        """The network's output for one batch; `.logits` is taken from an output object that has them."""
        output: Any = functional_call(self.model, params, batch.args, batch.kwargs)
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor):
            raise UsageError(
                f"expected the model to return a tensor or an object with .logits, found {type(output).__name__}",
                fix="wrap the model in a module whose forward returns the logits",
            )
        return output if self.transform is None else self.transform(output)

    @cached_property
    def weighted(self) -> list[tuple[Batch, float]]:
        """Every batch with its share of the mean."""
        weights = [float(self.loss.sample_weights(b.target).sum()) for b in self.batches]
        total = sum(weights)
        if total <= 0:
            raise UsageError("expected targets that count, found that the loss ignores every one of them")
        return [(b, w / total) for b, w in zip(self.batches, weights, strict=True) if w > 0]

    def gradient(self, theta: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"]]:
        """Mean loss and its gradient. Cost: 3 forward passes."""
        value, total = 0.0, torch.zeros_like(theta)
        with self._derivatives():
            for batch, share in self.weighted:
                leaves = self._leaves(theta)
                loss = self.loss.mean(self.forward(leaves, batch), batch.target)
                total += share * self._flat(_grad(loss, leaves))
                value += share * float(loss.detach())
        return value, total

    def hvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """H v for k vectors, by reverse over reverse with the first-order pass shared. Cost: 3 + 6k forward passes."""
        out = torch.zeros_like(v)
        with self._derivatives():
            for batch, share in self.weighted:
                leaves = self._leaves(theta)
                loss = self.loss.mean(self.forward(leaves, batch), batch.target)
                first = _grad(loss, leaves, create_graph=True)
                for i, row in enumerate(v):
                    out[i] += share * self._flat(_vjp(first, leaves, self.layout.unflatten(row)))
        return out

    def ggnvp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """G v, G = J^T (d2 loss / d output2) J, for k vectors in one pass. J v by reverse over reverse. Cost: 3 + 6k passes."""
        out = torch.zeros_like(v)
        with self._derivatives():
            for batch, share in self.weighted:
                leaves = self._leaves(theta)
                output = self.forward(leaves, batch)
                push = _pusher(output, leaves)
                bend = self._loss_curvature(output, batch)
                for i, row in enumerate(v):
                    out[i] += share * self._flat(
                        _vjp({"output": output}, leaves, {"output": bend(push(self.layout.unflatten(row)))})
                    )
        return out

    def fishervp(self, theta: Float[Tensor, " P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """F v, F = sum_n w_n g_n g_n^T / sum_n w_n with every sample's own gradient g_n, for k vectors. Cost: 3 + 6k passes."""
        out = torch.zeros_like(v)
        with self._derivatives():
            for batch, share in self.weighted:
                leaves = self._leaves(theta)
                losses = self._per_sample(leaves, batch)
                weights = self.loss.sample_weights(batch.target).to(losses)
                push = _pusher(losses, leaves)
                for i, row in enumerate(v):
                    slopes = push(self.layout.unflatten(row)) * weights / weights.sum()
                    out[i] += share * self._flat(_vjp({"losses": losses}, leaves, {"losses": slopes}))
        return out

    def sample_fisher(self, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"]:
        """(g_n . v)^2 of every sample. Cost: about 9 forward passes."""
        parts = []
        direction = self.layout.unflatten(v)
        with self._derivatives():
            for batch in self.batches:
                leaves = self._leaves(theta)
                losses = self._per_sample(leaves, batch)
                parts.append(_pusher(losses, leaves)(direction).double().square())
        return torch.cat(parts)

    def sample_gauss_newton(self, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
        """v^T G_n v of every sample; None where the loss does not come apart. Cost: about 10 forward passes."""
        parts = []
        direction = self.layout.unflatten(v)
        with self._derivatives():
            for batch in self.batches:
                leaves = self._leaves(theta)
                output = self.forward(leaves, batch)
                pushed = _pusher(output, leaves)(direction)
                weights = self.loss.sample_weights(batch.target)
                if self.loss.per_sample(output.detach(), batch.target) is None:
                    return None
                forms = (pushed * self._loss_curvature(output, batch)(pushed)).reshape(len(batch), -1).double().sum(1)
                # The curvature is of the batch's mean: a sample's own is that, times the sum of weights, over its weight.
                parts.append(forms * weights.sum() / torch.where(weights > 0, weights, 1))
        return torch.cat(parts)

    def sample_curvatures(self, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
        """v^T H_n v of every sample; None where the loss does not come apart. Cost: about 20 passes.

        v^T H(w) v of the loss sum_n w_n loss_n is linear in the weights w of the samples, so that its gradient there has
        every sample's own value. Forward over forward would be cheaper, but is silently wrong for LayerNorm (torch 2.13).
        """
        parts = []
        direction = self.layout.unflatten(v)
        with self._derivatives():
            for batch in self.batches:
                leaves = self._leaves(theta)
                losses = self.loss.per_sample(self.forward(leaves, batch), batch.target)
                if losses is None:
                    return None
                w = torch.ones_like(losses, requires_grad=True)
                slope = _dot(_grad((w * losses).sum(), leaves, create_graph=True), direction)
                if slope.requires_grad:
                    slope = _dot(
                        _vjp({"slope": slope}, leaves, {"slope": torch.ones_like(slope)}, create_graph=True), direction
                    )
                parts.append(_vjp({"bend": slope}, {"w": w}, {"bend": torch.ones_like(slope)})["w"].double())
        return torch.cat(parts)

    def by_input(self, params: dict[str, Tensor]) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]:
        """For every batch: the network with these weights as a function of its inputs, its inputs, its targets."""
        for batch in self.batches:
            if batch.kwargs or len(batch.args) != 1 or not batch.args[0].is_floating_point():
                raise UsageError("expected a model that takes one tensor of real numbers", fix="inputs have no gradient here")

            def network(x: Tensor, batch: Batch = batch) -> Tensor:
                return self.forward(params, replace(batch, args=(x,)))

            yield network, batch.args[0], batch.target

    def to(self, dtype: torch.dtype) -> "Engine":
        """Its twin in another dtype: model, loss and data are converted copies."""
        batches = [b.map(lambda t: t.to(dtype) if t.is_floating_point() else t) for b in self.batches]
        loss = self.loss.to(batches[0].target.device, dtype)
        return Engine(copy.deepcopy(self.model).to(dtype), loss, batches, self.layout, self.transform)

    def _per_sample(self, leaves: dict[str, Tensor], batch: Batch) -> Float[Tensor, " B"]:
        """Every sample's own loss, differentiable."""
        losses = self.loss.per_sample(self.forward(leaves, batch), batch.target)
        if losses is None:
            raise UsageError(
                "expected a loss that is a mean over samples, found one that does not come apart", fix="use a loss of PyTorch's"
            )
        return losses

    def _loss_curvature(self, output: Tensor, batch: Batch) -> Callable[[Tensor], Tensor]:
        """u -> (d2 loss / d output2) u of the batch's mean loss."""
        at = output.detach().requires_grad_()
        slope = _grad(self.loss.mean(at, batch.target), {"output": at}, create_graph=True)
        return lambda u: _vjp(slope, {"output": at}, {"output": u})["output"]

    def _derivatives(self) -> AbstractContextManager[None]:
        """Arithmetic for derivatives of this network."""
        return exact_math(derivatives=True, recurrent=any(isinstance(m, nn.RNNBase) for m in self.model.modules()))

    def _leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """Parameters as leaves of a fresh graph; views of theta, no copy."""
        return {name: t.detach().requires_grad_() for name, t in self.layout.unflatten(theta).items()}

    def _flat(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.layout.flatten(tensors)


# How each matrix comes apart by sample.
SAMPLE_FORMS: dict[str, Callable[[Engine, Tensor, Tensor], Tensor | None]] = {
    "hessian": Engine.sample_curvatures,
    "ggn": Engine.sample_gauss_newton,
    "fisher": Engine.sample_fisher,
}


def _grad(scalar: Tensor, leaves: dict[str, Tensor], create_graph: bool = False) -> dict[str, Tensor]:
    """Gradient of a scalar; zeros for leaves that it does not reach."""
    if not scalar.requires_grad:
        raise NumericalError(
            "expected a loss that can be differentiated, found one that does not depend on the weights through autograd",
            fix="look for .detach(), .item(), argmax or torch.no_grad() in the model or the loss",
        )
    grads = torch.autograd.grad(scalar, list(leaves.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Inner product of two lots of tensors under the same names."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _vjp(
    outputs: dict[str, Tensor], leaves: dict[str, Tensor], cotangents: dict[str, Tensor], create_graph: bool = False
) -> dict[str, Tensor]:
    """Vector-Jacobian product that keeps the graph; zeros where nothing depends on a leaf (a linear model has no curvature)."""
    live = [name for name, t in outputs.items() if t.requires_grad]
    if not live:
        return {name: torch.zeros_like(t) for name, t in leaves.items()}
    grads = torch.autograd.grad(
        [outputs[n] for n in live],
        list(leaves.values()),
        [cotangents[n] for n in live],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return dict(zip(leaves, grads, strict=True))


def _pusher(output: Tensor, leaves: dict[str, Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """v -> J v with J = d output / d leaves, by reverse over reverse: J^T u is linear in u, and its gradient along v is J v."""
    dummy = torch.zeros_like(output, requires_grad=True)
    pulled = _vjp({"output": output}, leaves, {"output": dummy}, create_graph=True)
    return lambda v: _vjp(pulled, {"output": dummy}, v)["output"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]  # torch.compile's wrapper keeps the module here
        else:
            return model


def owned(model: nn.Module) -> nn.Module:
    """A copy of a model, so that nothing done to it changes the caller's."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"expected a model that can be copied, found {error}", fix="remove cached non-leaf tensors from it"
        ) from error
