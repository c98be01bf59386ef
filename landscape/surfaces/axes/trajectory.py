"""A training trajectory: its principal components, and its projection onto a line or a plane."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import MismatchError, NumericalError, UsageError
from landscape.linalg.products import column_chunks
from landscape.linalg.small_matrices import eigh
from landscape.machine import progress
from landscape.objective import Objective
from landscape.results import Track
from landscape.surfaces.axes.directions import Direction

MEMORY = 1 << 30  # bytes of weights in memory at a time for the Gram matrix
_CHUNK = 1 << 14  # weights converted to float64 at a time; several rows of this size fit into a processor's cache
_STREAMED = 4  # one in four rows of memory is for rows streamed against a block, which share conversions to float64
_INDEPENDENT = 1e-12  # smallest relative eigenvalue, or squared sine between axes, of an independent dimension
_RESOLVED = 1e-6  # coordinates below this fraction of the largest do not determine a sign


def trajectory_directions(
    objective: Objective, points: Sequence[Float[Tensor, " P"]], k: int = 2, *, memory: int = MEMORY
) -> list[Direction]:
    """The first k principal components of a trajectory around the trained weights.

    Principal components, without centring, of the differences theta_t - theta from the trained weights: eigenvectors of M^T M,
    with M the (T, P) matrix of differences, computed from the T x T Gram matrix M M^T. They have unit length and are not
    filter-normalized, so a step of 1 is a distance of 1 in weight space. Signs: the first point with a nonzero coordinate on
    an axis has a positive one.

    Args:
        objective: the network at the end of the trajectory.
        points: T earlier weights, each (P,), in order of time. `points[i]` may load the i-th from a file: see `gram`.
        k: number of directions, at most the rank of M.
        memory: as for `gram`.

    Returns:
        Directions in decreasing order of explained share, sum_t <theta_t - theta, v>^2 / sum_t ||theta_t - theta||^2, which is
        in their names. They are orthonormal up to float64 rounding before the cast to the objective's dtype.

    Raises:
        UsageError: fewer than k independent points.
        MismatchError: a point of another length.
        NumericalError: a point that is not finite.

    Cost: T^2 P multiplications; every point is read as often as for `gram`, and once more. Memory: that of `gram`, then k + 1
        vectors in float64.

    Accuracy: products are accumulated in float64. The Gram matrix does not resolve components shorter than 10^-6 times the
        first one; they raise an error. Points saved in float32 have noise of 6e-8 |theta| each.

    Reference: Li et al. 2018, arXiv:1712.09913, section 7.2.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(3, 1, bias=False)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(2, 3), torch.ones(2, 1)), dtype="float64")
        >>> e = torch.eye(3, dtype=torch.float64)
        >>> first, second = trajectory_directions(objective, [objective.theta + 3 * e[0], objective.theta + e[1]])
        >>> first.vector.round(decimals=6).tolist(), first.name
        ([1.0, 0.0, 0.0], 'trajectory component 1, 90.0 % of its spread')
    """
    if k < 1:
        raise UsageError(f"expected at least 1 direction, found {k}")
    theta = objective.theta
    values, vectors = eigh(gram(theta, points, memory=memory))
    values, vectors = values[::-1], vectors[:, ::-1]
    if len(points) < k or not values[k - 1] > _INDEPENDENT * values[0]:
        raise UsageError(
            f"expected a trajectory that spans {k} dimensions, found {len(points)} points that do not",
            fix="save more checkpoints",
        )
    mixing = torch.from_numpy(np.stack([_oriented(vectors[:, i]) for i in range(k)])).to(theta.device)
    sums = torch.zeros(k, len(theta), dtype=torch.float64, device=theta.device)
    with progress.stage("directions of the trajectory", len(points)) as advance:
        for t in range(len(points)):
            row = _row(theta, points, t)
            for part in column_chunks(len(theta), _CHUNK):
                sums[:, part] += mixing[:, t, None] * _difference(theta, row, part)
            del row  # before the next one is read
            advance(1)
    out: list[Direction] = []
    for i, v in enumerate(sums):
        for _ in range(2):  # Gram-Schmidt, twice: from the Gram matrix, small components are not exactly orthogonal
            for earlier in sums[:i]:
                v -= (earlier @ v) * earlier
        v /= v.norm()
        share = 100 * float(values[i] / values.sum())
        out.append(Direction(f"trajectory component {i + 1}, {share:.1f} % of its spread", v.to(theta)))
    return out


def gram(
    theta: Float[Tensor, " P"], points: Sequence[Float[Tensor, " P"]], *, memory: int = MEMORY
) -> Float[np.ndarray, "T T"]:
    """Inner products <theta_s - theta, theta_t - theta> of a trajectory's points, which need not fit into memory.

    With memory for R + 1 rows, one of which is being read, blocks of 3R/4 rows are kept in turn. For each block all later rows
    are read once, R/4 at a time. Rows are stored in theta's dtype; differences and products are computed in float64, in chunks
    of 16,384 weights.

    Args:
        theta: the origin, e.g. the trained weights.
        points: T weights, each (P,). `points[i]` may load the i-th from a file; it is not kept elsewhere.
        memory: bytes of points in memory at a time; at least three points are kept.

    Returns:
        (T, T) float64, symmetric.

    Raises:
        MismatchError: a point of another length.
        NumericalError: a point that is not finite.

    Cost: T^2 P multiplications. T reads if all points fit the memory, else T + (T - B) + (T - 2B) + ... reads with
        B = R - max(1, floor(R/4)): 1,000 points of 10^7 float32 weights in 1 GiB (R = 25) take 26,818 reads,
        and the products 40 minutes on one CPU core (4 10^9 per second). More memory saves reads, but no products.
    """
    count = len(points)
    products = np.zeros((count, count))
    if not count:
        return products
    room = max(2, memory // (theta.element_size() * len(theta)) - 1)
    streamed = 0 if count <= room else max(1, room // _STREAMED)
    held = count if count <= room else room - streamed
    # Two buffers for the whole computation: allocating every row anew would fragment the heap and double the memory.
    block, later = theta.new_empty(held, len(theta)), theta.new_empty(streamed, len(theta))
    with progress.stage("inner products of the trajectory", sum(range(count, 0, -held))) as advance:

        def filled(buffer: Tensor, part: slice) -> Tensor:
            for place, t in enumerate(range(part.start, part.stop)):
                buffer[place] = _row(theta, points, t)
                advance(1)
            return buffer[: part.stop - part.start]

        for start in range(0, count, held):
            here = slice(start, min(start + held, count))
            rows = filled(block, here)
            within = _products(theta, rows, rows)
            products[here, here] = (within + within.T) / 2
            for first in range(here.stop, count, max(1, streamed)):
                there = slice(first, min(first + streamed, count))
                products[here, there] = _products(theta, rows, filled(later, there))
                products[there, here] = products[here, there].T
    _check_finite(products)
    return products


def project(
    objective: Objective,
    directions: Sequence[Direction],
    points: Sequence[Float[Tensor, " P"]],
    names: Sequence[str],
    *,
    label: str = "trajectory",
    path: bool = True,
) -> Track:
    """Orthogonal projection of points of weight space onto a line or plane through the trained weights.

    The coordinates c_t of a point minimise ||theta_t - theta - sum_i c_ti d_i||: c_t = G^-1 (<d_i, theta_t - theta>)_i with the
    Gram matrix G_ij = <d_i, d_j>. The directions need be neither orthogonal nor of unit length. For a single direction the
    coordinate is <d, theta_t - theta> / ||d||^2, in the units of a surface's axis: the point theta + d has coordinate 1.

    Args:
        objective: its weights theta are the origin.
        directions: one or two directions.
        points: T weights, each (P,); `points[i]` may load the i-th from a file, and is called once.
        names: (T) names of the points.
        label: name of all points in the legend.
        path: whether the points are in order of time.

    Returns:
        Track: coordinates, distances of the points from the line or plane in weight space, and the share of the points'
        variance around theta within it, sum ||projection||^2 / sum ||theta_t - theta||^2.

    Raises:
        UsageError: no points, a different number of names, zero or parallel directions, or more than two.
        MismatchError: a point of another length.
        NumericalError: a point that is not finite.

    Cost: one read of every point; memory for one.

    Accuracy: float64; a distance is the norm of the residual vector, not a difference of squares.

    Reference: Li et al. 2018, arXiv:1712.09913, section 7.2, for orthonormal axes; least squares for others.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(3, 1, bias=False)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(2, 3), torch.ones(2, 1)), dtype="float64")
        >>> e = torch.eye(3, dtype=torch.float64)
        >>> track = project(objective, [Direction("d", 2 * e[0])], [objective.theta + 6 * e[0] + 8 * e[1]], ["start"])
        >>> track.coordinates.round(6).tolist(), track.distances.round(6).tolist(), round(track.explained, 6)
        ([[3.0]], [8.0], 0.36)
    """
    if len(names) != len(points) or not len(points):
        raise UsageError(f"expected points to project and a name for each, found {len(points)} points and {len(names)} names")
    theta = objective.theta
    vectors = [d.vector.to(theta.device) for d in directions]
    axes = _axes(vectors)
    inverse = np.linalg.inv(axes)
    coordinates, left, total = np.zeros((len(points), len(vectors))), np.zeros(len(points)), 0.0
    with progress.stage(f"projection: {label}", len(points)) as advance:
        for t in range(len(points)):
            row = _row(theta, points, t)
            along = np.zeros(len(vectors))
            square = 0.0
            for part in column_chunks(len(theta), _CHUNK):
                difference = _difference(theta, row, part)
                along += (_stacked(vectors, part) @ difference).cpu().numpy()
                square += float(difference @ difference)
            _check_finite(square)
            place = coordinates[t] = inverse @ along
            step = torch.from_numpy(place).to(theta.device)
            for part in column_chunks(len(theta), _CHUNK):
                rest = _difference(theta, row, part) - step @ _stacked(vectors, part)
                left[t] += float(rest @ rest)
            total += square
            del row  # before the next one is read
            advance(1)
    inside = float(np.einsum("ti,ij,tj->", coordinates, axes, coordinates))
    explained = min(1.0, inside / total) if total > 0 else None
    return Track(label, tuple(names), coordinates, np.sqrt(left), explained, path)


def _axes(vectors: list[Tensor]) -> np.ndarray:
    """The Gram matrix of the axes.

    Raises:
        UsageError: they do not span a line or a plane.
    """
    if len(vectors) not in (1, 2):
        raise UsageError(f"expected one or two directions to project onto, found {len(vectors)}")
    found = np.zeros((len(vectors), len(vectors)))
    for part in column_chunks(len(vectors[0]), _CHUNK):
        rows = _stacked(vectors, part)
        found += (rows @ rows.T).cpu().numpy()
    lengths = np.sqrt(found.diagonal())
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise UsageError("expected directions of positive, finite length, found others", fix="choose other directions")
    if not np.linalg.det(found / np.outer(lengths, lengths)) > _INDEPENDENT:
        raise UsageError(
            "expected two directions that span a plane, found parallel ones", fix="choose another seed or direction"
        )
    return found


def _row(theta: Tensor, points: Sequence[Tensor], t: int) -> Tensor:
    """The t-th point, on the device and in the dtype of theta."""
    row = points[t].detach()
    if row.shape != theta.shape:
        raise MismatchError(
            f"expected points of {len(theta)} weights, found point {t} of shape {tuple(row.shape)}",
            fix="use checkpoints of this network",
        )
    row = row.to(theta)
    if not bool(torch.isfinite(row).all()):
        raise NumericalError(f"expected finite weights, found point {t} that is not", fix="leave that checkpoint out")
    return row


def _products(theta: Tensor, left: Float[Tensor, "S P"], right: Float[Tensor, "T P"]) -> np.ndarray:
    """(S, T) inner products of the rows of two matrices, each minus theta."""
    sums = torch.zeros(len(left), len(right), dtype=torch.float64, device=theta.device)
    for part in column_chunks(len(theta), _CHUNK):
        rows = _difference(theta, left, part)
        sums += rows @ (rows if right is left else _difference(theta, right, part)).T
    return sums.cpu().numpy()


def _difference(theta: Tensor, rows: Float[Tensor, "*T P"], part: slice) -> Float[Tensor, "*T C"]:
    """A part of theta_t - theta in float64."""
    return rows[..., part].double() - theta[part].double()


def _stacked(rows: list[Tensor], part: slice) -> Tensor:
    """(rows, part) in float64."""
    return torch.stack([row[part] for row in rows]).double()


def _oriented(u: np.ndarray) -> np.ndarray:
    """An eigenvector with the sign that gives the first point off 0 a positive coordinate."""
    first = int(np.argmax(np.abs(u) > _RESOLVED * np.abs(u).max()))
    return u if u[first] > 0 else -u


def _check_finite(products: np.ndarray | float) -> None:
    """Raise NumericalError if distances overflow float64."""
    if not np.isfinite(products).all():
        raise NumericalError("expected distances between points within float64's range, found larger ones")
