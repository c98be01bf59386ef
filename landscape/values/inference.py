"""How a network is run where only its outputs are wanted: folded once, channels last, in pieces that stay in the cache.

A forward pass without derivatives can be cheaper than one with them. BatchNorm is folded once a point, not once a batch;
images lie in memory with their channels last, which the processor's convolutions want; batches whose activations would not
fit into the cache are cut; and on request the network computes in bfloat16. All this follows from network, data, device and
dtype alone, never from a clock, so that two runs give the same bits.
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
from landscape.network.functional import called
from landscape.network.outputs import picked

# Bytes of the largest activation of a batch. Larger ones leave the cache: ResNet-20 takes half as long again with 128 images
# (8 MiB) as with 64.
_CACHE = 1 << 22
_SMALLEST = 32  # samples, below which what every batch costs by itself would count
# Of a network so small that steps are what takes time: its batches are those whose largest activation takes so many bytes, if
# so many samples at least fit.
_JOINED, _WORTH = 1 << 17, 256
_TOLERANCE = 1e-3  # of the largest output, between two ways to compute it in float32: a wrong one differs in the first digit
_IMAGE = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to be run on its data.

    Attributes:
        module: it, with its BatchNorms folded if they can be.
        dtype: that it computes in.
        own: that the loss is computed in.
        channels_last: whether images lie in memory with their channels last.
        batches: inputs as the module reads them, and targets.
        weights: (N,) of the samples in the mean.
        shares: of the batches.
        widest: bytes of the largest activation that it has for a sample; 0 where it is not known.
        folded: BatchNorms that it does without.
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

    def ready(self, engine: ForwardPass, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's parameters at a point, from the whole network's."""
        whole = params if engine.folded is None else engine.folded(params)
        return {name: self.laid_out(t) for name, t in whole.items()}

    def laid_out(self, t: Tensor) -> Tensor:
        """A tensor in the module's dtype and memory format."""
        if not t.is_floating_point():
            return t
        t = t if t.dtype == self.dtype else t.to(self.dtype)
        return t.contiguous(memory_format=torch.channels_last) if self.channels_last and t.ndim == 4 else t

    def output(self, engine: ForwardPass, ready: dict[str, Tensor], batch: Batch) -> Tensor:
        """What the loss sees for one batch."""
        batch = batch.map(Tensor.clone) if engine.writes else batch
        output = picked(called(self.module, ready, batch), engine.output, len(batch)).detach().to(self.own)
        return output if engine.transform is None else engine.transform(output)

    @property
    def words(self) -> str:
        """How it is run, for people."""
        norms = f", {self.folded} BatchNorm{'s' * (self.folded > 1)} folded" if self.folded else ""
        return str(self.dtype).removeprefix("torch.") + (", channels last" if self.channels_last else "") + norms


_KNOWN: WeakKeyDictionary[ForwardPass, dict[torch.dtype | None, Network]] = WeakKeyDictionary()


def network(engine: ForwardPass, dtype: torch.dtype | None = None) -> Network:
    """The network of an engine as it is run for its outputs, made when it is first asked for and kept as long as the engine.

    Args:
        engine: network and data.
        dtype: to compute in; default the network's own.

    Raises:
        UsageError: the network cannot compute in that dtype.

    Cost: two passes of two samples; a copy of the images in the other memory format, of inputs and network in another dtype.
    """
    known = _KNOWN.setdefault(engine, {})
    if dtype not in known:
        known[dtype] = _made(engine, dtype)
    return known[dtype]


