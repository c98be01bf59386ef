"""Methods of computing curvature products: how the network and its data are transformed before differentiation."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.curvature.double_backward import written_out
from landscape.network.batches import Batch

# Most vectors that pass through a graph at once; their memory grows with the number.
TOGETHER = 8


@dataclass(frozen=True)
class Method:
    """A method; all methods give the same product up to rounding.

    Attributes:
        folded: BatchNorm in eval mode is folded into the layer before it (see `landscape.network.folding`).
        written_out: convolutions, activations, LayerNorm and attention use their own double backward (see
            `landscape.curvature.double_backward`).
        channels_last: images are stored channels last.
        together: the vectors of a block pass through the graph at once (vmap) instead of one after another.
        smallest: operations on fewer values keep PyTorch's double backward, since the Python overhead would exceed the gain.
    """

    folded: bool = False
    written_out: bool = False
    channels_last: bool = False
    together: bool = False
    smallest: int = 1 << 14

    @property
    def name(self) -> str:
        """The method as text, for output."""
        parts = {
            "BatchNorm folded": self.folded,
            "double backward written out": self.written_out,
            "channels last": self.channels_last,
            "vectors together": self.together,
        }
        return ", ".join(words for words, used in parts.items() if used) or "plain"

    def graph(self) -> AbstractContextManager[object]:
        """Context in which a graph for second derivatives is built."""
        return written_out(self.smallest) if self.written_out else nullcontext()

    def laid_out(self, batch: Batch) -> Batch:
        """The batch in the memory format of this method."""

        def last(t: Tensor) -> Tensor:
            return t.contiguous(memory_format=torch.channels_last) if _is_images(t) else t

        return batch.map(last) if self.channels_last else batch


def takes_images(batch: Batch) -> bool:
    """Whether the network is called with images, which have two memory formats."""
    return any(isinstance(t, Tensor) and _is_images(t) for t in (*batch.args, *batch.kwargs.values()))


def _is_images(t: Tensor) -> bool:
    return t.ndim == 4 and t.is_floating_point()


PLAIN = Method()
