"""Fast forward passes without derivatives: BatchNorm folded once, channels-last images, batches that fit the cache.

BatchNorm is folded once for each point, not once for each batch. Images are stored channels last, which the processor's
convolutions prefer. Batches whose activations would not fit the cache are split. On request the network computes in bfloat16.
All this depends on the network, data, device and dtype alone, never on a clock, so that two runs give the same bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from landscape.errors import UsageError
from landscape.machine.arithmetic import values
from landscape.network.batches import Batch, regrouped, split
from landscape.network.copying import converted, owned
from landscape.network.forward import ForwardPass

# Bytes of the largest activation of a batch. Larger ones leave the cache: ResNet-20 takes half as long again with 128 images
# (8 MiB) as with 64.
_CACHE = 1 << 22
_SMALLEST = 32  # samples; in smaller batches the overhead of each batch would count
# For a network so small that overhead dominates, batches are joined until their largest activation takes _JOINED bytes, if at
# least _WORTH samples fit.
_JOINED, _WORTH = 1 << 17, 256
# Relative to the largest output, between two ways to compute it in float32; a wrong one differs in the first digit.
_TOLERANCE = 1e-3
_IMAGE = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, eq=False)
class InferenceNetwork:
    """A network prepared for forward passes on its data.

    Attributes:
        module: the network, with its BatchNorms folded if possible.
        dtype: dtype of its computation.
        own: dtype of the loss.
        channels_last: whether images are stored channels last.
        batches: inputs as the module reads them, and targets.
        weights: (N,) weights of the samples in the mean.
        shares: of the batches in the mean.
        widest: bytes of the largest activation for one sample; 0 if unknown.
        folded: number of BatchNorms folded.
    """

    module: nn.Module = field(repr=False)
    dtype: torch.dtype
    own: torch.dtype
    channels_last: bool
    batches: list[Batch] = field(repr=False)
    weights: np.ndarray = field(repr=False)
    shares: np.ndarray = field(repr=False)
    widest: int
    folded: int

    def ready(self, network: ForwardPass, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's parameters at a point, from those of the whole network."""
        whole = params if network.folded is None else network.folded(params)
        return {name: self.laid_out(t) for name, t in whole.items()}

    def laid_out(self, t: Tensor) -> Tensor:
        """A tensor in the module's dtype and memory format."""
        if not t.is_floating_point():
            return t
        t = t if t.dtype == self.dtype else t.to(self.dtype)
        return t.contiguous(memory_format=torch.channels_last) if self.channels_last and t.ndim == 4 else t

    def output(self, network: ForwardPass, ready: dict[str, Tensor], batch: Batch) -> Tensor:
        """The input of the loss for one batch."""
        batch = batch.map(Tensor.clone) if network.writes else batch
        output = network.run(self.module, ready, batch).detach().to(self.own)
        return output if network.transform is None else network.transform(output)

    @property
    def words(self) -> str:
        """How the network is run, as text."""
        norms = f", {self.folded} BatchNorm{'s' * (self.folded > 1)} folded" if self.folded else ""
        return str(self.dtype).removeprefix("torch.") + (", channels last" if self.channels_last else "") + norms


_KNOWN: WeakKeyDictionary[ForwardPass, dict[torch.dtype | None, InferenceNetwork]] = WeakKeyDictionary()


def inference_network(network: ForwardPass, dtype: torch.dtype | None = None) -> InferenceNetwork:
    """Prepare a network for forward passes; the result is cached as long as the argument lives.

    Args:
        network: the model and its data.
        dtype: dtype of the computation; default: the network's own.

    Raises:
        UsageError: the network cannot compute in that dtype.

    Cost: two passes of two samples; a copy of the images channels last, or of inputs and network in another dtype.
    """
    known = _KNOWN.setdefault(network, {})
    if dtype not in known:
        known[dtype] = _made(network, dtype)
    return known[dtype]


def _made(network: ForwardPass, dtype: torch.dtype | None) -> InferenceNetwork:
    """As `inference_network`."""
    module = network.model if network.folded is None else network.folded.model
    base = next(p.dtype for p in network.model.parameters() if p.is_floating_point())
    weights = [b.sample_weights.cpu().numpy() for b, _ in network.weighted]
    batches = [b for b, _ in network.weighted]
    plain = InferenceNetwork(
        module, base, base, False, batches, np.concatenate(weights), np.array([share for _, share in network.weighted]),
        0, 0 if network.folded is None else len(network.folded.pairs),
    )  # fmt: skip
    with values():
        prepared, output = _tried(network, plain)
        if dtype is not None and dtype != base:
            prepared = _cast(network, prepared, dtype)
        elif prepared.channels_last and not _agrees(network, prepared, output):
            prepared = _with(prepared, channels_last=False)
    return _with(prepared, batches=_pieces(network, prepared))


