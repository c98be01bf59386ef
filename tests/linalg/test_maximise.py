import inspect
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, brentq, minimize

from landscape.errors import NumericalError, UsageError
from landscape.linalg import maximise_ball, maximise_box
from landscape.linalg.maximisation import corners
from landscape.linalg.maximisation.maximise import BALL_METHODS, BOX_METHODS


def quadratic(a, b):
    """f(y) = ½ yᵀAy + bᵀy in torch, float64."""
    a, b = torch.from_numpy(np.asarray(a, float)), torch.from_numpy(np.asarray(b, float))

    def value_and_gradient(y):
        image = a @ y
        return float(y @ image / 2 + b @ y), image + b

    return value_and_gradient


def best_corner(a, b, r):
    corners = np.array(list(product([-1.0, 1.0], repeat=len(b)))) * r
    return (np.einsum("ni,ij,nj->n", corners, a, corners) / 2 + corners @ b).max()


def random_quadratic(seed, *, at_minimum, convex=True):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    a = rng.standard_normal((n, n))
    a = a @ a.T if convex else (a + a.T) / 2
    return a, rng.standard_normal(n) * (1e-7 if at_minimum else 1), np.abs(rng.standard_normal(n)) + 0.1


def top_directions(a, r):
    return torch.from_numpy(np.linalg.eigh(a * np.outer(r, r))[1][:, ::-1][:, :2].T.copy())


def scipy_ten(a, b, r, start):
    result = minimize(
        lambda y: (-(y @ a @ y / 2 + b @ y), -(a @ y + b)),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(-r, r),
        options={"maxiter": 10},
    )
    return -result.fun


@pytest.mark.parametrize("at_minimum", [True, False])
def test_convex_quadratics_reach_the_best_corner_most_of_the_time(at_minimum):
    hits, lows = 0, []
    for seed in range(60):
        a, b, r = random_quadratic(seed, at_minimum=at_minimum)
        found = maximise_box(
            quadratic(a, b),
            None,
            torch.from_numpy(r),
            directions=top_directions(a, r),
            generator=torch.Generator().manual_seed(seed),
        )
        truth = best_corner(a, b, r)
        assert found.value <= truth * (1 + 1e-12)
        hits += found.value >= truth * (1 - 1e-9)
        lows.append(found.value / truth)
    assert hits >= 48
    assert min(lows) > 0.8


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("at_minimum", [True, False])
def test_never_below_scipy_with_ten_iterations_from_the_same_start(at_minimum, convex):
    for seed in range(40):
        a, b, r = random_quadratic(seed, at_minimum=at_minimum, convex=convex)
        start = np.random.default_rng(seed).uniform(-r, r)
        found = maximise_box(quadratic(a, b), None, torch.from_numpy(r), starts=("centre", torch.from_numpy(start)))
        for origin in (np.zeros_like(r), start):
            reference = scipy_ten(a, b, r, origin)
            assert found.value >= reference - 1e-13 * abs(reference)


@pytest.mark.parametrize("method", BOX_METHODS)
def test_each_method_climbs_alone_and_stays_in_the_box(method):
    a, b, r = random_quadratic(3, at_minimum=False)
    seen = []
    inner = quadratic(a, b)

    def watched(y):
        seen.append(y.clone())
        return inner(y)

    found = maximise_box(watched, None, torch.from_numpy(r), methods=(method,), starts=("centre",))
    points = torch.stack(seen)
    assert (points.abs() <= torch.from_numpy(r)).all()
    assert found.value > found.centre == 0
    assert found.method == method
    assert found.value == inner(found.point)[0] == max(inner(p)[0] for p in points)
    assert found.evaluations == found.gradients == len(seen)


def test_a_concave_function_is_solved_inside():
    target = torch.linspace(-0.5, 0.5, 30, dtype=torch.float64)
    weights = torch.logspace(0, 2, 30, dtype=torch.float64)

    def concave(y):
        d = y - target
        return float(-(weights * d * d).sum()), -2 * weights * d

    found = maximise_box(concave, None, torch.ones(30, dtype=torch.float64), methods=("projected_quasi_newton",), iterations=60)
    assert found.value > -1e-7
    np.testing.assert_allclose(found.point, target, atol=1e-4)


