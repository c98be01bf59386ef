"""The largest loss in a box by brute search in float64: many starts, scipy, flips. It shares nothing with what it checks."""

import numpy as np
import torch
from reference import dense_loss
from scipy.optimize import minimize


def multi_start(model, loss, x, y, radius, *, starts: int = 16, shakes: int = 30, seed: int = 0) -> tuple[float, float]:
    """Largest loss found over |d_i| <= radius_i, and the loss at d = 0.

    scipy's L-BFGS-B from the centre, from corners drawn at random, and from points inside; every end is moved to the corner
    that its gradient's signs point to while that helps. The best is then shaken: a random share of its coordinates changes
    sign, it climbs again, and stays if it is higher. At last single coordinates are flipped, those that the gradient holds
    least.
    """
    function, theta = dense_loss(model, loss, x, y)
    slope = torch.func.grad_and_value(function)
    rng = np.random.default_rng(seed)
    r = np.asarray(radius, float)
    centre = theta.numpy()

    def f(d):
        gradient, value = slope(torch.from_numpy(centre + d))
        return float(value), gradient.numpy()

    def corners(d):
        value, g = f(d)
        for _ in range(50):
            other = np.where(g == 0, d, r * np.sign(g))
            higher, slope_there = f(other)
            if not higher > value:
                break
            d, value, g = other, higher, slope_there
        return value, d, g

    def climb(d, steps):
        found = minimize(
            lambda z: tuple(-np.asarray(part) for part in f(z)), d, jac=True, method="L-BFGS-B",
            bounds=np.stack((-r, r), 1), options={"maxiter": steps, "ftol": 0.0, "gtol": 0.0, "maxls": 40},
        )  # fmt: skip
        return max(corners(found.x), corners(d), key=lambda end: end[0])

    origins = [np.zeros_like(r)]
    origins += [r * rng.choice((-1.0, 1.0), len(r)) for _ in range(starts)]
    origins += [r * rng.uniform(-1, 1, len(r)) * rng.uniform() for _ in range(starts // 2)]
    ends = sorted((climb(d, 40) for d in origins), key=lambda end: -end[0])
    best = ends[0]
    for k in range(shakes):
        value, d, _ = ends[k % 3] if k < shakes // 2 else best
        share = rng.choice((0.02, 0.1, 0.3))
        shaken = corners(np.where(rng.uniform(size=len(r)) < share, -d, d))
        if shaken[0] > best[0]:
            best = shaken
    best = max(best, climb(best[1], 100), key=lambda end: end[0])
    value, d, g = best
    for i in np.argsort(np.abs(r * g))[: 2 * min(len(r), 30)]:
        other = d.copy()
        other[i] = -d[i] if d[i] else r[i]
        higher, _ = f(other)
        if higher > value:
            value, d = higher, other
    return max(value, corners(d)[0]), f(np.zeros_like(r))[0]