def _tried(network: ForwardPass, plain: InferenceNetwork) -> tuple[InferenceNetwork, Tensor]:
    """Run two samples: sets the widest activation, and channels last if that is worth trying; also returns the output."""
    with _watching(plain.module) as widths:
        output = _two(network, plain)
    images = any(isinstance(m, _IMAGE) for m in plain.module.modules()) and network.loss.of_model is None
    # On a GPU, convolutions in IEEE float32 are faster channels first; in float64 there is no gain.
    last = images and plain.own == torch.float32 and network.batches[0].target.device.type == "cpu"
    return _with(plain, widest=max(widths, default=0), channels_last=last), output


def _cast(network: ForwardPass, prepared: InferenceNetwork, dtype: torch.dtype) -> InferenceNetwork:
    """The network converted to another dtype."""
    images = any(isinstance(m, _IMAGE) for m in prepared.module.modules())
    widest = prepared.widest * dtype.itemsize // prepared.own.itemsize
    name = str(dtype).removeprefix("torch.")
    module = converted(owned(prepared.module), None, dtype)
    reason = ""
    for last in (True, False) if images else (False,):
        cast = _with(prepared, module=module, dtype=dtype, channels_last=last, widest=widest)
        try:
            output = _two(network, cast)
        except Exception as error:  # the user's code may raise anything in another dtype
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        if bool(output.isfinite().all()):
            return cast
        reason = "outputs that are not finite"
    raise UsageError(f"expected a network that can compute in {name}, found {reason}", fix=f"leave {name} out")


def _agrees(network: ForwardPass, prepared: InferenceNetwork, output: Tensor) -> bool:
    """Whether the network gives the same outputs channels last; `view`, for example, may refuse that format."""
    try:
        other = _two(network, prepared)
    except RuntimeError:
        return False
    return bool((other - output).abs().max() <= _TOLERANCE * output.abs().max())


def _two(network: ForwardPass, prepared: InferenceNetwork) -> Tensor:
    """The outputs for two samples, at the network's own weights."""
    ready = prepared.ready(network, dict(network.model.named_parameters()))
    return prepared.output(network, ready, _inputs(prepared.batches[0].first(2), prepared))


def _pieces(network: ForwardPass, prepared: InferenceNetwork) -> list[Batch]:
    """The batches as the module reads them, split if their activations would not stay in the cache, joined if they are tiny.

    Batches that mix their samples, through the loss or through a BatchNorm with batch statistics, are not split.
    """
    batches = prepared.batches
    if prepared.widest and network.divisible and batches[0].target.device.type == "cpu":
        joined = _power(_JOINED // prepared.widest)
        if joined >= _WORTH:
            batches = regrouped(batches, joined)
        else:
            batches = split(batches, max(_SMALLEST, _power(_CACHE // prepared.widest)))
    return [_inputs(b, prepared) for b in batches]


def convolves(module: nn.Module) -> bool:
    """Whether a network has convolutions, of any dimension."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def _power(n: int) -> int:
    """The largest power of 2 that is not larger; 1 for 0."""
    return 1 << max(0, n.bit_length() - 1)


def _inputs(batch: Batch, prepared: InferenceNetwork) -> Batch:
    """A batch with inputs in the module's dtype and memory format; its targets are unchanged."""
    args, kwargs = pytree.tree_map_only(Tensor, prepared.laid_out, (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs)


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[int]]:
    """Collect the bytes for one sample of the output of every innermost layer that runs inside the block."""
    widths: list[int] = []

    def see(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim:
            widths.append(output.nbytes // max(len(output), 1))

    handles = [m.register_forward_hook(see) for m in module.modules() if not list(m.children())]
    try:
        yield widths
    finally:
        for handle in handles:
            handle.remove()


def _with(prepared: InferenceNetwork, **changes: Any) -> InferenceNetwork:
    """The same network with some attributes changed."""
    return InferenceNetwork(**(vars(prepared) | changes))
