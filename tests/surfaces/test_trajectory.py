"""Principal directions of a trajectory and its projection: closed forms, numpy's SVD and least squares, loads and memory."""

import gc
import math
import subprocess
import sys
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from torch import nn

from landscape.errors import MismatchError, NumericalError, UsageError
from landscape.objective import Objective
from landscape.surfaces.axes.directions import Direction
from landscape.surfaces.axes.trajectory import gram, project, trajectory_directions


def objective_of(dim: int, seed: int = 0, dtype: str = "float64") -> Objective:
    """A linear network of `dim` weights."""
    net = nn.Linear(dim, 1, bias=False)
    nn.init.normal_(net.weight, generator=torch.Generator().manual_seed(seed))
    return Objective(net, nn.MSELoss(), (torch.zeros(2, dim), torch.zeros(2, 1)), dtype=dtype)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Lazy(Sequence):
    """Makes a row anew at every request, counts requests and the rows that are alive."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix
        self.loads = [0] * len(matrix)
        self.alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most = 0

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.loads[index] += 1
        row = self.matrix[index].clone()
        self.alive.add(row)
        self.most = max(self.most, len(self.alive))
        return row


def reference(objective: Objective, matrix: torch.Tensor) -> np.ndarray:
    """The matrix of differences in float64."""
    return matrix.double().numpy() - objective.theta.double().numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_directions_are_the_right_singular_vectors(dtype):
    objective = objective_of(300, dtype=dtype)
    kind = getattr(torch, dtype)
    scales = torch.tensor([5.0, 2.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    matrix = (objective.theta.double() + (normal(12, 5) * scales) @ normal(5, 300, seed=1)).to(kind)
    m = reference(objective, matrix)
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    sklearn = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(m)
    found = trajectory_directions(objective, list(matrix), 3)
    for i, d in enumerate(found):
        assert d.vector.dtype == kind
        sign = math.copysign(1, u[0, i])  # the first point has a positive coordinate
        np.testing.assert_allclose(d.vector.double().numpy(), sign * vt[i], atol=1e-6 if dtype == "float32" else 1e-10)
        assert abs(abs(d.vector.double().numpy() @ sklearn.components_[i]) - 1) < 1e-6
        share = 100 * s[i] ** 2 / (s**2).sum()
        assert d.name == f"trajectory component {i + 1}, {share:.1f} % of its spread"
        assert float((matrix[0].double() - objective.theta.double()) @ d.vector.double()) > 0


def test_a_planted_trajectory():
    """theta_t = theta + 2^-t (3 e_1 + 4 e_2) + (-1)^t e_3: the first component is (3, 4, 0) / 5 in the limit of no zigzag."""
    objective = objective_of(4)
    e = torch.eye(4, dtype=torch.float64)
    points = [objective.theta + 2.0**-t * (30 * e[0] + 40 * e[1]) + e[2] / 2 ** (t > 1) * (-1) ** t for t in range(4)]
    first, second = trajectory_directions(objective, points)
    # M = [50 2^-t, z_t] in the basis ((3, 4, 0) / 5, e_3): a 2 x 2 problem, solved by hand below
    a = sum((50 * 2.0**-t) ** 2 for t in range(4))
    z = [(-1) ** t / 2 ** (t > 1) for t in range(4)]
    c = sum(x * x for x in z)
    b = sum(50 * 2.0**-t * x for t, x in enumerate(z))
    top = (a + c) / 2 + math.hypot((a - c) / 2, b)
    along = np.array([b, top - a]) / math.hypot(b, top - a)
    along *= math.copysign(1, along[0])
    np.testing.assert_allclose(first.vector, [0.6 * along[0], 0.8 * along[0], along[1], 0], atol=1e-12)
    assert first.name == f"trajectory component 1, {100 * top / (a + c):.1f} % of its spread"
    assert abs(float(first.vector @ second.vector)) < 1e-14
    track = project(objective, (first, second), points, ["a", "b", "c", "d"])
    assert track.explained == pytest.approx(1, abs=1e-14)
    assert (track.coordinates[0] > 0).all()


def test_the_sign_is_that_of_the_first_point_off_the_origin():
    objective = objective_of(3)
    e = torch.eye(3, dtype=torch.float64)
    for sign in (-1, 1):
        points = [objective.theta.clone(), objective.theta + sign * 3 * e[1], objective.theta - sign * 7 * e[1]]
        (found,) = trajectory_directions(objective, points, 1)
        torch.testing.assert_close(found.vector, sign * e[1], rtol=0, atol=1e-12)


def test_components_are_orthogonal_though_one_is_faint():
    objective = objective_of(200)
    q = torch.linalg.qr(normal(200, 2))[0].T
    points = list(objective.theta + normal(9, 2, seed=3) * torch.tensor([1e3, 5e-3]) @ q)
    both = torch.stack([d.vector for d in trajectory_directions(objective, points)])
    torch.testing.assert_close(both @ both.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-14)
    np.testing.assert_allclose((both @ q.T).abs(), np.eye(2), atol=1e-4)


@given(st.integers(1, 14), st.integers(0, 16))
def test_blocks_of_every_size_give_the_same_gram(count, room):
    dim = 37
    theta, matrix = normal(dim, seed=1, dtype=torch.float32), normal(count, dim, dtype=torch.float32)
    lazy = Lazy(matrix)
    found = gram(theta, lazy, memory=room * dim * 4)
    m = matrix.double().numpy() - theta.double().numpy()
    np.testing.assert_allclose(found, m @ m.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    assert lazy.most == 1
    # the reads that the docstring promises
    r = max(2, room - 1)
    b = count if count <= r else r - max(1, r // 4)
    assert sum(lazy.loads) == sum(count - s for s in range(0, count, b))


def test_many_chunks_of_weights():
    """More weights than are in float64 at a time, not a multiple of it; in float32 the sum of squares would be off by 1e-4."""
    dim = 100_001
    theta = torch.zeros(dim)
    matrix = torch.ones(3, dim) + torch.tensor([0.0, 1e-3, 2e-3])[:, None]
    expected = np.outer(matrix[:, 0].double(), matrix[:, 0].double()) * dim
    np.testing.assert_allclose(gram(theta, list(matrix)), expected, rtol=1e-13)


def test_half_precision_points_are_taken_as_they_are():
    matrix = normal(4, 50, dtype=torch.bfloat16)
    m = matrix.double().numpy()
    np.testing.assert_allclose(gram(torch.zeros(50), list(matrix)), m @ m.T, rtol=1e-13)


def test_loads_and_rows_alive():
    objective = objective_of(1000, dtype="float32")
    lazy = Lazy(normal(40, 1000, dtype=torch.float32))
    plain = trajectory_directions(objective, list(lazy.matrix))
    found = trajectory_directions(objective, lazy, memory=9 * 4000)
    for a, b in zip(plain, found, strict=True):
        assert a.name == b.name
        torch.testing.assert_close(a.vector, b.vector, rtol=0, atol=1e-6)
    assert lazy.most == 1  # copied into the block, and let go
    assert sum(lazy.loads) == sum(range(40, 0, -6)) + 40  # 9 rows: 6 held, 2 streamed, 1 read; and once more for the sums
    lazy = Lazy(lazy.matrix)
    project(objective, found, lazy, [str(t) for t in range(40)])
    assert lazy.loads == [1] * 40
    gc.collect()
    assert lazy.most == 1


AXES = {
    "orthonormal": lambda a, b: torch.linalg.qr(torch.stack((a, b)).T)[0].T,
    "long": lambda a, b: torch.stack((50 * a, 0.01 * b)),
    "oblique": lambda a, b: torch.stack((a, a + 0.3 * b)),
    "nearly parallel": lambda a, b: torch.stack((a, a + 1e-3 * b)),
    "a line": lambda a, b: a[None],
}


@pytest.mark.parametrize("axes", AXES)
def test_projection_is_least_squares(axes):
    objective = objective_of(70_000)
    d = AXES[axes](normal(70_000, seed=1), normal(70_000, seed=2))
    points = objective.theta + normal(6, len(d), seed=3) @ d + normal(6, 70_000, seed=4)
    track = project(objective, [Direction("", v) for v in d], list(points), list("abcdef"), label="run", path=False)
    m = reference(objective, points)
    solution = np.linalg.lstsq(d.numpy().T, m.T, rcond=None)[0].T
    np.testing.assert_allclose(track.coordinates, solution, rtol=1e-7, atol=1e-9)
    rest = m - solution @ d.numpy()
    np.testing.assert_allclose(track.distances, np.linalg.norm(rest, axis=1), rtol=1e-10)
    inside = ((solution @ d.numpy()) ** 2).sum()
    assert track.explained == pytest.approx(inside / (m**2).sum(), rel=1e-9)
    assert (track.label, track.names, track.path) == ("run", tuple("abcdef"), False)


def test_coordinates_are_in_units_of_the_directions():
    """The point theta + 3 d has coordinate 3, however long d is: dividing by ||d|| instead of ||d||^2 would give 3 ||d||."""
    objective = objective_of(5)
    for length in (0.1, 1.0, 7.0):
        d = length * torch.eye(5, dtype=torch.float64)[0]
        track = project(objective, [Direction("", d)], [objective.theta + 3 * d, objective.theta + d], ["a", "b"])
        np.testing.assert_allclose(track.coordinates, [[3.0], [1.0]], rtol=1e-14)
        np.testing.assert_allclose(track.distances, 0, atol=1e-14)


def test_distances_of_points_close_to_the_plane_are_not_lost():
    """Their squares differ from those of the points by 1e-20 of them."""
    objective = objective_of(100)
    q = torch.linalg.qr(normal(100, 3))[0].T
    points = [objective.theta * 0 + objective.theta + 1e3 * q[0] + 1e-7 * q[2]]
    track = project(objective, [Direction("", q[0]), Direction("", q[1])], points, ["a"])
    assert track.distances[0] == pytest.approx(1e-7, rel=1e-4)
    assert track.explained <= 1


def test_all_points_at_the_centre():
    objective = objective_of(5)
    track = project(objective, [Direction("", normal(5))], [objective.theta] * 2, ["a", "b"])
    assert track.explained is None
    assert track.coordinates.tolist() == [[0.0], [0.0]]
    with pytest.raises(UsageError, match="expected a trajectory that spans 1 dimensions, found 3 points that do not"):
        trajectory_directions(objective, [objective.theta] * 3, 1)


def test_refusals():
    objective = objective_of(5)
    d = Direction("", normal(5))
    points = [objective.theta + 1, objective.theta + 2]
    with pytest.raises(UsageError, match="expected points to project and a name for each, found 2 points and 1 names"):
        project(objective, [d], points, ["a"])
    with pytest.raises(UsageError, match="found 0 points and 0 names"):
        project(objective, [d], [], [])
    with pytest.raises(UsageError, match="expected one or two directions to project onto, found 3"):
        project(objective, [d, d, d], points, ["a", "b"])
    with pytest.raises(UsageError, match="expected two directions that span a plane, found parallel ones"):
        project(objective, [d, Direction("", -2 * d.vector)], points, ["a", "b"])
    with pytest.raises(UsageError, match="expected directions of positive, finite length, found others"):
        project(objective, [Direction("", 0 * d.vector)], points, ["a", "b"])
    with pytest.raises(UsageError, match="expected at least 1 direction, found 0"):
        trajectory_directions(objective, points, 0)
    with pytest.raises(UsageError, match="expected a trajectory that spans 2 dimensions, found 2 points that do not"):
        trajectory_directions(objective, points)  # both on one line
    for bad, kind, text in (
        (torch.zeros(4), MismatchError, r"expected points of 5 weights, found point 1 of shape \(4,\)"),
        (torch.full((5,), math.nan), NumericalError, "expected finite weights, found point 1 that is not"),
        (torch.full((5,), -math.inf), NumericalError, "expected finite weights"),
        (torch.full((5,), 1e200, dtype=torch.float64), NumericalError, "expected distances between points within float64's"),
    ):
        with pytest.raises(kind, match=text):
            trajectory_directions(objective, [points[0], bad])
        with pytest.raises(kind, match=text):
            project(objective, [d], [points[0], bad], ["a", "b"])


CAPPED = """
import resource, sys, time, torch
from collections.abc import Sequence
from torch import nn
from landscape.objective import Objective
from landscape.surfaces.axes.trajectory import project, trajectory_directions
torch.set_num_threads(1)
P, T, memory = 1_000_000, 300, 128 << 20
class Points(Sequence):
    loads = 0
    def __len__(self):
        return T
    def __getitem__(self, t):
        Points.loads += 1
        g = torch.Generator().manual_seed(t)
        return theta + 3 * 0.98**t * a + 0.5 * 0.9**t * b + 1e-3 * torch.randn(P, generator=g)
