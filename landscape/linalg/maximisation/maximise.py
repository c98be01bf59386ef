"""Maximisation over a box or a ball by several methods from several starts; the result is the best value of all runs."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal, TypedDict, Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import NumericalError, UsageError
from landscape.linalg.maximisation.ascent import auto_pgd, lbfgsb, projected_gradient, projected_quasi_newton, vertex_ascent
from landscape.linalg.maximisation.bookkeeping import BudgetSpent, Search, Value, ValueAndGradient
from landscape.linalg.maximisation.corners import climbs_to_come, corner_search
from landscape.linalg.maximisation.maximum import Maximum, Run
from landscape.linalg.maximisation.outlook import EVERYWHERE, JUMPING, Climbs, Outlook
from landscape.linalg.maximisation.regions import Ball, Box, Region
from landscape.linalg.maximisation.starting_points import STARTS, Start, radius_of, starting_points, to_unit
from landscape.linalg.probes import default_generator
from landscape.machine import progress

BoxMethod = Literal["corner_search", "projected_gradient", "projected_quasi_newton", "lbfgsb", "sign_corner", "apgd", "polish"]
BallMethod = Literal["boundary_gradient", "projected_gradient", "projected_quasi_newton", "apgd", "polish"]
# The defaults, in the order in which they run. Not included: APGD, with its fixed number of steps for each start; sign_corner,
# which corner_search contains; and polish, which projected_quasi_newton contains.
BOX_METHODS: tuple[BoxMethod, ...] = get_args(BoxMethod)[:-3]
BALL_METHODS: tuple[BallMethod, ...] = get_args(BallMethod)[:-2]


class SearchOptions(TypedDict, total=False):
    """Options of both maximisations.

    Attributes:
        starts: "centre"; "directions": the extreme points along ±d for each direction d, in a box the corners r * sign(±d), in
            a ball rho * ±d / ||d||; "random": `restarts` random corners, or points of the sphere; or tensors (P,), projected
            onto the region. Default: the first three.
        directions: (P,) or (j, P) in the coordinates of y, best first. The top eigenvectors are the natural choice: of H in a
            ball, of D H D with D = diag(r) in a box. Default none.
        iterations: of projected_gradient, projected_quasi_newton, polish and apgd; default 20.
        jumps: most jumps of corner_search, sign_corner and boundary_gradient from each start; default 8.
        tol: these stop when no extreme point is expected to raise the value by more than this share of its growth from the
            centre; with 0, the default, they continue to one that is best for its own gradient.
        max_evaluations: bound on the evaluations; default no bound.
        generator: of the random starts; default seed 0.
    """

    starts: Sequence[Start | Tensor]
    directions: Float[Tensor, "..."] | Sequence[Tensor] | None
    iterations: int
    jumps: int
    tol: float
    max_evaluations: int | None
    generator: torch.Generator | None


def maximise_box(
    value_and_gradient: ValueAndGradient,
    value: Value | None,
    radius: Float[Tensor, " P"] | float,
    *,
    dim: int | None = None,
    methods: Sequence[BoxMethod] = BOX_METHODS,
    restarts: int = 2,
    lbfgsb_iterations: int = 10,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **options: Unpack[SearchOptions],
) -> Maximum:
    """Largest value found of f over the box |y_i| <= r_i.

    max f(y) subject to -r <= y <= r. Around a minimum of f this is convex maximisation: the solution is a corner, and the
    gradient at the centre, about zero, hardly determines which. Therefore the corners in the top curvature directions, and
    random ones, are also tried.

    Args:
        value_and_gradient: y (P,) -> (f(y), gradient (P,)).
        value: y -> f(y), if that is cheaper without the gradient; None to use `value_and_gradient` throughout.
        radius: (P,) or one number, finite, >= 0; a coordinate with radius 0 stays at 0.
        dim: P, if radius is a number.
        methods: run in this order. "corner_search": jumps to the corner r * sign(gradient) from every start; then from further
            starts, random ones and corners that a model built from the gradients predicts to be the best, until eight in a row
            gain nothing (`landscape.linalg.maximisation.corners`).
            "projected_gradient": sign steps, halved when they fail. "projected_quasi_newton": projected L-BFGS with active
            sets; also from the best point so far. "lbfgsb": scipy's L-BFGS-B. These three begin at the centre and at each
            given tensor. Not in the default: "sign_corner", corner_search without its further starts; "apgd", Croce and
            Hein's auto-PGD with `iterations` steps from every start; "polish", projected_quasi_newton from the best point only.
        restarts: number of random corners.
        lbfgsb_iterations: of L-BFGS-B; 10 is the setting of Keskar et al.
        dtype, device: of y; those of `radius` if it is a tensor, else float32 on the CPU.
        options: starts, directions, iterations, jumps, tol, max_evaluations and generator, as in `SearchOptions`.

    Returns:
        Maximum; at least f(0), and at least what L-BFGS-B alone finds from the same starts.

    Raises:
        UsageError: an option is out of range.
        NumericalError: f or its gradient is not finite at the centre.

    Cost: at most `jumps` gradients for each start of sign_corner, `iterations` for the two projected methods, about 12 for
    L-BFGS-B. corner_search makes 8 to 24 climbs besides the given starts, of 2 to 8 gradients each. Memory: about 20 vectors of
    P; for corner_search up to 24 more, and 24 of one byte for each entry (fewer if they would take a gigabyte); for L-BFGS-B 25
    more in float64.

    Accuracy: a lower bound, since the problem is NP-hard. Points where f is not finite are counted, reported and excluded.

    Reference: Keskar et al. 2016, arXiv:1609.04836 (L-BFGS-B, ten iterations); Bertsekas 1982, Projected Newton methods for
    optimization problems with simple constraints; Byrd, Lu, Nocedal, Zhu 1995 (L-BFGS-B). Deviation: the other methods and
    starts.

    Example:
        >>> best = maximise_box(lambda y: (float((y * y).sum()), 2 * y), None, 0.5, dim=4, directions=torch.ones(4))
        >>> best.value, best.point.abs().tolist()
        (1.0, [0.5, 0.5, 0.5, 0.5])
    """
    scale = radius_of(radius, dim, dtype, device)
    known = get_args(BoxMethod)
    return _maximise(value_and_gradient, value, Box(len(scale)), scale, methods, known, restarts, lbfgsb_iterations, **options)


def maximise_ball(
    value_and_gradient: ValueAndGradient,
    value: Value | None,
    rho: float,
    *,
    dim: int,
    methods: Sequence[BallMethod] = BALL_METHODS,
    restarts: int = 4,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **options: Unpack[SearchOptions],
) -> Maximum:
    """Largest value found of f over the ball ||y|| <= rho.

    max f(y) subject to ||y||_2 <= rho: the inner problem of SAM, here climbed to a local maximum instead of one gradient step.

    Args:
        value_and_gradient, value, options: as for `maximise_box`.
        rho: radius, finite, >= 0.
        dim: P.
        methods: "boundary_gradient": rho * g / ||g||, iterated (its first point is SAM's); "projected_gradient": normalised
            steps, halved when they fail; "projected_quasi_newton": L-BFGS, tangential while on the sphere; also from the best
            point so far. Not in the default: "apgd" and "polish", as for `maximise_box`.
        restarts: number of random points of the sphere.
        dtype, device: of y.

    Returns:
        Maximum.

    Raises:
        UsageError: an option is out of range.
        NumericalError: f or its gradient is not finite at the centre.

    Cost: as for `maximise_box`, without L-BFGS-B.

    Accuracy: a lower bound; for a quadratic the trust-region problem has at most one local maximum that is not global
    (Martínez 1994), and the starts at ± the top direction reach the global one.

    Reference: Foret et al. 2021, arXiv:2010.01412 (SAM); Bertsekas 1982.

    Example:
        >>> a = torch.tensor([3.0, 1.0])
        >>> best = maximise_ball(lambda y: (float(a @ (y * y)) / 2, a * y), None, 2.0, dim=2, directions=torch.eye(2))
        >>> round(best.value, 4)
        6.0
    """
    scale = radius_of(float(rho), dim, dtype, device)
    known = get_args(BallMethod)
    return _maximise(value_and_gradient, value, Ball(dim), scale, methods, known, restarts, **options)


def _maximise(
    value_and_gradient: ValueAndGradient,
    value: Value | None,
    region: Region,
    scale: Tensor,
    methods: Sequence[str],
    known: Sequence[str],
    restarts: int,
    lbfgsb_iterations: int = 0,
    *,
    starts: Sequence[str | Tensor] = STARTS,
    directions: Tensor | Sequence[Tensor] | None = None,
    iterations: int = 20,
    jumps: int = 8,
    tol: float = 0.0,
    max_evaluations: int | None = None,
    generator: torch.Generator | None = None,
) -> Maximum:
    """Run every method from its starts over one region; `scale` maps the unit region to the caller's."""
    for method in methods:
        if method not in known:
            raise UsageError(f"expected methods among {', '.join(known)}, found {method!r}", fix="choose among these")
    if max_evaluations is not None and max_evaluations < 1:
        raise UsageError(f"expected max_evaluations >= 1, found {max_evaluations}", fix="the centre alone is one")
    if jumps < 1 or not 0 <= tol < 1:
        raise UsageError(f"expected jumps >= 1 and tol from 0 to 1, found {jumps} and {tol}", fix="for example 10 and 1e-3")
    dim, dtype, device = len(scale), scale.dtype, scale.device
    generator = default_generator(generator)
    single, corners = starting_points(starts, directions, restarts, region, scale, generator)
    named = [start for start in starts if isinstance(start, str)]  # comparing tensors with words is no question of truth
    history: list[Run] = []
    best_run = ("centre", "centre")
    complete = True
    with progress.stage("maximisation", max_evaluations) as advance:
        rows = 0 if directions is None else 1 if isinstance(directions, Tensor) and directions.ndim == 1 else len(directions)
        extreme = 2 * rows * ("directions" in named) + restarts * ("random" in named)
        steps = dict.fromkeys(methods, iterations) | dict.fromkeys(JUMPING, jumps) | {"lbfgsb": lbfgsb_iterations}
        outlook = Outlook(advance, steps, [(m, _climbs(m, len(single), extreme, dim)) for m in methods], max_evaluations)
        search = Search(value_and_gradient, value, scale, dim, dtype, device, max_evaluations, outlook)
        centre, slope = search.gradient_at(torch.zeros(dim, dtype=dtype, device=device))
        if slope is None:
            raise NumericalError(
                f"expected a finite value and gradient at the centre, found value {centre}",
                fix="check the loss at these weights",
            )

        def run(method: str, name: str, climb: Callable[[], object]) -> None:
            nonlocal best_run
            before, best = search.evaluations, search.best
            search.run_best = float("-inf")
            outlook.climb()
            try:
                climb()
            finally:
                outlook.ended()
                if search.best > best:
                    best_run = (method, name)
                history.append(Run(method, name, search.run_best, search.evaluations - before))

        try:
            for method in methods:
                outlook.method()
                if method == "corner_search":
                    begin = chain(((name, to_unit(y, scale)) for name, y in single), corners())
                    corner_search(search, region, slope * scale, begin, generator, jumps, tol, partial(run, method))
                    continue
                if method in EVERYWHERE:
                    for name, u in chain(((name, to_unit(y, scale)) for name, y in single), corners()):
                        if method == "apgd":
                            run(method, name, partial(auto_pgd, search, region, u, iterations))
                        else:
                            run(method, name, partial(vertex_ascent, search, region, u, jumps, tol))
                    continue
                for name, y in single if method != "polish" else ():
                    if method == "lbfgsb":
                        run(method, name, partial(lbfgsb, search, y, scale, lbfgsb_iterations))
                        continue
                    u = to_unit(y, scale)
                    if method == "projected_gradient":
                        run(method, name, partial(projected_gradient, search, region, u, iterations))
                    else:
                        run(method, name, partial(projected_quasi_newton, search, region, u, iterations))
                if method in ("projected_quasi_newton", "polish"):
                    u = to_unit(search.point, scale)
                    run(method, "the best so far", partial(projected_quasi_newton, search, region, u, iterations))
        except BudgetSpent:
            complete = False
    return Maximum(
        search.best,
        search.point,
        centre,
        search.evaluations,
        search.gradients,
        *best_run,
        tuple(history),
        search.nonfinite,
        search.overflowed,
        complete,
    )


def _climbs(method: str, given: int, extreme: int, dim: int) -> Climbs:
    """Climbs of a method, at least, likely and at most, from so many given starts and extreme points."""
    if method == "corner_search":
        low, likely, high = climbs_to_come(0, 0, given + extreme, dim)
        return low + given + extreme, likely + given + extreme, high + given + extreme
    number = float(given + extreme if method in EVERYWHERE else 1 if method == "polish" else given)
    number += method == "projected_quasi_newton"
    return number, number, number