def test_active_and_free_coordinates_together():
    # Separable and concave: the answer is the clipped target, coordinate by coordinate.
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.standard_normal(50) * 2)
    weights = torch.from_numpy(rng.uniform(1, 30, 50))

    def concave(y):
        d = y - target
        return float(-(weights * d * d).sum()), -2 * weights * d

    found = maximise_box(concave, None, 1.0, dim=50, dtype=torch.float64, methods=("projected_quasi_newton",), iterations=60)
    np.testing.assert_allclose(found.point, target.clamp(-1, 1), atol=1e-5)


def test_a_coordinate_without_width_stays():
    radius = torch.tensor([1.0, 0.0, 2.0])
    found = maximise_box(lambda y: (float((y * y).sum()), 2 * y), None, radius)
    assert found.value == 5.0
    assert found.point.abs().tolist() == [1.0, 0.0, 2.0]
    assert maximise_box(lambda y: (float(y.sum()), torch.ones(3)), None, 0.0, dim=3).value == 0


def test_a_flat_centre_is_left_through_random_corners():
    found = maximise_box(lambda y: (float((y**4).sum()), 4 * y**3), None, 0.5, dim=6)
    assert found.value == pytest.approx(6 / 16)
    assert found.start.startswith("random")


def test_value_saves_gradients():
    calls = []
    a, b, r = random_quadratic(11, at_minimum=False, convex=False)
    both = quadratic(a, b)

    def value(y):
        calls.append(1)
        return both(y)[0]

    found = maximise_box(both, value, torch.from_numpy(r), methods=("projected_quasi_newton",))
    assert found.evaluations == found.gradients + len(calls)


def test_history_adds_up():
    a, b, r = random_quadratic(5, at_minimum=False)
    found = maximise_box(quadratic(a, b), None, torch.from_numpy(r), directions=list(top_directions(a, r)))
    assert found.value == max(run.value for run in found.history)
    # One evaluation is the centre, made before the first run.
    assert found.evaluations == 1 + sum(run.evaluations for run in found.history)
    assert {run.method for run in found.history} == set(BOX_METHODS)
    assert (found.method, found.start) in {(run.method, run.start) for run in found.history}
    estimate = found.estimate()
    assert (estimate.kind, estimate.n, estimate.converged) == ("lower bound", found.evaluations, True)
    assert found.method in estimate.reason


@pytest.mark.parametrize("bound", [1, 2, 7, 20])
def test_the_bound_on_evaluations(bound):
    calls = []
    a, b, r = random_quadratic(2, at_minimum=False)
    inner = quadratic(a, b)

    def counted(y):
        calls.append(1)
        return inner(y)

    found = maximise_box(counted, None, torch.from_numpy(r), max_evaluations=bound)
    assert found.evaluations == len(calls) == bound
    assert not found.complete
    assert "stopped at the bound" in found.estimate().reason


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("maximise", [maximise_box, maximise_ball])
def test_values_that_are_not_finite(bad, maximise):
    # Finite only where every coordinate is below 0.3: the corner and the first steps of every method fall outside.
    def fragile(y):
        if y.abs().max() > 0.3:
            return bad, torch.full_like(y, float("nan"))
        return float((y * torch.arange(1.0, 5.0)).sum()), torch.arange(1.0, 5.0)

    found = maximise(fragile, None, 1.0, dim=4)
    assert 0.5 < found.value <= 3.0 + 1e-6
    assert found.point.abs().max() <= 0.3
    assert found.nonfinite > 0
    assert found.overflowed == (found.nonfinite if bad == float("inf") else 0)
    assert f"{found.nonfinite} points were not finite, {found.overflowed} of them +inf" in found.estimate().reason


def test_a_finite_value_with_a_broken_gradient():
    def broken(y):
        return float(y.sum()), torch.ones(3) if not y.any() else torch.full((3,), float("nan"))

    found = maximise_box(broken, None, 1.0, dim=3)
    assert found.value == 3.0


