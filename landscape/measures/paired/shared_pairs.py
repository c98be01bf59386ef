"""What the traces of one network share: the terms of tr G that were found, and the draws of tr(H - G)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.pairs.pair_gradients import Pairs
from landscape.linalg.importance import Part, Redrawn, Terms, variance_of_mean
from landscape.measures.running.memo import once
from landscape.measures.running.shared_computations import Weight, coordinates_of, layer_norms
from landscape.objective import Objective
from landscape.symmetry.affine_tensors import breaks

# Pairs of a sample above which one draw mixes all of them.
MANY = 64
# Samples that share a random vector in a draw of H - G.
TOGETHER = 8
# Samples on which vanishing blocks of H - G are checked, half as many for more tensors than that; the share of a row that a
# block may have.
_CHECKED, _MANY_TENSORS, _ROUNDING = 4, 32, 1e-3

Squares = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Shared:
    """What measures of one seed share: the terms of G that were found, by quantity, and the draws of H - G.

    Attributes:
        objective, pairs, seed: whose they are.
        affine: whether diag(H - G) vanishes; None before it was looked at.
        reason: why it does not.
    """

    objective: Objective
    pairs: Pairs
    seed: int
    _squares: Squares
    affine: bool | None = None
    reason: str = ""
    _other: dict[object, Terms] = field(default_factory=dict)
    _rests: dict[object, "Rests"] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: Objective, generator: torch.Generator) -> "Shared | str":
        """Those of the generator's seed; or why there are no pairs."""

        def begin() -> "Shared | str":
            pairs = objective.pairs()
            if isinstance(pairs, str):
                return pairs
            if not pairs.weights.sum() > 0 or not np.isfinite(pairs.weights).all():
                return "the loss has no curvature in the outputs"
            size, norms = objective.theta.abs(), layer_norms(objective)

            def squares(rows: Tensor) -> Tensor:
                return torch.stack([square(rows), square(rows * size), square(rows * norms)], 1)

            seed = generator.initial_seed()
            return cls(objective, pairs, seed, squares)

        return once(objective, generator, ("pairs",), begin)

    @property
    def mixes(self) -> bool:
        """Whether samples are drawn with a random mixture of their pairs: where a sample has many, as with tokens."""
        return self.pairs.outputs > MANY and bool((self.pairs.signs > 0).all())

    def of_weight(self, weight: Weight, exact: bool) -> tuple[Terms, int]:
        """The terms in these units, and their place among the quantities."""
        if weight is None:
            return self.in_units("weights", self._squares, exact), 0
        if isinstance(weight, Tensor):
            for place, known in ((1, self.objective.theta.abs()), (2, layer_norms(self.objective))):
                if torch.equal(weight, known):
                    return self.in_units("weights", self._squares, exact), place
        units = coordinates_of(self.objective, weight)
        return self.in_units(units.mark, lambda rows: square(units.gather(rows))[:, None], exact), 0

    def in_units(self, mark: object, squares: Squares, exact: bool) -> Terms:
        """The terms of quantities: `squares` takes gradients (k, P) to (k, q)."""
        mixed = self.mixes and not exact
        if (mark, mixed) not in self._other:
            kind = _mixtures if mixed else _terms
            self._other[mark, mixed] = kind(self.objective, self.pairs, squares, self.seed)
        return self._other[mark, mixed]

    def rests(self, mark: object, draw: Callable[[torch.Generator], Tensor]) -> "Rests":
        """The draws of H - G with random vectors of these units."""
        if mark not in self._rests:
            self._rests[mark] = Rests(self.objective, self.pairs, draw, self.seed)
        return self._rests[mark]

    def is_affine(self) -> bool:
        """Whether diag(H - G) = 0: by the operations of the network, and checked on every weight tensor."""
        if self.affine is None:
            found = self.objective.watched(breaks)
            self.reason = f"not affine in every weight tensor: {', '.join(found[:3])}" if found else ""
            self.affine = not found
            if self.affine and not self._vanishes():
                self.affine, self.reason = False, "the operations say diag H = diag G, second derivatives do not"
            self.affine = self.objective.group.agreed(self.affine)
        return self.affine

    def _vanishes(self) -> bool:
        """Whether every tensor's block of H - G vanishes along a random vector, for the samples of the largest residuals."""
        objective, pairs = self.objective, self.pairs
        tensors = len(objective.layout)
        few = _CHECKED if tensors <= _MANY_TENSORS else _CHECKED // 2
        samples = np.sort(np.argsort(-pairs.residuals, kind="stable")[:few])

        def work(_: np.ndarray) -> np.ndarray:
            blocks = pairs.residual_blocks(samples, torch.Generator().manual_seed(self.seed))
            return np.array([[own - _ROUNDING * whole for own, whole in blocks]])

        share = tensors * len(samples) / objective.samples
        found = objective.shared_out(work, np.zeros(1, dtype=np.int64), products=share)
        return bool((found <= 1e-30).all())


