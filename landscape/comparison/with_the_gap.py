"""How every measure ranks the generalization gap: over all runs, hyperparameter by hyperparameter, after others, at worst."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from landscape.comparison.correlation import kendall
from landscape.comparison.difference import adjusted
from landscape.comparison.granulated import granulated, granules
from landscape.comparison.partial import Controls, partial_spearman
from landscape.comparison.sign_error import environments, sign_error
from landscape.results import Granulated, PartialCorrelation, RankCorrelation, SignError


class Ranking(NamedTuple):
    """Rank statistics of each measure, by its name; a measure without one is left out."""

    rank_correlation: dict[str, RankCorrelation]
    granulated: dict[str, Granulated]
    partial: dict[str, PartialCorrelation]
    sign_error: dict[str, SignError]


def ranking(
    measures: Mapping[str, np.ndarray],
    gaps: np.ndarray,
    settings: Sequence[Mapping[str, Any]] | None,
    conditions: Mapping[str, np.ndarray],
    controls: Sequence[str],
    stream: Callable[..., np.random.Generator],
    draws: int,
) -> Ranking:
    """All four statistics.

    Args:
        measures: name -> one value per run; not nan.
        gaps: generalization gap of every run.
        settings: hyperparameters of every run; None if they are not known.
        conditions: name -> one value per run, of what can be held fixed beside hyperparameters.
        controls: names of what the partial correlation holds fixed.
        stream: a random stream for names.
        draws: number of bootstrap resamples.
    """
    held = Controls([{}] * len(gaps) if settings is None else settings, conditions, controls)
    pairs, found = (None, None) if settings is None else (granules(settings), environments(settings, gaps))
    out = Ranking({}, {}, {}, {})
    for name, values in measures.items():
        tau = kendall(values, gaps, stream(name, "tau"), draws)
        if tau is not None:
            out.rank_correlation[name] = tau
        rho = partial_spearman(values, gaps, held, stream(name, "partial"), draws)
        if rho is not None:
            out.partial[name] = rho
        if pairs is not None and found is not None:
            out.granulated[name] = granulated(values, gaps, pairs, stream(name, "psi"), draws)
            out.sign_error[name] = sign_error(values, gaps, found)
    tau_q, rho_q = _q_values(out.rank_correlation), _q_values(out.partial)
    return out._replace(
        rank_correlation={name: t._replace(q=tau_q[name]) for name, t in out.rank_correlation.items()},
        partial={name: t._replace(q=rho_q[name]) for name, t in out.partial.items()},
    )


def _q_values(found: Mapping[str, RankCorrelation | PartialCorrelation]) -> dict[str, float]:
    """q-values over all measures."""
    return dict(zip(found, adjusted([t.p for t in found.values()]), strict=True))
