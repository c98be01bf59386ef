"""Exact products with the Hessian of a network whose weights are sharded: reverse over reverse, through gathers of our own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.double_backward import twice_differentiable
from landscape.errors import NumericalError
from landscape.machine.arithmetic import exact_math
from landscape.sharded.finite_differences import Product
from landscape.sharded.local_weights import LocalWeights
from landscape.sharded.twice_gathered import Gathered, LayerCall
from landscape.sharded.wrapped_modules import Wrapped, wrapped_modules

# This process's parts of the weights as leaves, and those of the gradient, one tensor for each wrapped module.
_Graph = tuple[list[Tensor], tuple[Tensor, ...]]


class ExactProducts:
    """Products Hv by differentiating the gradient, with the weights of one layer gathered at a time.

    The network runs without the hooks of `fully_shard`, whose gathers autograd does not see. A wrapped module in which no other
    is wrapped is a layer: a node of the graph that keeps its inputs, and is run again when it is differentiated. The weights of
    the other wrapped modules (the root: embedding, head) are gathered once a product and stay whole during it.

    Args:
        model: wrapped by `fully_shard`.
        losses: gives, for every step of all processes, a function of nothing to this process's part of the loss.
        evaluated: a context in which the network is evaluated, in eval mode.
        theta: this process's part of the point at which the network stands.
        weights: of the network.

    Raises:
        ValueError: the network cannot be run so; the text says why.

    Attributes:
        name: "exact".
        count: products so far.
        collectives: of the last product.

    Cost: the graph of the gradient gathers a layer's weights twice and scatters one sum; if each process has one batch it is
        kept, so that only the first product makes it. On it a product gathers a layer's weights and the vector's part together,
        the weights once more, and scatters two sums; for the root it gathers the vector's part and scatters one. Memory: see
        `docs/memory-and-processes.md`, where it is measured.

    Reference: Pearlmutter 1994, doi:10.1162/neco.1994.6.1.147.
    """

    name = "exact"

    def __init__(
        self,
        model: nn.Module,
        losses: Callable[[], Iterator[Callable[[], Tensor]]],
        evaluated: Callable[[], AbstractContextManager[None]],
        theta: Float[Tensor, " own"],
        weights: LocalWeights,
    ) -> None:
        self._model, self._losses, self._evaluated, self._theta, self._weights = model, losses, evaluated, theta, weights
        if (why := obstacle(model, weights)) is not None:
            raise ValueError(why)
        self._wrapped = wrapped_modules(model, weights)
        self._kept: _Graph | None = None
        self.count = self.collectives = 0
        self.dim, self.dtype, self.device = weights.dim, weights.dtype, weights.device

    def __call__(self, block: Float[Tensor, "k own"]) -> Float[Tensor, "k own"]:
        """Hv of each row.

        Raises:
            NumericalError: a product is not finite, in any process.
        """
        rows = []
        for v in block:
            before = self._weights.members.collectives
            rows.append(self._product(v, None))
            self.count += 1
            (finite,) = self._weights.dots((rows[-1], rows[-1]))
            self.collectives = self._weights.members.collectives - before
            if not finite < float("inf"):
                raise NumericalError(
                    f"expected finite products, found a value that is not finite in product {self.count}",
                    fix="check the loss at these weights, or use float64",
                )
        return rows[0][None] if len(rows) == 1 else torch.stack(rows)

    def with_error(self, v: Float[Tensor, " own"]) -> Product:
        """Hv, no error beyond rounding, and v^T H v."""
        (image,) = self(v[None])
        return Product(image, 0.0, self._weights.dots((v, image))[0])

    def gradient_and_product(self, v: Float[Tensor, " own"]) -> tuple[Float[Tensor, " own"], Float[Tensor, " own"]]:
        """This process's parts of the gradient and of Hv."""
        slope = torch.zeros_like(v)
        return slope, self._product(v, slope)

    def _product(self, v: Tensor, slope: Tensor | None) -> Tensor:
        """This process's part of Hv; that of the gradient is added to `slope`."""
        sizes = [p.to_local().numel() for p in self._weights.parameters]
        image = torch.zeros_like(v)
        along, images = v.split(sizes), image.split(sizes)
        with self._evaluated(), self._arithmetic():
            for leaves, first in self._gradients(self._theta.split(sizes)):
                if slope is not None:
                    self._put(first, slope.split(sizes))
                live = [i for i, g in enumerate(first) if g.requires_grad]
                if live:
                    given = [_joined(self._wrapped[i], along) for i in live]
                    kept = self._kept is not None
                    found = torch.autograd.grad(
                        [first[i] for i in live], leaves, given, retain_graph=kept, materialize_grads=True
                    )
                    del given
                    self._put(found, images)
                    del found
                del first
        return image

    def _gradients(self, at: Sequence[Tensor]) -> Iterator[_Graph]:
        """Leaves and gradient with its graph, for every step; that of an only step is kept for the next product."""
        if self._kept is not None:
            yield self._kept
            return
        losses = list(self._losses())
        for loss in losses:
            leaves = [_joined(w, at).requires_grad_() for w in self._wrapped]
            with self._running(leaves):
                graph = leaves, torch.autograd.grad(loss(), leaves, create_graph=True, materialize_grads=True)
            if len(losses) == 1:
                self._kept = graph
            yield graph
            del graph, leaves

    def _put(self, found: Any, parts: Any) -> None:
        """Add vectors of the wrapped modules to the places of their weights."""
        for w, flat in zip(self._wrapped, found, strict=True):
            for i, piece in zip(w.own, flat.detach().split([parts[i].numel() for i in w.own]), strict=True):
                parts[i].add_(piece)

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Operations that have second derivatives; layers run again as they ran."""
        with ExitStack() as stack:
            stack.enter_context(exact_math(derivatives=True, recurrent=True))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(twice_differentiable())
            stack.enter_context(_without_caches(self._model))
            yield

    @contextmanager
    def _running(self, leaves: Sequence[Tensor]) -> Iterator[None]:
        """The network with gathers of our own in the place of the hooks of `fully_shard`; all is restored."""
        with ExitStack() as stack:
            for w, leaf in zip(self._wrapped, leaves, strict=True):
                stack.enter_context(_without_hooks(w.module))
                if w.inner:
                    stack.enter_context(_called(w.module, partial(_as_layer, w, leaf, w.module.forward)))
                else:
                    held = w.whole(frozen=True)[0]
                    stack.enter_context(w.holding(Gathered.apply(w, leaf) if w.own else (), held))
            yield


def obstacle(model: nn.Module, weights: LocalWeights) -> str | None:
    """Why the network cannot be run without the hooks of `fully_shard`; None if nothing is known to be in the way."""
    from torch.distributed.fsdp import FSDPModule

    for name, module in model.named_modules():
        if module._compiled_call_impl is not None:
            return f"{name or 'the network'} is compiled"
        if not isinstance(module, FSDPModule):
            continue
        policy: Any = getattr(module._get_fsdp_state(), "_mp_policy", None)
        if (
            policy is None
            or policy.param_dtype not in (None, weights.dtype)
            or policy.output_dtype not in (None, weights.dtype)
        ):
            return f"{name or 'the network'} computes in another precision than its weights have"
    if any(p.device_mesh.device_type != p.to_local().device.type for p in weights.parameters):
        return "the weights are kept on another device than the one that computes"
    return None


def _as_layer(owner: Wrapped, leaf: Tensor, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call of a layer as a node of the graph."""
    return LayerCall(owner, forward, args, kwargs)(leaf)


