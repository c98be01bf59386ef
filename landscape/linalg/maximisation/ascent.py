"""Ascent methods over a box or a ball; each leaves its best point in the `Search`.

All work on the tensor's device in unit coordinates u, where the set is [-1, 1]^P or the unit ball; only scipy's L-BFGS-B works
on y. A value that is not finite counts as a failed step.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.maximisation.bookkeeping import Search
from landscape.linalg.maximisation.regions import Region


def vertex_ascent(
    search: Search,
    region: Region,
    start: Float[Tensor, " P"],
    iterations: int = 8,
    tol: float = 0.0,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> Float[Tensor, " P"]:
    """Jump to the extreme point in the direction of the gradient, repeatedly while the value rises; returns the last point.

    For the box this is the corner r * sign(gradient). For a convex function every jump raises the value, since f(z) >= f(u) +
    g·(z - u) and z maximises g·z over the set; it ends at a corner that is best for its own gradient. For the ball and a
    quadratic it is the power method. When the gradients of successive jumps converge, they are extrapolated, as in the power
    method with momentum (Xu et al. 2018): g + b (g - g_before), the limit of a geometric series with the ratio of their last
    changes.

    With a tolerance, the climb ends when a jump is expected to add at most `tol` of the growth from the centre. The expectation
    is g·(z - u) (the Frank-Wolfe gap) times the ratio of gain to gap in the last jump. This last jump costs a value only. A
    jump that is expected to add more but loses less than that share is accepted, since float32 rounding can cause such a loss.

    `seen` is called with every extreme point whose gradient was computed, and the gradient.
    """
    u = start
    value, g = search.gradient(u)
    before: Tensor | None = None
    change, forward, worth = 0.0, 0.0, 1.0
    for k in range(iterations):
        if g is None:
            return u
        if seen is not None and bool(u.any()):
            seen(u, g)
        z = region.vertex(g, u)
        if torch.equal(z, u):
            return u
        promise = float(torch.dot(g, z - u))
        plain = before is None or not forward
        if before is not None and not plain:
            carried = region.vertex(g + forward * (g - before), u)
            z, plain = (z, True) if torch.equal(carried, u) else (carried, False)
        growth = value - search.base
        if (growth > 0 and worth * promise <= tol * growth) or k == iterations - 1:
            if not search.value(z) > value and not plain:
                search.value(region.vertex(g, u))
            return u
        reached, slope = search.gradient(z)
        if not reached > value - tol * max(growth, 0.0):
            if plain:
                return u
            before, change, forward = None, 0.0, 0.0
            continue
        moved = bool(u.any())
        rose = reached > value
        worth = min(1.0, (reached - value) / promise) if moved and rose and promise > 0 else 1.0
        if slope is not None:
            last, change = change, float(torch.linalg.vector_norm(slope - g))
            ratio = change / last if last else 1.0
            # Only if jumps contract and gain what was predicted; otherwise an extrapolation overshoots.
            forward = min(ratio / (1 - ratio), 1.0) if ratio < 1 and worth == 1 and moved and rose else 0.0
        before, u, value, g = g if moved else None, z, reached, slope
    return u


def projected_gradient(search: Search, region: Region, start: Float[Tensor, " P"], iterations: int = 20) -> None:
    """Steps along the steepest direction in the set's own norm, halved after every step that does not rise.

    The direction is sign(g) for the box and g / ||g|| for the ball; the first step has the length of the set's radius.
    """
    u, step = start, 1.0
    value, g = search.gradient(u)
    if g is None:
        return
    for _ in range(iterations):
        z = region.project(u + step * region.vertex(g, torch.zeros_like(u)))
        # 2^-10 of the set's radius; below that, the sign direction gains nothing more.
        if step < 1e-3 or torch.equal(z, u):
            return
        reached, slope = search.gradient(z)
        if slope is not None and reached > value:
            u, value, g = z, reached, slope
        else:
            step /= 2


def auto_pgd(search: Search, region: Region, start: Float[Tensor, " P"], iterations: int = 20) -> None:
    """APGD: projected steps with momentum 0.75, halved at checkpoints if too few of them rose, from the best point so far.

    Steps go along the steepest direction in the set's own norm; the first has the length of the set's diameter. A checkpoint
    halves the step if fewer than 75 % of the steps since the last one rose, or if neither step nor best value changed since.

    Reference: Croce and Hein 2020, arXiv:2003.01690, algorithm 1.
    """
    origin = torch.zeros_like(start)
    u = before = start
    value, g = search.gradient(u)
    if g is None:
        return
    top, top_u, top_g = value, u, g
    step, rises, since = 2.0, 0, 0
    last_step, last_top = step, top
    checkpoints = _checkpoints(iterations)
    for k in range(iterations):
        z = region.project(u + step * region.vertex(g, origin))
        after = z if k == 0 else region.project(u + 0.75 * (z - u) + 0.25 * (u - before))
        before, u = u, after
        reached, slope = search.gradient(u)
        failed = slope is None
        if slope is not None:
            rises += reached > value
            value, g = reached, slope
            if reached > top:
                top, top_u, top_g = reached, u, slope
        if failed or k + 1 in checkpoints:
            if failed or rises < 0.75 * (k + 1 - since) or (step == last_step and top == last_top):
                step /= 2
                u = before = top_u
                value, g = top, top_g
            last_step, last_top, rises, since = step, top, 0, k + 1


def _checkpoints(iterations: int) -> set[int]:
    """Iterations at which APGD checks its progress: 22 % of the run, then intervals that shrink by 3 % of it down to 6 %."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return {math.ceil(share * iterations) for share in shares[1:]}


