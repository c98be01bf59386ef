"""Directions in weight space: the axes of a loss surface."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.network.parameters import Kind, Layout, filter_norms
from landscape.objective import Objective
from landscape.results import Eigenpairs, NormRatios

Norm = Literal["filter", "layer", "none"]


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in weight space.

    Attributes:
        name: axis label, with the seed of a random direction.
        vector: (P,).
        norm: its normalization.
        buffers: buffers of the checkpoint that it points to, including BatchNorm statistics; None if it points to none.
        orthogonalized: whether it was made orthogonal to another direction after normalization, which changed its norms.
        fixed: kinds of parameters that a random direction does not change; None for a direction that is not random.
    """

    name: str
    vector: Float[Tensor, " P"]
    norm: Norm = "none"
    buffers: Mapping[str, Tensor] | None = None
    orthogonalized: bool = False
    fixed: tuple[Kind, ...] | None = None


def random_direction(
    objective: Objective,
    *,
    seed: int = 0,
    norm: Norm = "filter",
    zero: Sequence[Kind] = ("bias", "norm"),
) -> Direction:
    """Gaussian direction, scaled so that each filter has the norm of the network's filter.

    d_ij <- d_ij ||theta_ij|| / ||d_ij|| for the j-th filter of layer i: an output channel of a convolution or a neuron of a
    linear layer, according to the use of the weight in the network (`Layout.of`). A weight whose filters are unknown is scaled
    as a whole. Biases and normalization layers are zero, as in the paper's plots. A filter whose weights are all zero has a
    zero direction.

    Args:
        objective: provides the weights and their layout.
        seed: seed of the generator. The direction is drawn on the CPU in float64, so it is the same on every device.
        norm: "filter"; "layer" (one norm per parameter tensor); "none" (standard normal, not scaled).
        zero: kinds of parameters that do not change: "bias", "norm", both, or () for none; a bias or norm tensor that changes
            is scaled as one filter.

    Raises:
        UsageError: all weights that would change are 0.

    Returns:
        A direction in the dtype of the objective; invariant to layer-wise, not to neuron-wise rescaling of the network.

    Cost: memory for two vectors.

    Reference: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv:1712.09913, section 4.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1)
        >>> nn.init.constant_(net.weight, 3.0) is net.weight
        True
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(4, 2), torch.ones(4, 1)), dtype="float64")
        >>> round(float(random_direction(objective, seed=1).vector.norm()), 6) == round(18**0.5, 6)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(objective.dim, generator=generator, dtype=torch.float64)
    layout, theta = objective.layout, objective.theta.double().cpu()
    if zero:
        d[layout.mask(*zero)] = 0.0
    if norm != "none":
        groups = _groups(layout, norm)
        own, wanted = filter_norms(d, groups), filter_norms(theta, groups)
        d = d * torch.where(own > 0, wanted / own, 0.0)[groups]
    if not bool(d.any()):
        raise UsageError(
            "expected nonzero weights to normalize a random direction, found that all weights that would change are 0 (biases "
            "and norms are fixed)",
            fix="train the network first (adapters start at 0), or pass norm='none' or zero=()",
        )
    name = f"random, seed {seed}" + (f", {norm} norm" if norm != "none" else "")
    if norm == "filter" and layout.not_known:
        name += f" ({layout.not_known[0]}{' and others' if len(layout.not_known) > 1 else ''} as a whole)"
    return Direction(name, d.to(objective.theta), norm, fixed=tuple(zero))


def mean_squares(objective: Objective, norm: Norm, zero: Sequence[Kind]) -> Float[Tensor, " P"]:
    """E d_i^2 of the coordinates of a `random_direction`, over its seeds; in float64 on the CPU.

    Divided by its norm and multiplied by ||theta_g||, the Gaussian vector of a filter g (or layer) with n_g weights is uniform
    on a sphere, so that E d_g d_g^T = (||theta_g||^2 / n_g) I; without normalization it is I. Groups are independent and have
    mean 0, hence E d d^T is diagonal, and E d^T H d = sum_i E d_i^2 H_ii for every symmetric H: sum_g (||theta_g||^2 / n_g)
    tr H_gg for a normalized direction, the trace over the coordinates that change for one that is not.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> nn.init.constant_(net.weight, 3.0) is net.weight
        True
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(4, 2), torch.ones(4, 1)), dtype="float64")
        >>> mean_squares(objective, "filter", ()).round(decimals=6).tolist(), mean_squares(objective, "none", ()).tolist()
        ([9.0, 9.0], [1.0, 1.0])
    """
    layout = objective.layout
    free = torch.ones(objective.dim, dtype=torch.float64)
    if zero:
        free[layout.mask(*zero)] = 0.0
    if norm == "none":
        return free
    groups = _groups(layout, norm)
    squares = filter_norms(objective.theta.double().cpu(), groups).square() / torch.bincount(groups).clamp(min=1)
    return free * squares[groups]


def toward(
    objective: Objective, theta: Float[Tensor, " P"], name: str = "to other", buffers: Mapping[str, Tensor] | None = None
) -> Direction:
    """The difference to other weights: this network is at coordinate 0, the other one, with these buffers, at 1.

    Two such directions span the plane through three checkpoints, at (0, 0), (1, 0) and (0, 1).

    Raises:
        UsageError: the other weights are the same.

    Example:
        >>> from torch import nn
        >>> objective = Objective(nn.Linear(2, 1, bias=False), nn.MSELoss(), (torch.eye(2), torch.ones(2, 1)), dtype="float64")
        >>> (objective.theta + toward(objective, torch.tensor([3.0, 4.0])).vector).tolist()
        [3.0, 4.0]
    """
    difference = theta.to(objective.theta) - objective.theta
    if not bool(difference.any()):
        raise UsageError(f"expected other weights than the network's own, found the same ones ({name})")
    return Direction(name, difference, buffers=buffers)


def eigenvector_directions(pairs: Eigenpairs) -> list[Direction]:
    """Eigenvectors of the Hessian, with unit length; filter-normalized they would no longer be eigenvectors."""
    return [
        Direction(f"Hessian eigenvector {i}, eigenvalue {value:.4g}", vector)
        for i, (value, vector) in enumerate(zip(pairs.values, pairs.vectors, strict=True), 1)
    ]


def cosine(first: Direction, second: Direction) -> float:
    """Cosine of the angle between two directions, in float64; nan if one of them is zero."""
    a, b = first.vector.double(), second.vector.double()
    return float(a @ b / (a.norm() * b.norm()))


def check_apart(first: Direction, second: Direction) -> None:
    """Refuse two directions that span no plane.

    Raises:
        UsageError: they are parallel up to rounding.
    """
    if abs(cosine(first, second)) > 1 - 1e-9:
        raise UsageError(
            f"expected two directions that span a plane, found parallel ones: {first.name} and {second.name}",
            fix="choose another second axis, such as random",
        )


def orthogonal_to(first: Direction, second: Direction) -> Direction:
    """The second direction minus its projection on the first, d2 - (d1.d2 / ||d1||^2) d1; this changes its filter norms.

    Raises:
        UsageError: the two are parallel.

    Accuracy: cosine 1e-16 before the cast to the direction's dtype.

    Example:
        >>> first, second = Direction("a", torch.tensor([2.0, 0.0])), Direction("b", torch.tensor([3.0, 4.0]))
        >>> orthogonal_to(first, second).vector.tolist()
        [0.0, 4.0]
    """
    a, b = first.vector.double(), second.vector.double()
    rest = b - (a @ b) / (a @ a) * a
    rest -= (a @ rest) / (a @ a) * a  # again, against rounding, for nearly parallel directions
    if not float(rest.norm()) > 1e-9 * float(b.norm()):
        raise UsageError(
            "expected two directions that span a plane, found parallel ones", fix="choose another seed or direction"
        )
    return Direction(
        f"{second.name}, orthogonalized", rest.to(second.vector), second.norm, orthogonalized=True, fixed=second.fixed
    )


def norm_ratios(objective: Objective, direction: Direction) -> NormRatios | None:
    """||d_ij|| / ||theta_ij|| over the filters (or layers) that should change; None if the direction is not normalized.

    Those are the filters with a nonzero weight, of the kinds of parameters (weights, biases, norm layers) that are not fixed. A
    kind is fixed if the direction is zero on all of it.
    """
    if direction.norm == "none":
        return None
    layout = objective.layout
    groups = _groups(layout, direction.norm)
    theta, d = objective.theta.double().cpu(), direction.vector.double().cpu()
    own, wanted = filter_norms(d, groups), filter_norms(theta, groups)
    free = torch.zeros(len(own), dtype=torch.bool)
    for kind in dict.fromkeys(e.kind for e in layout):
        members = groups[layout.mask(kind)].unique()
        free[members] = bool((own[members] > 0).any())
    should, moved = free & (wanted > 0), own > 0
    ratio = own[moved] / wanted[moved]
    low, high = (float(ratio.min()), float(ratio.max())) if len(ratio) else (math.nan, math.nan)
    still = int((should & ~moved).sum())
    return NormRatios(direction.norm, low, high, int(should.sum()), still, direction.orthogonalized)


def _groups(layout: Layout, norm: Norm) -> Tensor:
    """(P,) index of the group that is normalized as a whole: a filter, or a bias or norm tensor; for "layer", a tensor."""
    if norm == "layer":
        sizes = torch.tensor([e.size for e in layout])
        return torch.repeat_interleave(torch.arange(len(layout)), sizes)
    groups = layout.filters.clone()
    count = int(groups.max()) + 1
    for e in layout:
        if e.filters is None:
            groups[e.start : e.stop] = count
            count += 1
    return groups