def test_huge_gradients_do_not_overflow():
    def steep(y):
        return float(y.double().sum()) * 1e30, torch.full_like(y, 1e30)

    assert maximise_ball(steep, None, 1.0, dim=4).value == pytest.approx(2e30, rel=1e-5)
    assert maximise_box(steep, None, 1.0, dim=4).value == pytest.approx(4e30, rel=1e-5)


def test_a_centre_that_is_not_finite():
    with pytest.raises(NumericalError, match="expected a finite value and gradient at the centre, found value nan"):
        maximise_box(lambda y: (float("nan"), y), None, 1.0, dim=2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_the_point_is_in_the_box_and_has_the_value(seed, dtype):
    a, b, r = random_quadratic(seed, at_minimum=False, convex=False)
    a, b, radius = (torch.from_numpy(x).to(dtype) for x in (a, b, r))

    def f(y):
        return float(y @ a @ y / 2 + b @ y), a @ y + b

    found = maximise_box(f, lambda y: f(y)[0], radius)
    assert (found.point.abs() <= radius).all()
    assert f(found.point)[0] == found.value >= found.centre


def trust_region(a, b, rho):
    """Exact max of ½ yᵀAy + bᵀy over ||y|| <= rho from the secular equation, easy case."""
    values, vectors = np.linalg.eigh(a)
    c = vectors.T @ b
    if values[-1] < 0 and np.linalg.norm(c / values) <= rho:
        y = -c / values
    else:
        low = max(values[-1], 0) + 1e-13
        shift = brentq(lambda m: np.linalg.norm(c / (m - values)) - rho, low, low + 1 + np.linalg.norm(b) / rho, xtol=1e-14)
        y = c / (shift - values)
    return (values * y * y).sum() / 2 + c @ y


@pytest.mark.parametrize("kind", ["convex", "indefinite", "concave"])
def test_the_ball_against_the_trust_region_problem(kind):
    for seed in range(25):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 30))
        a = rng.standard_normal((n, n))
        a = {"convex": a @ a.T, "indefinite": (a + a.T) / 2, "concave": -a @ a.T - 0.1 * np.eye(n)}[kind]
        b, rho = rng.standard_normal(n), float(rng.uniform(0.1, 3))
        found = maximise_ball(quadratic(a, b), None, rho, dim=n, iterations=60, dtype=torch.float64)
        truth = trust_region(a, b, rho)
        assert found.point.norm() <= rho * (1 + 1e-12)
        assert truth * (1 - 1e-4) <= found.value <= truth * (1 + 1e-9)


def test_the_hard_case_of_the_ball():
    # b is orthogonal to the top direction: the gradient never leaves its own plane, only the given direction does.
    a = np.diag([4.0, 1.0, 0.5])
    b = np.array([0.0, 0.1, 0.1])
    found = maximise_ball(quadratic(a, b), None, 1.0, dim=3, directions=torch.eye(3, dtype=torch.float64), dtype=torch.float64)
    corner = 0.1 / (4 - np.array([1.0, 0.5]))
    y = np.r_[np.sqrt(1 - (corner**2).sum()), corner]
    assert found.value == pytest.approx(y @ a @ y / 2 + b @ y, rel=1e-6)


def test_the_first_boundary_point_is_sam():
    slope = torch.tensor([3.0, 4.0])
    found = maximise_ball(lambda y: (float(slope @ y), slope), None, 2.0, dim=2, methods=("boundary_gradient",))
    assert found.value == pytest.approx(10.0)
    np.testing.assert_allclose(found.point, [1.2, 1.6], rtol=1e-6)


@pytest.mark.parametrize("method", BALL_METHODS)
def test_each_ball_method_climbs_alone(method):
    a, b, _ = random_quadratic(3, at_minimum=False)
    found = maximise_ball(quadratic(a, b), None, 0.7, dim=len(b), methods=(method,), dtype=torch.float64)
    assert found.method == method
    assert found.value > 0.95 * trust_region(a, b, 0.7)


