"""Runs that memorized against runs that generalized: how well each measure tells them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from landscape.comparison.difference import adjusted, difference
from landscape.results import Difference

# The two sides of every such comparison.
MEMORIZED, OTHERS = "memorized", "others"
# Corruptions of `landscape train` that leave no rule from inputs to labels, for some samples or for all. Shuffled pixels are
# none of them: one permutation of all images, test images too, keeps the rule.
_LAWLESS = ("labels", "random-labels", "random-pixels", "gaussian")
_MOST = 0.5  # of the wrong labels


def memorizes(recipe: Mapping[str, Any] | None) -> bool | None:
    """Whether a run memorized: its corruption redraws labels or destroys images, and it fitted most of what is wrong.

    Labels that were redrawn, or images that were destroyed, can only be fitted by memorizing. A run that was stopped or
    regularized before it did so did not memorize: what counts is the share of wrong labels that it reproduces, or on destroyed
    images its training accuracy; at least one half. A recipe that records neither goes by its corruption alone.

    Args:
        recipe: of the checkpoint.

    Returns:
        True or False for a recipe of `landscape train`, None for any other.

    Example:
        >>> memorizes({"training": {"corruption": "labels", "corruption_level": 0.4}}), memorizes({"lr": 0.1})
        (True, None)
    """
    training = (recipe or {}).get("training")
    corruption = training.get("corruption") if isinstance(training, Mapping) else None
    if not isinstance(training, Mapping) or not isinstance(corruption, str):
        return None
    if corruption not in _LAWLESS or training.get("corruption_level") == 0:
        return False
    final = (recipe or {}).get("final")
    shares = (final.get("wrong_labels_fitted"), final.get("train_accuracy")) if isinstance(final, Mapping) else ()
    fitted = next((s for s in shares if isinstance(s, int | float)), 1.0)
    return fitted >= _MOST


def separation(
    measures: Mapping[str, np.ndarray], memorized: Sequence[bool], streams: Mapping[str, np.random.Generator], draws: int
) -> dict[str, Difference]:
    """The difference of every measure between runs that memorized and all others; its `auc` says how well it separates them.

    The same tests and intervals as between two groups (`landscape.comparison.difference`), over the pooled runs. They treat
    the runs of each side as a sample of one population: with several recipes on a side, of their mixture in these shares. The
    numbers of runs of each recipe are then fixed rather than drawn, which makes the interval too wide, never too short.

    Args:
        measures: name -> one value per run; not nan.
        memorized: of every run, in the same order.
        streams: name -> generator of random permutations and the bootstrap.
        draws: number of bootstrap resamples.

    Returns:
        name -> Difference of "memorized" and "others", with q over all measures; empty if one side has no runs.

    Example:
        >>> found = separation({"trace": np.arange(10.0)}, [False] * 5 + [True] * 5, {"trace": np.random.default_rng(0)}, 100)
        >>> found["trace"].auc, round(found["trace"].auc_low, 2)
        (1.0, 0.56)
    """
    one = np.array(memorized, bool)
    if one.all() or not one.any():
        return {}
    found = [
        difference(name, (MEMORIZED, values[one]), (OTHERS, values[~one]), streams[name], draws=draws)
        for name, values in measures.items()
    ]
    return {d.name: replace(d, q=q) for d, q in zip(found, adjusted([d.p for d in found]), strict=True)}
