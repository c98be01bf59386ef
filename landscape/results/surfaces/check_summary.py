"""A check in one line: what held, what failed, what could not be checked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckSummary:
    """The parts of a check by what came out of them; `str` is the line that stands under a figure.

    Attributes:
        passed: names of the parts that hold.
        failed: what is wrong, in words, one for each part that does not hold.
        unmade: names of the parts that were not checked, with the reason.

    Example:
        >>> str(CheckSummary(("axes", "norm")) + CheckSummary(unmade=("centre (0 is not on the grid)",)))
        'checked: axes, norm; NOT CHECKED: centre (0 is not on the grid)'
    """

    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()

    def __add__(self, other: "CheckSummary") -> "CheckSummary":
        """Both together."""
        return CheckSummary(self.passed + other.passed, self.failed + other.failed, self.unmade + other.unmade)

    def __str__(self) -> str:
        """What failed comes first."""
        parts = (("FAILED", self.failed), ("checked", self.passed), ("NOT CHECKED", self.unmade))
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names) or "NOT CHECKED"

    @classmethod
    def part(cls, name: str, problem: str | None = None, reason: str | None = None) -> "CheckSummary":
        """One part of a check.

        Args:
            name: what is checked.
            problem: what is wrong, in words; None where it holds.
            reason: why it was not checked; None where it was.
        """
        if reason is not None:
            return cls(unmade=(f"{name} ({reason})",))
        return cls((name,)) if problem is None else cls(failed=(problem,))