def test_the_global_generator_is_left_alone_and_the_seed_decides():
    state = torch.get_rng_state()
    a, b, r = random_quadratic(8, at_minimum=True)
    first, second = (maximise_box(quadratic(a, b), None, torch.from_numpy(r)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.value == second.value
    assert torch.equal(first.point, second.point)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": torch.tensor([1.0, -1.0])}, "expected every radius finite and >= 0, found others"),
        ({"radius": torch.tensor([1.0, float("inf")])}, "expected every radius finite and >= 0"),
        ({"radius": 1.0}, "expected dim with a radius that is one number, found none"),
        ({"radius": torch.ones(2), "dim": 3}, r"expected a radius of shape \(3,\), found \(2,\)"),
        ({"radius": torch.ones(2, dtype=torch.int64)}, "expected a float32 or float64 radius"),
        ({"radius": torch.ones(2), "methods": ("newton",)}, "expected methods among corner_search, .* found 'newton'"),
        (
            {"radius": torch.ones(2), "starts": ("edge",)},
            "expected starts among centre, directions, random or tensors, found 'edge'",
        ),
        ({"radius": torch.ones(2), "starts": (torch.ones(3),)}, r"expected a start of shape \(2,\)"),
        ({"radius": torch.ones(2), "directions": torch.ones(1, 3)}, r"expected directions of shape \(2,\)"),
        ({"radius": torch.ones(2), "max_evaluations": 0}, "expected max_evaluations >= 1, found 0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UsageError, match=message):
        inspect.unwrap(maximise_box)(lambda y: (0.0, y), None, **options)


def test_a_gradient_of_the_wrong_shape():
    with pytest.raises(UsageError, match=r"expected a gradient of shape \(2,\), found \(3,\)"):
        maximise_box(lambda y: (0.0, torch.ones(3)), None, 1.0, dim=2)


@pytest.mark.parametrize(
    ("tails", "large", "factor"),
    [(0.0, 0, 1.0), (1.5, 0, 1.0), (0.0, 655, 10.0), (0.0, 655, 30.0), (0.0, 20, 3000.0)],
    ids=["equal", "tails", "10 times", "30 times", "few dominate"],
)
def test_a_model_of_many_coordinates_finds_as_good_a_corner_on_some_of_them(tails, large, factor, monkeypatch):
    """Of a quadratic whose coordinates are of unequal weight, some of far more, as biases are; the work is a fraction."""
    generator = torch.Generator().manual_seed(3)
    size, rank = 1 << 15, 8
    weight = torch.exp(tails * torch.randn(size, generator=generator))[:, None]
    weight[torch.randperm(size, generator=generator)[:large]] *= factor
    root = torch.randn(size, rank, generator=generator) * weight * torch.logspace(0, -1, rank) / size**0.5
    slope = torch.randn(size, generator=generator) * weight[:, 0] / 10
    secants = corners.Secants(slope)
    for _ in range(10):
        u = torch.sign(torch.randn(size, generator=generator))
        for _ in range(2):
            gradient = slope + root @ (root.T @ u)
            secants.add(u, gradient)
            u = torch.sign(gradient)
    work, swept = [0], corners._sweep

    def counted(changes, slope, root, sums, *rest):
        work[0] += changes.shape[1] * sums.shape[1]
        return swept(changes, slope, root, sums, *rest)

    monkeypatch.setattr(corners, "_sweep", counted)

    def best(seed):
        u = next(secants.best_corners(torch.Generator().manual_seed(seed)))
        return float(slope @ u + (root.T @ u).square().sum() / 2)

    whole, cost = [best(seed) for seed in range(4)], work[0]
    monkeypatch.setattr(corners, "THINNED", 1 << 14)
    monkeypatch.setattr(corners, "DRAWN", 1 << 12)
    work[0] = 0
    thinned = [best(seed) for seed in range(4)]
    assert min(thinned) > 0.98 * min(whole)
    assert work[0] < cost / 3