def _joined(owner: Wrapped, parts: Any) -> Tensor:
    """A copy of this process's part of a vector for the weights of one wrapped module."""
    pieces = [parts[i].detach() for i in owner.own]
    return torch.cat(pieces) if pieces else parts[0].new_zeros(0)


@contextmanager
def _called(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Another function in the place of the module's forward."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


@contextmanager
def _without_hooks(module: nn.Module) -> Iterator[None]:
    """The module without the hooks of `fully_shard`; those of others stay."""
    stores = (module._forward_pre_hooks, module._forward_hooks)
    before = [dict(store) for store in stores]
    for store in stores:
        for key in [key for key, hook in store.items() if _of_torch_distributed(hook)]:
            del store[key]
    try:
        yield
    finally:
        for store, hooks in zip(stores, before, strict=True):
            store.clear()
            store.update(hooks)


def _of_torch_distributed(hook: Any) -> bool:
    """Whether a hook is PyTorch's own, of its folder `distributed`."""
    return str(getattr(getattr(hook, "__wrapped__", hook), "__module__", "")).startswith("torch.distributed.")


@contextmanager
def _without_caches(model: nn.Module) -> Iterator[None]:
    """Models of transformers without a cache of keys and values, which a layer that runs again would fill again."""
    found = [getattr(m, "config", None) for m in model.modules()]
    configs: dict[int, Any] = {id(c): c for c in found if getattr(c, "use_cache", False) is True}
    try:
        for config in configs.values():
            config.use_cache = False
        yield
    finally:
        for config in configs.values():
            config.use_cache = True
