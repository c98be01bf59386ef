"""Scale variables: one positive factor for every neuron or channel, with equality constraints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

PINNED = 0
ZERO = -1  # an element that is always zero and is compatible with every scale


@dataclass(frozen=True)
class Producer:
    """A layer that introduced new variables, with ids from `start` to `stop`; `gain` for the gain of a normalization."""

    name: str
    start: int
    stop: int
    gain: bool = False


class Variables:
    """Variables s_1, s_2, ... > 0 with equality constraints; s_0 = 1 stands for everything that cannot be scaled.

    Ids pass through the network as integer tensors of the shape of an activation, one id for each element. Equal variables
    share a label, the smallest id among them, so everything equal to s_0 has label 0. With `nearly` a normalization takes a
    scale of its input away, as if its eps were 0.
    """

    def __init__(self, nearly: bool = False) -> None:
        self.nearly = nearly
        self.unread: dict[str, None] = {}
        self.labels = np.zeros(1, dtype=np.int64)
        self.producers: list[Producer] = []
        self.reasons: list[str] = [""]
        self._why = np.zeros(1, dtype=np.int64)

    def fresh(self, n: int, producer: str, *, gain: bool = False) -> Int[Tensor, " n"]:
        """`n` new, unconstrained variables."""
        start = len(self.labels)
        ids = np.arange(start, start + n)
        self.labels = np.concatenate([self.labels, ids])
        self._why = np.concatenate([self._why, np.zeros(n, dtype=np.int64)])
        self.producers.append(Producer(producer, start, start + n, gain))
        return torch.from_numpy(ids)

    def equate(self, a: Int[Tensor, "..."], b: Int[Tensor, "..."], reason: str) -> None:
        """Equate two broadcastable tensors of ids element by element; `reason` explains any variables that this pins."""
        a, b = torch.broadcast_tensors(a, b)
        (small_a,), (small_b,) = _compact(a), _compact(b)
        if all(1 in lengths for lengths in zip(small_a.shape, small_b.shape, strict=True)):
            # No axis is shared, so that every id meets every other one: a chain through all of them says the same.
            ids = np.concatenate([x[x >= 0] for x in (small_a.numpy().ravel(), small_b.numpy().ravel())])
            met = min((x >= 0).sum() for x in (small_a, small_b)) > 0
            left, right = (ids[:-1], ids[1:]) if met else (ids[:0], ids[:0])
        else:
            a, b = _compact(a, b)
            left, right = a.numpy().ravel(), b.numpy().ravel()
        real = (left >= 0) & (right >= 0)
        left, right = self.labels[left[real]], self.labels[right[real]]
        differ = left != right
        if not differ.any():
            return
        left, right = left[differ], right[differ]
        n = len(self.labels)
        _, component = connected_components(coo_matrix((np.ones(len(left)), (left, right)), shape=(n, n)), directed=False)
        # np.unique gives the first member of every component, which is its smallest label.
        smallest = np.unique(component, return_index=True)[1]
        labels = smallest[component][self.labels]
        self._why[(labels == PINNED) & (self.labels != PINNED)] = self._index(reason)
        self.labels = labels

    def pin(self, ids: Int[Tensor, "..."], reason: str) -> None:
        """Fix the scale of these variables at 1."""
        self.equate(ids, torch.zeros((), dtype=torch.int64), reason)

    def note(self, *values: Int[Tensor, "..."], place: str) -> None:
        """Note a place that fixes several free scales although only a relation between them may be needed."""
        if all(not self.pinned(ids) for ids in values):
            self.unread[place] = None

    def mix(self, ids: Int[Tensor, "..."], dims: Sequence[int], reason: str) -> Int[Tensor, "..."]:
        """Equate ids over `dims`, along which an operation sums or selects; returns the common ids, those axes of length 1."""
        dims = [d % ids.ndim for d in dims]
        if not dims or ids.numel() == 0:
            return ids
        (small,) = _compact(ids)
        common = small.amax(dims, keepdim=True)  # the largest, so that any variable replaces ZERO
        self.equate(small, common, reason)
        return common.expand([1 if d in dims else n for d, n in enumerate(ids.shape)])

    def pinned(self, ids: Int[Tensor, "..."]) -> bool:
        """Whether every element has a fixed scale."""
        (small,) = _compact(ids)
        flat = small.numpy().ravel()
        return bool((self.labels[flat[flat >= 0]] == PINNED).all())

    def label(self, ids: Int[Tensor, "..."]) -> np.ndarray:
        """Labels of ids (0 for ZERO), with axes of equal entries reduced to length 1."""
        (small,) = _compact(ids)
        array = small.numpy()
        return np.asarray(np.where(array >= 0, self.labels[array], PINNED))

    def why(self, ids: np.ndarray) -> list[str]:
        """The distinct reasons why these variables are pinned, the most common first."""
        reasons, counts = np.unique(self._why[ids][self.labels[ids] == PINNED], return_counts=True)
        return [self.reasons[i] for i in reasons[np.argsort(-counts, kind="stable")]]

    def _index(self, reason: str) -> int:
        """Index of a reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)


def _compact(*tensors: Tensor) -> list[Tensor]:
    """Views of tensors of equal shape, reduced to length 1 along axes where all of them are expanded."""
    keep = [slice(0, 1) if all(t.stride(d) == 0 for t in tensors) else slice(None) for d in range(tensors[0].ndim)]
    return [t[tuple(keep)] for t in tensors]
