"""Gradients of single samples along directions of their outputs, J_n^T u, for many pairs (n, u) together."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.pairs.output_factors import Factors, factors_of
from landscape.curvature.reverse_mode import grad, vjp
from landscape.errors import is_exhausted
from landscape.network.batches import Batch, merged

# Bytes of gradients that are held at once, and the most gradients: more gain nothing.
_ROOM, _TOGETHER = 1 << 26, 32


class Pairs:
    """The pairs of all data, and what is differentiated for single ones.

    Attributes:
        sizes: (N,) what the squares of a sample's derivatives in the weights are roughly proportional to; see `Sizes`.
        weights: (M,) float64, |a| ||u||^2 of every pair times its sample's size, to which the trace of its part of the
            Gauss-Newton matrix is roughly proportional; 0 for pairs of samples that do not count.
        signs: (M,) of a; -1 where a loss is not convex in the outputs.
        sample: (M,) the sample of each pair.
        by_sample: (N,) the sum of a sample's weights.
        residuals: (N,) Euclidean norm of the derivative of the mean loss in a sample's outputs.
        counted: (N,) weights of the samples in the mean.
    """

    def __init__(self, engine: Engine, theta: Float[Tensor, " P"], factors: list[Factors]) -> None:
        self.engine, self.theta, self.factors = engine, theta, factors
        signed = [f.weights for f in factors]
        flat = torch.cat([w.flatten() for w in signed]).cpu().numpy()
        self.signs = np.where(flat < 0, -1.0, 1.0)
        self._starts = np.cumsum([0, *(len(w) for w in signed)])  # first sample of every batch
        each = np.concatenate([np.full(len(w), w.shape[1]) for w in signed])
        self._first = np.cumsum([0, *each])  # first pair of every sample
        self.sample = np.repeat(np.arange(len(each)), each)
        self.sizes = (
            torch.cat([torch.ones(len(f.output)) if f.sizes is None else f.sizes.cpu() for f in factors]).double().numpy()
        )
        self.weights = np.abs(flat) * self.sizes[self.sample]
        self.residuals = torch.cat([f.residual.flatten(1).double().norm(dim=1) for f in factors]).cpu().numpy()
        self.counted = torch.cat([b.sample_weights for b in engine.batches]).cpu().numpy()
        self.by_sample = np.add.reduceat(self.weights, self._first[:-1]) if len(each) else np.zeros(0)
        self._vectorized = True

    @property
    def outputs(self) -> int:
        """The most pairs that a sample has."""
        return int(np.diff(self._first).max())

    @classmethod
    def of(cls, engine: Engine, theta: Float[Tensor, " P"]) -> "Pairs | str":
        """The pairs of an engine's data; or why there are none, as for `factors_of`."""
        factors = factors_of(engine, theta)
        return factors if isinstance(factors, str) else cls(engine, theta, factors)

    def rows(self, pairs: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "k P"]]]:
        """J_n^T sqrt|a| u of these pairs, some at a time: positions in `pairs`, gradients. Cost: a sample's gradient each."""
        samples = self.sample[pairs]
        numbers = pairs - self._first[samples]
        for at, batch, u in self._gathered(samples, lambda f, rows, inside: f.directions(rows, inside), numbers):
            yield at, self._gradients(batch, u)

    def mixed_rows(
        self, numbers: np.ndarray, samples: np.ndarray, seed: int
    ) -> Iterator[tuple[np.ndarray, Float[Tensor, "k P"]]]:
        """J_n^T A_n^(1/2) e for draws by number, each of one sample with random signs e of its own; some at a time."""

        def direction(f: Factors, rows: Tensor, mine: Tensor) -> Tensor:
            signs = torch.empty(len(rows), f.weights.shape[1], dtype=torch.float64)
            for i, number in enumerate(mine.tolist()):
                g = torch.Generator().manual_seed((seed * 1_000_003 + number) * 2 & 0x7FFF_FFFF_FFFF_FFFF)
                signs[i] = torch.randint(0, 2, signs.shape[1:], generator=g, dtype=torch.int8).mul_(2).sub_(1)
            return f.mixed(rows, signs.to(rows.device))

        for at, batch, u in self._gathered(samples, direction, numbers):
            yield at, self._gradients(batch, u)

    def sample_rows(self, samples: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "k P"]]]:
        """The gradients of the mean loss that come from these samples, some at a time: positions, gradients."""
        for at, batch, u in self._gathered(samples, lambda f, rows, _: f.residual[rows], samples):
            yield at, self._gradients(batch, u)

    def residual_product(self, samples: np.ndarray, factors: np.ndarray, z: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """sum_n factor_n (H_n - G_n) z over these samples, H_n - G_n the part of a sample in that of the mean loss.

        H - G = sum_n sum_k (d loss / d output_nk) d2 output_nk / d weights^2 is the Hessian of the outputs, each times the
        derivative of the loss in it held fixed. Cost: 3 + 6k forward passes of these samples.
        """
        engine, method, total = self.engine, self.engine.method, torch.zeros_like(z)
        order = np.argsort(samples, kind="stable")
        scale = torch.from_numpy(factors[order]).to(self.theta)
        for at, batch, u in self._gathered(samples[order], lambda f, rows, _: f.residual[rows], samples, len(samples)):
            u = u * scale[torch.from_numpy(at).to(scale.device)].view(-1, *[1] * (u.ndim - 1))
            with engine.derivatives(self.theta):
                leaves = engine.leaves(self.theta)
                with method.graph():
                    output = engine.forward(leaves, method.laid_out(batch), method.folded)
                slope = grad((output * u).sum(), leaves, create_graph=True)
                for i, row in enumerate(z):
                    bent = vjp(slope, leaves, engine.layout.unflatten(row))
                    total[i] += engine.layout.flatten(bent)
        return total

    def residual_blocks(self, samples: np.ndarray, generator: torch.Generator) -> list[tuple[float, float]]:
        """Norms of (H_n - G_n) z within a weight tensor and in all of them, z random in that tensor and 0 in the others.

        A pair for every tensor, of the sum over these samples, or over those of one shape. Cost: 3 + 6k forward passes of these
        samples for k tensors.
        """
        engine, method = self.engine, self.engine.method
        out = []
        z = {n: torch.randn(t.shape, generator=generator).to(t) for n, t in engine.tensors(self.theta).items()}
        for _, batch, u in self._gathered(samples, lambda f, rows, _: f.residual[rows], samples, len(samples)):
            with engine.derivatives(self.theta):
                leaves = engine.leaves(self.theta)
                with method.graph():
                    output = engine.forward(leaves, method.laid_out(batch), method.folded)
                slope = grad((output * u).sum(), leaves, create_graph=True)
                for name in leaves:
                    bent = vjp({name: slope[name]}, leaves, {name: z[name]})
                    squares = {n: float(t.double().square().sum()) for n, t in bent.items()}
                    out.append((squares[name] ** 0.5, sum(squares.values()) ** 0.5))
        return out

    def _gathered(
        self,
        samples: np.ndarray,
        direction: Callable[[Factors, Tensor, Tensor], Tensor],
        numbers: np.ndarray,
        together: int | None = None,
    ) -> Iterator[tuple[np.ndarray, Batch, Tensor]]:
        """Positions in `samples`, their data as one batch, and a direction for each; some at a time."""
        size = together or max(1, min(_TOGETHER, _ROOM // max(1, self.theta.nbytes)))
        order = np.argsort(samples, kind="stable")
        for begin in range(0, len(order), size):
            at = order[begin : begin + size]
            home = np.searchsorted(self._starts, samples[at], side="right") - 1
            parts, places, ways = [], [], []
            for b in np.unique(home):
                mine = at[home == b]
                rows = torch.from_numpy(samples[mine] - self._starts[b]).to(self.theta.device)
                parts.append(self.engine.batches[b][rows])
                ways.append(direction(self.factors[b], rows, torch.from_numpy(numbers[mine]).to(self.theta.device)))
                places.append(mine)
            whole = merged(parts)
            if whole is None:  # inputs of different shapes
                yield from zip(places, parts, ways, strict=True)
            else:
                yield np.concatenate(places), whole, torch.cat(ways)

    def _gradients(self, batch: Batch, u: Float[Tensor, "k ..."]) -> Float[Tensor, "k P"]:
        """J_n^T u_n of every sample n of a batch."""
        if self._vectorized:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "There is a performance drop")  # vmap fell back to a loop
                    return _together(self.engine, self.theta, batch, u)
            except Exception as error:  # control flow that depends on values, or an operation without a rule for vmap
                if is_exhausted(error):
                    raise
                self._vectorized = False
        return torch.stack([_alone(self.engine, self.theta, batch[i : i + 1], u[i : i + 1]) for i in range(len(u))])


def _together(engine: Engine, theta: Tensor, batch: Batch, u: Tensor) -> Tensor:
    """All gradients at once, by `torch.func.vmap`."""
    tensors, form = torch.utils._pytree.tree_flatten((batch.args, batch.kwargs, batch.target))
    moving = [isinstance(t, Tensor) for t in tensors]
    params = engine.tensors(theta)

    def one(own: list[Tensor], u: Tensor) -> dict[str, Tensor]:
        rows = iter(own)
        leaves = [next(rows)[None] if moves else t for t, moves in zip(tensors, moving, strict=True)]
        single = Batch(*torch.utils._pytree.tree_unflatten(leaves, form))
        return torch.func.grad(lambda p: (engine.forward(p, single)[0] * u).sum())(params)

    with engine.derivatives(theta):
        own = [t for t, moves in zip(tensors, moving, strict=True) if moves]
        found = torch.func.vmap(one)(own, u)
        return torch.cat([found[name].detach().flatten(1) for name in params], 1)


def _alone(engine: Engine, theta: Tensor, batch: Batch, u: Tensor) -> Tensor:
    """The gradient of a single sample."""
    with engine.derivatives(theta):
        leaves = engine.leaves(theta)
        output = engine.forward(leaves, batch)
        return engine.layout.flatten(vjp({"output": output}, leaves, {"output": u})).detach()
