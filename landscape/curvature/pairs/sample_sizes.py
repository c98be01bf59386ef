"""How large a sample's derivative in the weights roughly is, from what its forward pass hands to the layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.engine import Engine
from landscape.errors import is_exhausted
from landscape.network.batches import Batch, merged

# Samples whose derivatives weigh the layers against each other.
FEW = 8


class Sizes:
    """Per sample sum_l c_l (1 + ||h_nl||^2), h_nl the input of layer l: what ||J_n^T u||^2 is proportional to.

    The derivative in a layer's weight is the sum over positions of (derivative in the layer's output) h^T. ||h||^2 is the mean
    over positions, and c_l the mean over a few samples of the squared derivative of random signs of the outputs. Only
    the sample's own input is known, not its own derivative, so that the size is a guess, above 0, and never more than a weight.

    Args:
        engine: whose layers hold the weights that vary.
    """

    def __init__(self, engine: Engine) -> None:
        owners = {e.name.split(".parametrizations.")[0] if ".parametrizations." in e.name else e.name.rpartition(".")[0]
                  for e in engine.layout}  # fmt: skip
        self.layers = {name: m for name, m in engine.model.named_modules() if name in owners}
        self.shares: dict[str, float] | None = None

    @contextmanager
    def watching(self, count: int) -> Iterator[dict[str, Float[Tensor, " B"]]]:
        """1 + ||h||^2 of every layer that runs inside, summed over its calls, for a batch of that many samples."""
        found: dict[str, Tensor] = {}

        def look(name: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            h = next((t for t in (*inputs, *kwargs.values()) if isinstance(t, Tensor)), None)
            if h is None or h.ndim == 0 or h.shape[0] % count:
                return
            own = torch.ones(count, dtype=torch.float64, device=h.device)
            if h.is_floating_point() and h.numel():
                wide = _width(self.layers[name], h)
                own += wide * h.detach().reshape(count, -1).double().square().mean(1)
            found[name] = found[name] + own if name in found else own

        handles = [
            m.register_forward_pre_hook(lambda _, a, k, name=name: look(name, a, k), with_kwargs=True)
            for name, m in self.layers.items()
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def weigh(self, engine: Engine, theta: Float[Tensor, " P"]) -> None:
        """Find the layers' shares c_l on a few samples. Cost: a gradient of these."""
        batch = _spread(engine.batches)
        outputs: list[tuple[str, Tensor]] = []

        def keep(name: str, output: Any) -> None:
            t = next((t for t in torch.utils._pytree.tree_leaves(output) if isinstance(t, Tensor)), None)
            if t is not None and t.requires_grad:
                outputs.append((name, t))

        handles = [m.register_forward_hook(lambda _, __, out, name=name: keep(name, out)) for name, m in self.layers.items()]
        shares = dict.fromkeys(self.layers, 0.0)
        try:
            with engine.derivatives(theta):
                output = engine.forward(engine.leaves(theta), batch)
                signs = torch.randint(0, 2, output.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
                slopes = torch.autograd.grad((output * signs.to(output)).sum(), [t for _, t in outputs], allow_unused=True)
            for (name, _), slope in zip(outputs, slopes, strict=True):
                if slope is not None:
                    shares[name] += float(slope.double().square().sum())
        except Exception as error:  # layers that write into their outputs, or run twice
            if is_exhausted(error):
                raise
            shares = dict.fromkeys(self.layers, 1.0)
        finally:
            for handle in handles:
                handle.remove()
        whole = sum(shares.values())
        self.shares = {n: s / whole for n, s in shares.items()} if 0 < whole < float("inf") else dict.fromkeys(shares, 1.0)

    def of(self, found: dict[str, Float[Tensor, " B"]], count: int) -> Float[Tensor, " B"]:
        """The sizes of a batch's samples; 1 where no layer was seen, or one is not finite."""
        assert self.shares is not None  # weighed before
        if not found:
            return torch.ones(count, dtype=torch.float64)
        size = torch.stack([self.shares[name] * own for name, own in found.items()]).sum(0)
        return torch.where(torch.isfinite(size) & (size > 0), size, torch.ones_like(size))


def _spread(batches: list[Batch]) -> Batch:
    """Samples at equal distances in all data, however they come in batches; those of one batch if shapes differ."""
    ends = np.cumsum([len(b) for b in batches])
    places = np.unique(np.linspace(0, ends[-1] - 1, FEW).round().astype(np.int64))
    home = np.searchsorted(ends, places, side="right")
    parts = [batches[b][torch.from_numpy(places[home == b] - (ends[b] - len(batches[b])))] for b in np.unique(home)]
    return merged(parts) or parts[0]


def _width(layer: nn.Module, h: Tensor) -> float:
    """Entries of the input that one entry of the output sees, or 1 for a layer that scales every entry on its own."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim > 1:
        return weight[0].numel()
    return 1.0 if isinstance(weight, Tensor) else float(h.shape[-1])
