"""Principal directions of a training trajectory."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.surfaces.directions import Direction


def trajectory_directions(objective: Objective, points: Sequence[Float[Tensor, " P"]], k: int = 2) -> list[Direction]:
    """The k directions that hold most of a trajectory's spread around the trained weights.

    Principal components, without centring, of the differences theta_t - theta to the trained weights: eigenvectors of
    M^T M, M the (T, P) matrix of differences, from the T x T Gram matrix. Unit length, not filter-normalized: a step of 1 is
    a distance of 1 in weight space.

    Args:
        objective: at the end of the trajectory.
        points: T earlier weights, each (P,), in order of time.
        k: number of directions, at most the rank of M.

    Returns:
        Directions in decreasing order of the share they explain, which their names carry.

    Raises:
        UsageError: fewer than k independent points.

    Cost: T^2 P operations and the memory of the points.

    Reference: Li et al. 2018, arXiv:1712.09913, section 7.2.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(3, 1, bias=False)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(2, 3), torch.ones(2, 1)), dtype="float64")
        >>> e = torch.eye(3, dtype=torch.float64)
        >>> first, second = trajectory_directions(objective, [objective.theta + 3 * e[0], objective.theta + e[1]])
        >>> first.vector.abs().tolist(), first.name
        ([1.0, 0.0, 0.0], 'trajectory component 1, 90.0 % of its spread')
    """
    theta = objective.theta.double()
    rows = [p.to(theta) - theta for p in points]
    gram = torch.tensor([[float(a @ b) for b in rows] for a in rows], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    if len(rows) < k or not float(values[k - 1]) > 1e-12 * float(values[0]):
        raise UsageError(
            f"expected a trajectory that spans {k} dimensions, found {len(rows)} points that do not",
            fix="save more checkpoints",
        )
    out = []
    for i in range(k):
        v = torch.stack([c * r for c, r in zip(vectors[:, i], rows, strict=True)]).sum(0)
        share = 100 * float(values[i] / values.sum())
        out.append(Direction(f"trajectory component {i + 1}, {share:.1f} % of its spread", (v / v.norm()).to(objective.theta)))
    return out
