"""AUROC of a score for a known corruption against pairs counted by hand."""

import numpy as np
import pytest

from landscape.errors import UsageError
from landscape.memorization import detection


def test_a_ranking_made_by_hand():
    """Three wrong samples among seven; one pair is the wrong way round, and one is equal."""
    scores = np.array([9.0, 8.0, 5.0, 6.0, 5.0, 2.0, 1.0])
    wrong = np.array([True, True, True, False, False, False, False])
    pairs = [(a > b) + (a == b) / 2 for a in scores[wrong] for b in scores[~wrong]]
    assert sum(pairs) == 10.5
    found = detection(scores, wrong)
    assert found.auroc == pytest.approx(10.5 / 12)
    assert (found.wrong, found.others) == (3, 4)
    assert found.low < found.auroc < found.high <= 1


@pytest.mark.parametrize("seed", range(3))
def test_it_counts_pairs(seed):
    random = np.random.default_rng(seed)
    scores, wrong = random.integers(0, 6, 40).astype(float), random.random(40) < 0.3
    a, b = scores[wrong], scores[~wrong]
    assert detection(scores, wrong).auroc == pytest.approx(float(((a[:, None] > b) + (a[:, None] == b) / 2).mean()))
    assert detection(-scores, wrong).auroc == pytest.approx(1 - detection(scores, wrong).auroc)


def test_the_interval_covers_the_truth():
    """Two normal distributions one and a half standard deviations apart: AUROC = Phi(1.5 / sqrt 2) = 0.8556."""
    random, truth, covered = np.random.default_rng(0), 0.855578, 0
    for _ in range(200):
        scores = np.concatenate([random.normal(1.5, 1, 20), random.normal(0, 1, 180)])
        found = detection(scores, np.arange(200) < 20)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 200 <= 0.99


def test_complete_separation_is_not_certainty():
    found = detection(np.arange(100.0), np.arange(100) >= 90)
    assert found.auroc == 1.0
    assert 0.7 < found.low < 1.0


@pytest.mark.parametrize(
    ("scores", "wrong", "text"),
    [
        ([1.0, 2.0], [True, False, True], "expected one score for each of 3 samples, found 2"),
        ([1.0, 2.0, np.nan, 0.0], [True, True, False, False], "expected finite scores"),
        ([1.0, 2.0, 3.0], [True, False, False], "expected at least 2 wrong samples and 2 others, found 1 and 2"),
    ],
)
def test_mistakes(scores, wrong, text):
    with pytest.raises(UsageError) as error:
        detection(np.array(scores), np.array(wrong))
    assert text in str(error.value)