net = nn.Linear(P, 1, bias=False)
objective = Objective(net, nn.MSELoss(), (torch.zeros(1, P), torch.zeros(1, 1)))
theta = objective.theta
a, b = torch.linalg.qr(torch.randn(P, 2, generator=torch.Generator().manual_seed(9)))[0].T.contiguous()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
axes = trajectory_directions(objective, Points(), memory=memory)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(grown, Points.loads, float(axes[0].vector @ a), *(x.name for x in axes), sep="\\n")
"""


@pytest.mark.slow
def test_three_hundred_points_of_a_million_weights_under_a_cap():
    """All points would take 1.2 GB in float32 and 2.4 GB in float64."""
    done = subprocess.run([sys.executable, "-c", CAPPED], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    grown, loads, cosine, *names = done.stdout.splitlines()
    assert float(grown) < 128 + 100  # the rows; three vectors in float64, theta, and what one row is made of
    room = (128 << 20) // 4_000_000 - 1
    assert int(loads) == sum(range(300, 0, -(room - room // 4))) + 300
    assert float(cosine) > 0.99
    assert names[0].startswith("trajectory component 1, ")


def test_wider_points_are_rounded_as_the_weights_were():
    """A float64 run seen by a float32 objective: its end is the centre, not beside it."""
    exact = normal(50)
    net = nn.Linear(50, 1, bias=False, dtype=torch.float64)
    net.weight.data[:] = exact
    objective = Objective(net, nn.MSELoss(), (torch.zeros(2, 50), torch.zeros(2, 1)), dtype="float32")
    assert objective.theta.dtype == torch.float32
    products = gram(objective.theta, [exact + 1, exact])
    assert products[1].tolist() == [0.0, 0.0]
    track = project(objective, [Direction("", torch.ones(50))], [exact + 1, exact], ["start", "end"])
    assert track.distances[1] == 0.0
    assert track.coordinates[0, 0] == pytest.approx(1, abs=1e-6)
