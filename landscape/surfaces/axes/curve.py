"""A curve between two minima, trained so that the loss along it is low."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import MalformedError, NumericalError, UsageError, hinting
from landscape.machine import progress
from landscape.objective import Objective
from landscape.surfaces.axes.same_network import check_same_network

Kind = Literal["bezier", "polygon"]

# t is stratified: one value from each of this many equal parts of (0, 1), in random order, then again.
_STRATA = 16
# Gauss-Legendre nodes on each of this many pieces of (0, 1), for the length of a Bezier curve.
_NODES, _PIECES = 16, 32


@dataclass(frozen=True, eq=False)
class Curve:
    """A path through weight space, a weighted mean of control points: phi(t) = sum_i c_i(t) w_i, t from 0 to 1.

    With n = m + 1 for m bends, a Bezier curve has Bernstein polynomials c_i(t) = binom(n, i) t^i (1 - t)^(n - i) and passes
    only through its ends. A polygon has hat functions c_i(t) = max(0, 1 - |n t - i|) and joins the control points by straight
    lines, in equal intervals of t. The ends of the path equal those of `control` to the bit.

    Attributes:
        kind: "bezier" or "polygon".
        control: (m + 2, P) points: start, bends, end.
        history: (steps,) float64: loss of each training step on its mini-batch, at its t; empty for an untrained curve.
        settings: settings of the training, for provenance.

    Raises:
        UsageError: an unknown kind, or no bend.

    Reference: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson 2018, arXiv:1802.10026, section 3: both kinds with one bend.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> curve = Curve("bezier", corner)
        >>> curve.point(0.5).tolist(), curve.coefficients(0.5).tolist()
        ([0.75, 0.25], [0.25, 0.5, 0.25])
        >>> Curve("polygon", corner).point(0.75).tolist(), Curve("polygon", corner).length
        ([1.0, 0.5], 2.0)
    """

    kind: Kind
    control: Float[Tensor, "n P"]
    history: Float[Tensor, " steps"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"expected a bezier or polygon curve, found {self.kind!r}", fix="choose one of them")
        if self.control.ndim != 2 or len(self.control) < 3:
            raise UsageError(f"expected control points (at least 3, weights), found shape {tuple(self.control.shape)}")

    def coefficients(self, t: float) -> Float[Tensor, " n"]:
        """c_i(t) of the control points, float64: nonnegative, with sum 1.

        Raises:
            UsageError: t is not between 0 and 1.
        """
        if not 0 <= t <= 1:
            raise UsageError(f"expected t from 0 to 1, the ends of the curve, found {t:g}", fix="choose a span inside 0 1")
        return _coefficients(self.kind, len(self.control), t)

    def point(self, t: float) -> Float[Tensor, " P"]:
        """phi(t), in the dtype of the control points; at a control point it is exact to the bit."""
        return _combined(self.control, self.coefficients(t))

    def distances(self, t: Sequence[float] | Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Arc length from the start to each phi(t), in units of weight: int_0^t |phi'(s)| ds.

        Accuracy: exact up to rounding for a polygon. A Bezier curve uses Gauss-Legendre quadrature of |phi'| on at least 32
            pieces with 16 nodes each, which is also exact up to rounding unless |phi'| nearly vanishes somewhere.
        """
        at = np.asarray(t, dtype=np.float64)
        if at.size and not (at.min() >= 0 and at.max() <= 1):
            raise UsageError(f"expected t from 0 to 1, the ends of the curve, found {at.min():g} to {at.max():g}")
        if self.kind == "polygon":
            sides = np.sqrt(np.diagonal(self._gram))
            return np.interp(at, np.arange(len(sides) + 1) / len(sides), np.concatenate([[0.0], np.cumsum(sides)]))
        edges = np.unique(np.concatenate([np.linspace(0, 1, _PIECES + 1), at]))
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        halves = np.diff(edges)[:, None] / 2
        speeds = self._speeds(edges[:-1, None] + halves * (1 + nodes))
        lengths = np.concatenate([[0.0], np.cumsum((halves * weights * speeds).sum(1))])
        return lengths[np.searchsorted(edges, at)]

    @cached_property
    def length(self) -> float:
        """Length of the whole curve, in units of weight; at least the distance between its ends."""
        return float(self.distances([1.0])[0])

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors of the curve, without the settings: the control points under the name of the kind, and the history."""
        return {self.kind: self.control, "history": self.history}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: dict[str, Any] | None = None) -> "Curve":
        """The curve that `to_tensors` wrote.

        Raises:
            MalformedError: the tensors are not those of a curve.
        """
        kinds = [kind for kind in get_args(Kind) if kind in tensors]
        if len(kinds) != 1:
            raise MalformedError(
                f"expected the control points of one curve, named bezier or polygon, found {', '.join(tensors) or 'nothing'}",
                fix="pass the file of a trained curve",
            )
        control = tensors[kinds[0]]
        if control.ndim != 2 or len(control) < 3 or not control.is_floating_point() or not bool(control.isfinite().all()):
            raise MalformedError(f"expected at least 3 finite control points, found {control.dtype} {tuple(control.shape)}")
        history = tensors.get("history", torch.zeros(0))
        return cls(kinds[0], control, history.double().reshape(-1), dict(settings or {}))

    @cached_property
    def _gram(self) -> np.ndarray:
        """(n - 1, n - 1) inner products of the differences between consecutive control points."""
        steps = [(b.double() - a.double()) for a, b in zip(self.control[:-1], self.control[1:], strict=True)]
        return np.array([[float(a @ b) for b in steps] for a in steps])

    def _speeds(self, t: np.ndarray) -> np.ndarray:
        """|phi'(t)| of a Bezier curve; the derivative is n times the Bezier curve of the differences."""
        n = len(self._gram)
        c = np.stack([math.comb(n - 1, i) * t**i * (1 - t) ** (n - 1 - i) for i in range(n)], -1)
        return n * np.sqrt(np.einsum("...i,ij,...j->...", c, self._gram, c).clip(min=0))


