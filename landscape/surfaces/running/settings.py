"""What is settled when a surface is begun, and kept with it: how many points go at once, and how products are computed."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from landscape.curvature.method import Method
from landscape.errors import MalformedError
from landscape.objective import Objective
from landscape.results import Evaluation
from landscape.surfaces.running.run_directory import Run, agreed

# Losses of a sample, one by one and in a stack, relative to the largest: what rounding can make of them in a deep network.
_AGREE = {torch.float32: 1e-4, torch.float64: 1e-10}
_SIDES = 0.01  # share of samples that may change sides
_LARGEST = 1024
_FILE, _PRODUCTS = "evaluation", "products"


def settled(run: Run, objectives: Sequence[Objective], points: int, recalibrates: bool) -> int:
    """Points at once on this surface: what the first process that came here settled on.

    Raises:
        MalformedError: the file that says so is damaged.
    """
    if run.folder is None:
        return points_at_once(objectives, points, recalibrates)
    plan = agreed(run.folder, _FILE, lambda: {"points at once": points_at_once(objectives, points, recalibrates)})
    size = plan.get("points at once")
    if not (isinstance(size, int) and 1 <= size <= _LARGEST):
        raise MalformedError(
            f"expected the number of points at once in {run.folder / _FILE}.json, found {plan}", fix="delete the folder"
        )
    return size


def settled_products(objective: Objective, run: Run) -> Objective:
    """The objective, with the way to compute Hessian-vector products that the first process that came here chose.

    Raises:
        MalformedError: the file that says so is damaged.
    """
    if run.folder is None:
        return objective.by(objective.method)
    kept = agreed(run.folder, _PRODUCTS, lambda: asdict(objective.method))
    try:
        return objective.by(Method(**kept))
    except TypeError:
        raise MalformedError(
            f"expected a way to compute products in {run.folder / _PRODUCTS}.json, found {kept}", fix="delete the folder"
        ) from None


def words(size: int, objective: Objective) -> str:
    """How a surface is evaluated, for people."""
    return f"{f'{size} points' if size > 1 else 'one point'} at once, {objective.arithmetic}"


def points_at_once(objectives: Sequence[Objective], points: int, recalibrates: bool) -> int:
    """As many as suit all objectives, if a stack of them gives what they give one by one; else 1.

    It follows from networks and data alone, not from a clock: two runs of one command give the same bits.

    Args:
        objectives: of the surface; each is evaluated at the same weights.
        points: of the surface; a stack is not larger than half of it.
        recalibrates: whether BatchNorm's statistics are re-estimated at every point, which takes a pass for each.

    Cost: where they are stacked, one stack and two points; two of each where there are buffers.
    """
    size = 1 if recalibrates else min(o.points_at_once for o in objectives)
    while size > 1 and 2 * size > points:
        size //= 2
    return size if size > 1 and all(_agrees(o, size) for o in objectives) else 1


def _agrees(objective: Objective, size: int) -> bool:
    """Whether points in a stack have the losses and scores that they have alone."""
    theta = objective.theta
    scales = torch.linspace(1.0, 1.25, size).to(theta)
    stack = scales[:, None] * theta
    buffers = {n: b.expand(size, *b.shape).clone() for n, b in objective.buffers.items()}
    # With statistics of each point, and without: what depends on a buffer alone is stacked in the one case only.
    for given in (buffers, {}) if buffers else ({},):
        try:
            found = objective.evaluate_many(stack, given)
        except Exception:  # whatever vmap, or the network under it, cannot do
            return False
        if not all(_same(found[i], objective.evaluate(stack[i]), _AGREE[objective.dtype]) for i in (0, size - 1)):
            return False
    return True


def _same(a: Evaluation, b: Evaluation, tolerance: float) -> bool:
    """Whether two evaluations differ by no more than rounding; a sample near the border of two classes may change sides."""
    loss, other = a.each["loss"], b.each["loss"]
    if not np.abs(loss - other).max() <= tolerance * max(1.0, np.abs(other).max()):
        return False
    if ("accuracy" in a.each) != ("accuracy" in b.each):
        return False
    if "accuracy" not in a.each:
        return True
    hits, others = a.each["accuracy"], b.each["accuracy"]
    return float(((hits != others) & ~np.isnan(others)).mean()) <= _SIDES
