"""Record of a maximisation: counts all evaluations and keeps the best finite value."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.maximisation.outlook import Outlook

ValueAndGradient = Callable[[Tensor], tuple[float, Tensor]]
Value = Callable[[Tensor], float]


class BudgetSpent(Exception):
    """Raised by `Search` before an evaluation that would exceed the budget; the driver then ends the run."""


class Search:
    """A function of y = scale * u, evaluated in u; the set in u is a unit box or ball.

    Args:
        value_and_gradient, value: of y.
        scale: (P,) or scalar; coordinates whose scale is 0 never move.
        dtype, device: of y.
        budget: most evaluations; None for no bound.
        outlook: is told of every evaluation.

    Attributes:
        best, point: the largest finite value so far and its y.
        base: the value at the centre, once known; 0 before.
        run_best: the largest finite value since it was last reset at the start of a run.
        evaluations, gradients: number of all calls, and of those that computed a gradient.
        nonfinite, overflowed: number of values that were not finite, and of those among them that were +inf.
    """

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        value: Value | None,
        scale: Float[Tensor, "..."],
        dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
        budget: int | None = None,
        outlook: Outlook | None = None,
    ) -> None:
        self._value_and_gradient, self._value = value_and_gradient, value
        self.scale, self.dim, self.dtype, self.device = scale, dim, dtype, device
        self.budget, self.outlook = budget, outlook
        self.best, self.point = -math.inf, torch.zeros(dim, dtype=dtype, device=device)
        self.evaluations = self.gradients = self.nonfinite = self.overflowed = 0
        self.run_best, self.base = -math.inf, 0.0
        self._centre: tuple[float, Tensor] | None = None

    def gradient_at(self, y: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"] | None]:
        """Value and gradient with respect to y; the gradient is None if it or the value is not finite.

        The centre is evaluated once and cached, since several methods start there.
        """
        centre = not bool(y.any())
        if centre and self._centre is not None:
            value, gradient = self._centre
            self.run_best = max(self.run_best, value)
        else:
            self._count()
            self.gradients += 1
            value, gradient = self._value_and_gradient(y)
            value = float(value)
            if gradient.shape != (self.dim,):
                raise UsageError(
                    f"expected a gradient of shape ({self.dim},), found {tuple(gradient.shape)}",
                    fix="return one entry for each coordinate",
                )
            gradient = gradient.detach().to(device=self.device, dtype=self.dtype)
            self._record(value, y)
            if centre:
                self._centre, self.base = (value, gradient), value
        usable = math.isfinite(value) and bool(torch.isfinite(gradient).all())
        return value, gradient if usable else None

    def gradient(self, u: Float[Tensor, " P"]) -> tuple[float, Float[Tensor, " P"] | None]:
        """Value and gradient with respect to u."""
        value, gradient = self.gradient_at(self.scale * u)
        return value, None if gradient is None else gradient * self.scale

    def value(self, u: Float[Tensor, " P"]) -> float:
        """Value at u."""
        if self._value is None:
            return self.gradient(u)[0]
        self._count()
        y = self.scale * u
        value = float(self._value(y))
        self._record(value, y)
        return value

    def iteration(self, number: int) -> None:
        """Note that the climb that runs has done so many iterations."""
        if self.outlook is not None:
            self.outlook.iteration(number)

    def _count(self) -> None:
        if self.budget is not None and self.evaluations >= self.budget:
            raise BudgetSpent
        self.evaluations += 1
        if self.outlook is not None:
            self.outlook.begun()

    def _record(self, value: float, y: Tensor) -> None:
        if self.outlook is not None:
            self.outlook.evaluated()
        if not math.isfinite(value):
            self.nonfinite += 1
            self.overflowed += value == math.inf
            return
        self.run_best = max(self.run_best, value)
        if value > self.best:
            self.best, self.point = value, y.detach().clone()