@hinting
def train_curve(
    start: Objective,
    end: Objective,
    *,
    kind: Kind = "bezier",
    bends: int = 1,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 0.03,
    seed: int = 0,
) -> Curve:
    """Train a curve between two networks to minimise its mean loss, E over t uniform in (0, 1) of L(phi(t)).

    The bends start on the straight line, evenly spaced. Each step samples one t and one mini-batch; bend i moves along
    -c_i(t) grad L(phi(t)). The ends are fixed. The bends after the last step are returned, without selection of the best.

    The optimizer is Adam, whose learning rate does not depend on the scale of the loss, with a cosine decay to zero that
    reduces the noise of the final bends. It works in units of the distance between the two networks (root mean square over each
    parameter tensor, or over all of them if a tensor is equal in both). Rescaling the layers of both networks alike therefore
    changes nothing, and `lr` is the fraction of that distance that a weight moves in the first steps.

    BatchNorm normalizes each mini-batch by its own statistics, with gradients through them (`Objective.batch_normalized`). To
    evaluate the curve, re-estimate the statistics at each point, as `interpolation` does.

    Args:
        start: network at t = 0; its data and loss are used for training, so these should be training data.
        end: network at t = 1, of the same architecture.
        kind: "bezier" or "polygon".
        bends: m, the number of trained control points.
        steps: training steps; networks that memorize their labels may need more than others.
        batch_size: samples per mini-batch; all samples if there are fewer. Samples are drawn without replacement until fewer
            than a batch are left.
        lr: initial learning rate of Adam, in the units above.
        seed: seed of the mini-batches and of t. Values of t are stratified: 16 steps use one from each sixteenth of (0, 1).

    Returns:
        Curve, with the loss at every step as its history; the same to the bit for the same seed, data and number of threads.

    Raises:
        MismatchError: the networks differ in their parameters.
        UsageError: no bend or step, a rate that is not positive, equal weights, or BatchNorm with one sample per batch.
        NumericalError: the loss or its gradient is no longer finite.

    Cost: one gradient on a mini-batch per step (three forward passes), and memory for 6 m + 5 vectors of weights.

    Accuracy: the mean loss is estimated from one t and one mini-batch per step, so the history is noisy. A loss with class
        weights is averaged within each mini-batch. Other seeds give other curves. The bends may overfit the samples more than
        the ends do (cross-entropy decreases as weights grow), so check the test loss along the curve, too.

    Reference: Garipov et al. 2018, arXiv:1802.10026, section 3, equation 2, with stochastic gradient descent, momentum, weight
        decay and independent t. Deviations: Adam, no weight decay, stratified t.

    Example:
        Minima of (w1 w2 - 1)^2 lie on a hyperbola; the line between (3, 1/3) and (1/3, 3) rises to 3.16.
        >>> from torch import nn
        >>> def network(a):
        ...     net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        ...     _ = nn.init.constant_(net[0].weight, a), nn.init.constant_(net[1].weight, 1 / a)
        ...     return Objective(net, nn.MSELoss(), (torch.ones(4, 1), torch.ones(4, 1)), dtype="float64")
        >>> start, end = network(3.0), network(1 / 3)
        >>> curve = train_curve(start, end, steps=400)
        >>> round(start.value((start.theta + end.theta) / 2).value, 2), start.value(curve.point(0.5)).value < 0.02
        (3.16, True)
    """
    _check(start, end, bends, steps, batch_size, lr)
    theta0, theta1 = start.theta, end.theta.to(start.theta)
    control = torch.stack([torch.lerp(theta0, theta1, i / (bends + 1)) for i in range(bends + 2)])
    curve = Curve(kind, control, torch.zeros(steps, dtype=torch.float64))
    straight, unit = control[1:-1].clone(), _unit(start, theta1 - theta0)
    moved = torch.zeros_like(straight)
    optimizer = torch.optim.Adam([moved], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = torch.Generator().manual_seed(seed)
    times, batches = _times(random), _minibatches(start.batch_normalized(), batch_size, random)
    with progress.stage(f"{kind} curve", steps) as advance:
        for step in range(steps):
            t = next(times)
            c = curve.coefficients(t)
            value, gradient = next(batches).value_and_gradient(_combined(control, c))
            if not (math.isfinite(value) and bool(gradient.isfinite().all())):
                raise NumericalError(
                    f"expected a finite loss along the curve, found {value:g} at t = {t:.2f} in step {step + 1} of {steps}",
                    fix=f"pass a learning rate smaller than lr = {lr:g}",
                )
            moved.grad = c[1:-1, None].to(gradient) * (unit * gradient)
            optimizer.step()
            schedule.step()
            torch.addcmul(straight, unit, moved, out=control[1:-1])
            curve.history[step] = value
            advance(1)
    curve.settings.update(
        kind=kind, bends=bends, steps=steps, batch_size=min(batch_size, start.samples), lr=lr, seed=seed,
        optimizer="Adam, cosine decay to 0", samples=start.samples,
    )  # fmt: skip
    return curve


def _check(start: Objective, end: Objective, bends: int, steps: int, batch_size: int, lr: float) -> None:
    """Check the arguments of `train_curve`."""
    check_same_network(start, end)
    for name, value in (("bends", bends), ("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"expected {name} of at least 1, found {value}")
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"expected a rate lr above 0, found {lr:g}", fix="pass lr=0.03")
    if min(batch_size, start.samples) < 2 and any(name.endswith("running_var") for name in start.buffers):
        raise UsageError("expected at least 2 samples in a mini-batch for BatchNorm, found 1", fix="pass batch_size=128")
    if torch.equal(start.theta, end.theta.to(start.theta)):
        raise UsageError("expected two different networks, found the same weights twice", fix="name two checkpoints")


def _unit(objective: Objective, apart: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Root mean square difference of the two networks over each parameter tensor, or over all if a tensor is equal."""
    sizes = {name: part.square().mean().sqrt() for name, part in objective.layout.unflatten(apart).items()}
    whole = apart.square().mean().sqrt()
    parts = [(sizes[e.name] if bool(sizes[e.name] > 0) else whole).expand(e.shape) for e in objective.layout]
    return torch.cat([p.reshape(-1) for p in parts])


def _times(random: torch.Generator) -> Iterator[float]:
    """An endless sequence of t: one from each stratum in random order, then again."""
    while True:
        for stratum in torch.randperm(_STRATA, generator=random).tolist():
            yield (stratum + float(torch.rand((), generator=random, dtype=torch.float64))) / _STRATA


def _minibatches(objective: Objective, size: int, random: torch.Generator) -> Iterator[Objective]:
    """An endless sequence of mini-batches, epoch after epoch."""
    while True:
        yield from objective.minibatches(size, random)


def _coefficients(kind: Kind, count: int, t: float) -> Float[Tensor, " n"]:
    """c_i(t) for `count` control points."""
    n = count - 1
    if kind == "bezier":
        values = [math.comb(n, i) * t**i * (1 - t) ** (n - i) for i in range(count)]
    else:
        values = [max(0.0, 1 - abs(n * t - i)) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64)


def _combined(control: Float[Tensor, "n P"], c: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
    """sum_i c_i w_i; a single w_i is copied, since adding zeros would change -0.0 and infinities."""
    used = [(float(a), row) for a, row in zip(c, control, strict=True) if a != 0]
    if len(used) == 1:
        return used[0][1].clone()
    out = used[0][0] * used[0][1]
    for a, row in used[1:]:
        out.add_(row, alpha=a)
    return out
