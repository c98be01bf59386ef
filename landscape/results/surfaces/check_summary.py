"""A check in one line: the parts that passed, failed, and were not checked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckSummary:
    """The parts of a check by their result; `str` gives the line below a figure.

    Attributes:
        passed: names of the parts that passed.
        failed: descriptions of the parts that failed.
        unmade: names of the parts that were not checked, with the reason.

    Example:
        >>> str(CheckSummary(("axes", "norm")) + CheckSummary(unmade=("centre (0 is not on the grid)",)))
        'checked: axes, norm; NOT CHECKED: centre (0 is not on the grid)'
    """

    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unmade: tuple[str, ...] = ()

    def __add__(self, other: "CheckSummary") -> "CheckSummary":
        """The parts of both."""
        return CheckSummary(self.passed + other.passed, self.failed + other.failed, self.unmade + other.unmade)

    def __str__(self) -> str:
        """Text with the failed parts first."""
        parts = (("FAILED", self.failed), ("checked", self.passed), ("NOT CHECKED", self.unmade))
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names) or "NOT CHECKED"

    @classmethod
    def part(cls, name: str, problem: str | None = None, reason: str | None = None) -> "CheckSummary":
        """One part of a check.

        Args:
            name: what is checked.
            problem: description of the failure; None if it passed.
            reason: why it was not checked; None if it was.
        """
        if reason is not None:
            return cls(unmade=(f"{name} ({reason})",))
        return cls((name,)) if problem is None else cls(failed=(problem,))
