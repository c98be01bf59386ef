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

    def estimate(self, rounding: float = 0.0) -> Estimate:
        """The value as a lower bound, with how it was found and what was spent; growths below `rounding` say that they are."""
        starts = len({(run.method, run.start) for run in self.history})
        reason = f"{self.method} from {self.start}; {self.gradients} gradients, {self.evaluations - self.gradients} values, "
        reason += f"{starts} climb{'s' * (starts != 1)}"
        if not self.value > self.centre:
            reason += "; no point that was tried is above the centre"
        elif self.value - self.centre < rounding:
            reason += "; the growth is as small as the rounding of the values, take float64"
        if self.nonfinite:
            reason += f"; {self.nonfinite} points were not finite, {self.overflowed} of them +inf, and are left out"
        if not self.complete:
            reason += "; stopped at the bound on evaluations"
        return Estimate(self.value, None, "lower bound", self.evaluations, self.complete, reason)
