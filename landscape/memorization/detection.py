"""How well a score finds the samples that are known to be corrupted: the area under the ROC curve with an interval."""

import numpy as np
from jaxtyping import Bool, Float

from landscape.comparison.intervals import placement_interval
from landscape.errors import UsageError
from landscape.results import Detection


def detection(scores: Float[np.ndarray, " N"], wrong: Bool[np.ndarray, " N"]) -> Detection:
    """AUROC of a score for a known corruption, with a 95 % interval over samples.

    AUROC = P(score of a wrong sample > score of another) + P(equal) / 2: 1 if every wrong sample ranks above all others, 1/2
    for a score that knows nothing, below 1/2 if wrong samples have the smaller scores.

    Args:
        scores: of every sample.
        wrong: which samples are corrupted.

    Raises:
        UsageError: shapes differ, a score is not finite, or fewer than 2 samples are wrong, or fewer than 2 are not.

    Accuracy: the interval takes both groups as independent draws, with the variance of DeLong et al. 1988 or Newcombe's if that
        is larger (`landscape.comparison.intervals.placement_interval`); it has positive width for complete separation. It does
        not include the randomness of training: repeat it with other seeds.

    Cost: two sorts.

    Example:
        >>> found = detection(np.array([5.0, 1.0, 4.0, 2.0, 3.0]), np.array([True, False, True, False, False]))
        >>> found.auroc, found.wrong, found.others
        (1.0, 2, 3)
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    if scores.shape != wrong.shape:
        raise UsageError(f"expected one score for each of {len(wrong)} samples, found {len(scores)}")
    if not np.isfinite(scores).all():
        raise UsageError("expected finite scores, found some that are not", fix="leave those samples out")
    count = int(wrong.sum())
    if min(count, len(wrong) - count) < 2:
        raise UsageError(f"expected at least 2 wrong samples and 2 others, found {count} and {len(wrong) - count}")
    ranks = rankdata(scores)
    above = (ranks[wrong] - rankdata(scores[wrong])) / (len(wrong) - count)
    below = 1 - (ranks[~wrong] - rankdata(scores[~wrong])) / count
    low, high = placement_interval(above, below)
    return Detection(float(roc_auc_score(wrong, scores)), low, high, count, len(wrong) - count)
