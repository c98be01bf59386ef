"""The result of a maximisation: the best point, and the runs that led to it."""

from dataclasses import dataclass

from torch import Tensor

from landscape.results import Estimate


@dataclass(frozen=True)
class Run:
    """One method from one start: its best value (-inf if none was finite) and its number of evaluations."""

    method: str
    start: str
    value: float
    evaluations: int


@dataclass(frozen=True, eq=False)
class Maximum:
    """The best point that a maximisation found.

    Attributes:
        value: the largest finite value over all evaluations: a lower bound of the maximum.
        point: (P,) its location; exactly in the set for a box, up to rounding for a ball.
        centre: value at y = 0.
        evaluations: number of function calls; gradients: number of those that computed a gradient.
        method, start: the run that found the best value.
        history: every run in order.
        nonfinite: evaluations that were not finite; overflowed: those among them that were +inf.
        complete: False if `max_evaluations` ended the search early.
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
        """The value as a lower bound, with method and cost; a note is added if the growth is below `rounding`."""
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
