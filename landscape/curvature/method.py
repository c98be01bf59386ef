"""A way to compute curvature products: what is done to the network and to its data before it is differentiated."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.double_backward import written_out
from landscape.network.batches import Batch

# Vectors that go through a graph at once, at most: what they leave in memory on the way grows with them.
TOGETHER = 8


@dataclass(frozen=True)
class Method:
    """One way; all of them give the same product up to rounding.

    Attributes:
        folded: BatchNorm in eval mode is folded into the layer before it (see `landscape.network.folding`).
        written_out: convolutions, activations, LayerNorm and attention use the double backward written for them (see
            `landscape.curvature.double_backward`).
        channels_last: images lie in memory with their channels last.
        together: the vectors of a block go through the graph at once (vmap), not one after another.
        smallest: operations on fewer values than this are not written out: the steps through Python would take longer than
            what they save.
    """

    folded: bool = False
    written_out: bool = False
    channels_last: bool = False
    together: bool = False
    smallest: int = 1 << 14

    @property
    def name(self) -> str:
        """In words, as the output shows it."""
        parts = {
            "BatchNorm folded": self.folded,
            "double backward written out": self.written_out,
            "channels last": self.channels_last,
            "vectors together": self.together,
        }
        return ", ".join(words for words, used in parts.items() if used) or "plain"

    def graph(self) -> AbstractContextManager[object]:
        """Holds while a graph is built that is to be differentiated twice."""
        return written_out(self.smallest) if self.written_out else nullcontext()

    def laid_out(self, batch: Batch) -> Batch:
        """The batch as the network is to read it."""

        def last(t: Tensor) -> Tensor:
            return t.contiguous(memory_format=torch.channels_last) if _is_images(t) else t

        return batch.map(last) if self.channels_last else batch


def takes_images(batch: Batch) -> bool:
    """Whether the network is called with images, which can lie in memory in two ways."""
    return any(isinstance(t, Tensor) and _is_images(t) for t in (*batch.args, *batch.kwargs.values()))


def _is_images(t: Tensor) -> bool:
    return t.ndim == 4 and t.is_floating_point()


PLAIN = Method()
