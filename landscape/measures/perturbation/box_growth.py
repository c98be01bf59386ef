"""The largest growth of the loss in a box around the weights, for Keskar's measures."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape import linalg
from landscape.linalg.vector_store import Rows
from landscape.measures.registry import Settings, Work
from landscape.measures.running.shared_computations import extremes, extremes_work, loss_rounding
from landscape.objective import Objective
from landscape.results import Estimate, Spent

METHODS = ("corners", "climb", "lbfgsb", "all")


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates of the box: y is the point theta + scale * y in full space, theta + y A^T in a subspace.

    Attributes:
        objective: the network on its data.
        scale: (P,), or None for 1.
        basis: the transpose of A, p rows of P numbers, where the memory allows; None for the full space.
    """

    objective: Objective
    scale: Tensor | None = None
    basis: Rows | None = None

    @property
    def dim(self) -> int:
        """P, or p in a subspace."""
        return self.objective.dim if self.basis is None else len(self.basis)

    def at(self, y: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
        """The weights at y."""
        theta = self.objective.theta
        if self.basis is not None:
            return theta + self.basis.combine(0, y.double().cpu().numpy())
        return theta + (y if self.scale is None else self.scale * y)

    def value_and_gradient(self, y: Float[Tensor, " n"]) -> tuple[float, Float[Tensor, " n"]]:
        """Loss and its gradient with respect to y."""
        value, gradient = self.objective.value_and_gradient(self.at(y))
        if self.basis is not None:
            return value, self.basis.coefficients(self.basis.part(gradient), self.dim).to(y)
        return value, gradient if self.scale is None else self.scale * gradient

    def inverse(self, rows: Float[Tensor, "k P"]) -> Float[Tensor, "k n"]:
        """A^+ applied to each row, by normal equations in float64; A is tall and well conditioned."""
        if self.basis is None:
            return rows
        return torch.from_numpy(np.linalg.solve(*self.basis.gram(rows)).T.copy()).to(rows)

    def top(self, generator: torch.Generator) -> Float[Tensor, "1 n"]:
        """The top eigenvector, from the Lanczos run that other measures with this seed share."""
        own = torch.Generator().manual_seed(generator.initial_seed())
        return self.inverse(extremes(self.objective, own, self.scale).vectors[:1])


def largest_growth_in_box(
    where: Coordinates,
    radius: Float[Tensor, " n"],
    generator: torch.Generator,
    *,
    method: str,
    iterations: int,
    tol: float,
) -> Estimate:
    """max over |y_i| <= radius_i of L(y) - L(0) in per cent of 1 + L(0), with its sampling error at the maximiser.

    To first order the maximum depends on the data like the value at the maximiser (Danskin's theorem). The error of the ratio
    follows by the delta method.
    """
    objective = where.objective
    # The loss of every sample at the last point evaluated without gradient, which usually is the maximiser.
    kept: list[tuple[Tensor, Tensor | None]] = []

    def value(y: Tensor) -> float:
        found = objective.evaluate(where.at(y))
        each = found.each.get("loss")
        kept[:] = [(y.clone(), None if each is None else torch.from_numpy(each).to(objective.device))]
        return found.loss.value

    options = {"generator": generator} | _plan(method, where, iterations, tol, generator)
    best = linalg.maximise_box(where.value_and_gradient, value, radius, **options)
    share = (best.value - best.centre) / (1 + best.centre)
    estimate = replace(best.estimate(loss_rounding(objective)), value=100 * share)
    before = objective.losses()
    known = kept and torch.equal(kept[0][0], best.point)
    after = kept[0][1] if known else objective.losses(where.at(best.point))
    if before is None or after is None:
        return estimate
    error = objective.standard_error((after - before) - share * (before - best.centre))
    return replace(estimate, data_stderr=None if error is None else 100 * error / (1 + best.centre))


def _plan(method: str, where: Coordinates, iterations: int, tol: float, generator: torch.Generator) -> dict[str, Any]:
    """The options of `linalg.maximise_box`."""
    if method == "lbfgsb":
        return {"methods": ("lbfgsb",), "starts": ("centre",), "lbfgsb_iterations": iterations}
    if method == "climb":
        return {"methods": ("sign_corner",), "starts": ("centre",), "jumps": iterations, "tol": tol}
    several: dict[str, Any] = {"iterations": iterations, "jumps": iterations, "lbfgsb_iterations": iterations, "restarts": 2}
    several["tol"] = tol if where.dim > linalg.FEW else 0.0  # in few dimensions, search until no corner is better
    if method == "corners":
        return several | {"methods": ("corner_search", "polish"), "starts": ("centre", "random")}
    return several | {"directions": where.top(generator)}


def box_work(key: str) -> Work:
    """Typical cost of one maximisation, and of the eigenvector `key` from which "all" starts."""

    def work(objective: Objective, settings: Settings) -> dict[Hashable, Spent]:
        steps = settings["iterations"]
        if settings["method"] == "lbfgsb":
            return {object(): Spent(forwards=2, gradients=steps + 2)}
        if settings["method"] == "climb":
            return {object(): Spent(forwards=2, gradients=min(steps, 6))}
        if settings["method"] == "corners":
            inside = settings.get("subspace") or settings.get("p")
            if (inside or objective.dim) > linalg.FEW:
                return {object(): Spent(forwards=20, gradients=55 + steps / 2)}
            # The corners of a subspace are far away, and the growth has many maxima there.
            return {object(): Spent(forwards=2, gradients=(145 if inside else 90) + steps / 2)}
        return {**extremes_work(key)(objective, settings), object(): Spent(forwards=30, gradients=60 + 3 * steps)}

    return work
