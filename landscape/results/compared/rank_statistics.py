"""How a measure ranks the generalization gap: over all runs, by hyperparameter, after other quantities, and at worst."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from landscape.machine.json_values import plain


class RankCorrelation(NamedTuple):
    """Kendall's tau-b of a measure with the generalization gap over all runs.

    Attributes:
        tau: rank correlation, in [-1, 1].
        p: two-sided p-value; the null hypothesis is no association between independent runs.
        q: p adjusted for all measures (Benjamini-Hochberg).
        low, high: 95 % bootstrap interval; None for fewer than eight runs.
        n: number of runs.
    """

    tau: float
    p: float
    q: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Granulated:
    """Granulated rank correlation Psi of a measure with the generalization gap.

    Attributes:
        psi: mean over hyperparameters; None if no two runs differ in a single one.
        low, high: 95 % bootstrap interval; None if there are too few pairs.
        by_hyperparameter: psi of each hyperparameter with at least one pair.
        pairs: for each varying hyperparameter, the number of pairs of runs that differ in it alone.
        reason: why a value is missing; None if none is.
    """

    psi: float | None
    low: float | None
    high: float | None
    by_hyperparameter: dict[str, float]
    pairs: dict[str, int]
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {k: plain(getattr(self, k)) for k in self.__dataclass_fields__}


class PartialCorrelation(NamedTuple):
    """Partial Spearman correlation of a measure with the generalization gap, other quantities held fixed.

    Attributes:
        rho: correlation of the ranks' residuals after regression on `controls`, in [-1, 1].
        p: two-sided p-value; the null hypothesis is no association between independent runs at fixed controls.
        q: p adjusted for all measures (Benjamini-Hochberg).
        low, high: 95 % bootstrap interval; None for fewer than eight runs, or fewer than five degrees of freedom.
        n: number of runs.
        controls: the quantities held fixed.
    """

    rho: float
    p: float
    q: float
    low: float | None
    high: float | None
    n: int
    controls: tuple[str, ...]


@dataclass(frozen=True)
class SignError:
    """Worst-environment sign error of a measure: how often it orders two runs against their generalization gaps.

    An environment is two settings that differ in a single hyperparameter and, significantly, in the gap. Its sign error is the
    mean of (1 - sign(m_i - m_j) sign(g_i - g_j)) / 2 over its pairs of runs, one of each setting: 0 if the larger measure
    always has the larger gap, 1/2 for chance, 1 if it never has.

    Attributes:
        worst: the largest sign error of all environments; None if there is no environment.
        low, high: 95 % interval of the largest one.
        environment: where it is reached, e.g. "lr 0.1 / 0.2 (batch_size 16)".
        by_environment: sign error of every environment.
        passed_over: number of pairs of settings that differ in a single hyperparameter and are no environment: too few runs,
            or no significant difference of the gap.
        reason: why there is no value; None if there is one.
    """

    worst: float | None
    low: float | None
    high: float | None
    environment: str | None
    by_environment: dict[str, float]
    passed_over: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {k: plain(getattr(self, k)) for k in self.__dataclass_fields__}