class Rests:
    """Independent draws of tr(B^T (H - G) B), each from a few samples and a random vector of their own."""

    def __init__(self, objective: Objective, pairs: Pairs, draw: Callable[[torch.Generator], Tensor], seed: int) -> None:
        self.objective, self.pairs, self.draw, self.seed = objective, pairs, draw, seed
        self.together = min(TOGETHER, objective.samples)
        self.weights = pairs.residuals * pairs.sizes
        self.sums = np.cumsum(self.weights)
        self.values = np.zeros(0)

    def mean(self, count: int, after: int = 0) -> Part:
        """The mean of so many draws, of those after the first ones; draws of another number are independent of them."""
        if self.sums[-1] == 0:  # every sample is fitted exactly
            return Part(np.zeros(1), np.zeros(1), np.inf)
        last = after + count
        if last > len(self.values):
            share = (last - len(self.values)) * self.together / self.objective.samples
            fresh = np.arange(len(self.values), last)
            found = self.objective.shared_out(lambda items: np.stack([self._one(int(i)) for i in items]), fresh, products=share)
            self.values = np.concatenate([self.values, found[:, 0]])
        known = self.values[after:last]
        return Part(known.mean(keepdims=True), variance_of_mean(known[:, None]), count - 1.0)

    def _one(self, number: int) -> np.ndarray:
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + number) * 2 + 1 & 0x7FFF_FFFF_FFFF_FFFF)
        at = torch.rand(self.together, generator=g, dtype=torch.float64).numpy() * self.sums[-1]
        samples = np.clip(np.searchsorted(self.sums, at, side="right"), 0, len(self.sums) - 1)
        factors = self.sums[-1] / (self.together * self.weights[samples])
        z = self.draw(g)[None]
        bent = self.pairs.residual_product(samples, factors, z)
        return np.array([float((z.double() * bent.double()).sum())])


def _terms(objective: Objective, pairs: Pairs, squares: Squares, seed: int) -> Terms:
    """The terms of quantities that are sums over pairs of what `squares` makes of a gradient."""

    def work(indices: np.ndarray) -> np.ndarray:
        out = None
        for at, rows in pairs.rows(indices):
            found = squares(rows).double().cpu().numpy()
            out = np.empty((len(indices), found.shape[1])) if out is None else out
            out[at] = found
        assert out is not None  # asked for at least one
        return out * pairs.signs[indices][:, None]

    return Terms(pairs.weights, lambda i: objective.shared_out(work, i, gradients=len(i) / max(1, objective.samples)), seed)


def _mixtures(objective: Objective, pairs: Pairs, squares: Squares, seed: int) -> Terms:
    """The same from draws of samples, each with random signs for all of its pairs."""

    def find(numbers: np.ndarray, samples: np.ndarray) -> np.ndarray:
        def work(places: np.ndarray) -> np.ndarray:
            out = None
            for at, rows in pairs.mixed_rows(numbers[places], samples[places], seed):
                found = squares(rows).double().cpu().numpy()
                out = np.empty((len(places), found.shape[1])) if out is None else out
                out[at] = found
            assert out is not None  # asked for at least one
            return out

        return objective.shared_out(work, np.arange(len(numbers)), gradients=len(numbers) / objective.samples)

    return Redrawn(pairs.by_sample, find, seed)


def square(rows: Tensor) -> Tensor:
    """||g||^2 of every row, float64."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
