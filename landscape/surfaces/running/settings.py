"""Settings that the first process of a surface chooses and stores: points per evaluation, and the method of products."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from landscape.curvature.method import Method
from landscape.errors import MalformedError
from landscape.objective import Objective
from landscape.results import Evaluation
from landscape.surfaces.running.run_directory import Run, agreed

# Tolerance between losses of samples from single points and from a stack, relative to the largest: rounding of deep networks.
_AGREE = {torch.float32: 1e-4, torch.float64: 1e-10}
_SIDES = 0.01  # fraction of samples whose predicted class may change
_LARGEST = 1024
_FILE, _PRODUCTS = "evaluation", "products"


def settled(run: Run, objectives: Sequence[Objective], points: int, recalibrates: bool) -> int:
    """Number of points that are evaluated at once on this surface, as chosen by its first process.

    Raises:
        MalformedError: the file with the setting is damaged.
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
    """The objective with the method of Hessian-vector products that the surface's first process chose.

    Raises:
        MalformedError: the file with the setting is damaged.
    """
    if run.folder is None:
        return objective.by(objective.method)
    kept = agreed(run.folder, _PRODUCTS, lambda: asdict(objective.method))
    try:
        return objective.by(Method(**kept))
    except TypeError:
        raise MalformedError(
            f"expected a method of products in {run.folder / _PRODUCTS}.json, found {kept}", fix="delete the folder"
        ) from None


def words(size: int, objective: Objective) -> str:
    """How a surface is evaluated, as text."""
    return f"{f'{size} points' if size > 1 else 'one point'} at once, {objective.arithmetic}"


def points_at_once(objectives: Sequence[Objective], points: int, recalibrates: bool) -> int:
    """The largest stack of points that suits all objectives, if it gives the same values as single points; else 1.

    It depends on networks and data only, not on timings, so that two runs of one command give the same bits.

    Args:
        objectives: objectives of the surface, evaluated at the same weights.
        points: number of points of the surface; a stack has at most half of them.
        recalibrates: whether BatchNorm statistics are re-estimated at every point, which needs a pass for each point.

    Cost: for stacks, one stack and two points; twice that for a network with buffers.
    """
    size = 1 if recalibrates else min(o.points_at_once for o in objectives)
    while size > 1 and 2 * size > points:
        size //= 2
    return size if size > 1 and all(_agrees(o, size) for o in objectives) else 1


def _agrees(objective: Objective, size: int) -> bool:
    """Whether points in a stack have the same losses and scores as single points."""
    theta = objective.theta
    scales = torch.linspace(1.0, 1.25, size).to(theta)
    stack = scales[:, None] * theta
    buffers = {n: b.expand(size, *b.shape).clone() for n, b in objective.buffers.items()}
    # Test with buffers per point and without: tensors that depend only on buffers are stacked in the first case only.
    for given in (buffers, {}) if buffers else ({},):
        try:
            found = objective.evaluate_many(stack, given)
        except Exception:  # vmap does not support the network
            return False
        if not all(_same(found[i], objective.evaluate(stack[i]), _AGREE[objective.dtype]) for i in (0, size - 1)):
            return False
    return True


def _same(a: Evaluation, b: Evaluation, tolerance: float) -> bool:
    """Whether two evaluations agree up to rounding; samples near a decision boundary may change their class."""
    loss, other = a.each["loss"], b.each["loss"]
    if not np.abs(loss - other).max() <= tolerance * max(1.0, np.abs(other).max()):
        return False
    if ("accuracy" in a.each) != ("accuracy" in b.each):
        return False
    if "accuracy" not in a.each:
        return True
    hits, others = a.each["accuracy"], b.each["accuracy"]
    return float(((hits != others) & ~np.isnan(others)).mean()) <= _SIDES
