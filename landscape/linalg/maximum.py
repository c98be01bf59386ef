"""What a maximisation hands back: the best point, and the runs that led to it."""

from dataclasses import dataclass

from torch import Tensor

from landscape.results import Estimate


@dataclass(frozen=True)
class Run:
    """One method from one start: the best value it saw (-inf if none was finite) and the evaluations it took."""

    method: str
    start: str
    value: float
    evaluations: int


@dataclass(frozen=True, eq=False)
class Maximum:
    """The best point that a maximisation found.

    Attributes:
        value: the largest finite value over all evaluations: a lower bound of the maximum.
        point: (P,) where it was found, in the set to the bit (box) or to rounding (ball).
        centre: value at y = 0.
        evaluations: all calls of the function; gradients: those among them that gave a gradient too.
        method, start: the run that found it.
        history: every run in order.
        nonfinite: evaluations that were not finite; overflowed: those among them that were +inf.
        complete: False if `max_evaluations` cut the search short.
    """

    value: float
    point: Tensor
    centre: float
    evaluations: int
    gradients: int
    method: str
    start: str
    history: tuple[Run, ...]
    nonfinite: int = 0
    overflowed: int = 0
    complete: bool = True

    def estimate(self) -> Estimate:
        """The value as a lower bound, with how it was found."""
        reason = f"{self.method} from {self.start}"
        if self.nonfinite:
            reason += f"; {self.nonfinite} points were not finite, {self.overflowed} of them +inf, and are left out"
        if not self.complete:
            reason += "; stopped at the bound on evaluations"
        return Estimate(self.value, None, "lower bound", self.evaluations, self.complete, reason)