def projected_quasi_newton(
    search: Search, region: Region, start: Float[Tensor, " P"], iterations: int = 20, memory: int = 6
) -> None:
    """Projected L-BFGS on the free directions, with backtracking along the projection arc.

    Coordinates at the box's boundary that the gradient pushes outward are fixed (Bertsekas 1982, two-metric projection). On the
    sphere the direction is tangential and the secant pairs are those of the Lagrangian, which includes the boundary's
    curvature. If the function is convex along the last step (there is no interior maximum, as around a minimum of a loss), no
    quasi-Newton model of a maximum exists, and the step goes toward the extreme point instead.
    """
    u = start
    value, g = search.gradient(u)
    if g is None:
        return
    pairs: list[tuple[Tensor, Tensor]] = []
    convex = False
    for k in range(iterations):
        search.iteration(k)
        free = region.free(u, g)
        q = free(g)
        if not q.any():
            return
        direction = free(region.vertex(g, u) - u) if convex else free(_two_loop(q, pairs, free))
        moved = _backtrack(search, region, u, value, q, direction)
        if moved is None and (convex or pairs):
            pairs.clear()
            moved = _backtrack(search, region, u, value, q, free(_two_loop(q, [], free)))
        if moved is None:
            return
        z, reached, slope = moved
        s = z - u
        # Secant pair of the minimisation of -f + (multiplier / 2) ||u||².
        y = g - slope + region.multiplier(z, slope) * s
        convex = not float(torch.dot(s, y)) > 1e-10 * float(torch.linalg.vector_norm(s) * torch.linalg.vector_norm(y))
        if convex:
            pairs.clear()
        else:
            pairs = [*pairs, (s, y)][-memory:]
        u, value, g = z, reached, slope


def _two_loop(
    q: Float[Tensor, " P"], pairs: list[tuple[Tensor, Tensor]], free: Callable[[Tensor], Tensor]
) -> Float[Tensor, " P"]:
    """Inverse Hessian model of -f on the free directions times the free gradient q (Nocedal 1980)."""
    used = []
    gamma = 1 / float(q.abs().max())  # without a model, the largest coordinate moves by the set's radius
    for s, y in pairs:
        length = float(torch.linalg.vector_norm(s))
        s, y = free(s), free(y)
        # A step straight to the boundary has no free part; its rounding error must not steer the next step.
        if float(torch.linalg.vector_norm(s)) <= 1e-8 * length:
            continue
        curvature = float(torch.dot(s, y))
        square = float(torch.dot(y, y))
        if curvature > 1e-10 * math.sqrt(square) * float(torch.linalg.vector_norm(s)):
            used.append((s, y, curvature))
            gamma = curvature / square
    r = q.clone()
    shares = []
    for s, y, curvature in reversed(used):
        shares.append(float(torch.dot(s, r)) / curvature)
        r.sub_(y, alpha=shares[-1])
    r.mul_(gamma)
    for (s, y, curvature), share in zip(used, reversed(shares), strict=True):
        r.add_(s, alpha=share - float(torch.dot(y, r)) / curvature)
    return r


def _backtrack(
    search: Search, region: Region, u: Tensor, value: float, q: Tensor, direction: Tensor, trials: int = 8
) -> tuple[Tensor, float, Tensor] | None:
    """First point on the projected arc from u that rises enough (Armijo), with value and gradient; None if there is none."""
    step = 1.0
    for trial in range(trials):
        z = region.project(u + step * direction)
        # With the free gradient q: on the sphere the full gradient would also count the inward component as a loss.
        predicted = float(torch.dot(q, z - u))
        step *= 0.3
        if not predicted > 0:
            continue
        # The first trial usually succeeds and then needs the gradient; later trials compute a value only.
        reached, slope = search.gradient(z) if trial == 0 else (search.value(z), None)
        if math.isfinite(reached) and reached > value and reached >= value + 1e-4 * predicted:
            if slope is None and trial > 0:
                reached, slope = search.gradient(z)
            if slope is not None:
                return z, reached, slope
    return None


def lbfgsb(search: Search, start: Float[Tensor, " P"], radius: Float[Tensor, " P"], iterations: int = 10) -> None:
    """scipy's L-BFGS-B on y over |y_i| <= radius_i, in float64; ten iterations are the setting of Keskar et al. 2016.

    The stopping tolerances are 0: at a trained minimum the gradient is below scipy's defaults, and the run would end at once.
    """
    from scipy.optimize import Bounds, minimize  # slow to import and used only here

    bound = radius.double().cpu().numpy()
    largest = 0.0

    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal largest
        # Rounding to the operator's dtype must not leave the box.
        y = torch.tensor(x, device=radius.device, dtype=radius.dtype).clamp(-radius, radius)
        value, g = search.gradient_at(y)
        if g is None:
            # A large finite value makes the line search back off; scipy does not accept nan or inf.
            return 1e3 * (1 + largest), np.zeros_like(x)
        largest = max(largest, abs(value))
        return -value, -g.double().cpu().numpy()

    minimize(
        negative,
        start.double().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(-bound, bound),
        options={"maxiter": iterations, "ftol": 0.0, "gtol": 0.0},
    )