def _made(engine: ForwardPass, dtype: torch.dtype | None) -> Network:
    """As `network`."""
    module = engine.model if engine.folded is None else engine.folded.model
    own = next(p.dtype for p in engine.model.parameters() if p.is_floating_point())
    weights = [b.sample_weights.cpu().numpy() for b, _ in engine.weighted]
    batches = [b for b, _ in engine.weighted]
    plain = Network(
        module, own, own, False, batches, np.concatenate(weights), np.array([share for _, share in engine.weighted]),
        0, 0 if engine.folded is None else len(engine.folded.pairs),
    )  # fmt: skip
    with values():
        found, output = _tried(engine, plain)
        if dtype is not None and dtype != own:
            found = _cast(engine, found, dtype)
        elif found.channels_last and not _agrees(engine, found, output):
            found = _with(found, channels_last=False)
    return _with(found, batches=_pieces(engine, found))


def _tried(engine: ForwardPass, plain: Network) -> tuple[Network, Tensor]:
    """With what two samples tell: the widest activation; and their output. Channels last where that is worth trying."""
    with _watching(plain.module) as widths:
        output = _two(engine, plain)
    images = any(isinstance(m, _IMAGE) for m in plain.module.modules())
    # A GPU's convolutions in IEEE float32 are made for channels first; there is no gain in float64.
    last = images and plain.own == torch.float32 and engine.batches[0].target.device.type == "cpu"
    return _with(plain, widest=max(widths, default=0), channels_last=last), output


def _cast(engine: ForwardPass, found: Network, dtype: torch.dtype) -> Network:
    """In another dtype."""
    images = any(isinstance(m, _IMAGE) for m in found.module.modules())
    widest = found.widest * dtype.itemsize // found.own.itemsize
    name = str(dtype).removeprefix("torch.")
    module = converted(owned(found.module), None, dtype)
    reason = ""
    for last in (True, False) if images else (False,):
        cast = _with(found, module=module, dtype=dtype, channels_last=last, widest=widest)
        try:
            output = _two(engine, cast)
        except Exception as error:  # whatever the user's own code raises in a dtype that it does not know
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        if bool(output.isfinite().all()):
            return cast
        reason = "outputs that are not finite"
    raise UsageError(f"expected a network that can compute in {name}, found {reason}", fix=f"leave {name} out")


def _agrees(engine: ForwardPass, found: Network, output: Tensor) -> bool:
    """Whether the network gives the same outputs in this memory format. `view`, for one, may refuse it."""
    try:
        other = _two(engine, found)
    except RuntimeError:
        return False
    return bool((other - output).abs().max() <= _TOLERANCE * output.abs().max())


def _two(engine: ForwardPass, found: Network) -> Tensor:
    """The outputs for two samples, at the network's own weights."""
    ready = found.ready(engine, dict(engine.model.named_parameters()))
    return found.output(engine, ready, _inputs(found.batches[0].first(2), found))


def _pieces(engine: ForwardPass, found: Network) -> list[Batch]:
    """The batches as the module reads them; cut where activations would not stay in the cache, joined where they are tiny.

    Nothing is cut whose samples cannot be taken apart: by the loss, or by a BatchNorm that normalizes by its batch.
    """
    batches = found.batches
    if found.widest and engine.divisible and batches[0].target.device.type == "cpu":
        joined = _power(_JOINED // found.widest)
        if joined >= _WORTH:
            batches = regrouped(batches, joined)
        else:
            batches = split(batches, max(_SMALLEST, _power(_CACHE // found.widest)))
    return [_inputs(b, found) for b in batches]


def convolves(module: nn.Module) -> bool:
    """Whether a network has convolutions, of any dimension."""
    return any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def _power(n: int) -> int:
    """The largest power of 2 that is not larger; 1 for 0."""
    return 1 << max(0, n.bit_length() - 1)


def _inputs(batch: Batch, found: Network) -> Batch:
    """A batch with inputs in the module's dtype and memory format; its targets stay."""
    args, kwargs = pytree.tree_map_only(Tensor, found.laid_out, (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs)


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[int]]:
    """Bytes that each innermost layer's output takes for a sample, of those that run inside the block."""
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


def _with(found: Network, **changes: Any) -> Network:
    """It, with other attributes."""
    return Network(**(vars(found) | changes))
