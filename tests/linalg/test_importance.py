"""Sums by importance: unbiased, with intervals that cover, and exact where all is found."""

import numpy as np
import pytest

from landscape.linalg.importance import LEAST, PILOT, Redrawn, Terms, combined


def heavy_tailed(seed=0, n=400):
    """Weights over four decades, and terms that follow them but for a factor between 0.3 and 1.7."""
    random = np.random.default_rng(seed)
    weights = np.exp(random.normal(0, 2.5, n))
    return weights, (weights * random.uniform(0.3, 1.7, n))[:, None] * np.array([[1.0, 2.0]])


@pytest.mark.parametrize("heavy", [0, 20])
def test_intervals_cover_and_the_mean_is_right(heavy):
    weights, values = heavy_tailed()
    truth, inside, found = values.sum(0)[0], 0, []
    for seed in range(400):
        part = Terms(weights, lambda i: values[i], seed).estimate(heavy, 30)
        found.append(part.value[0])
        inside += abs(part.value[0] - truth) <= part.interval_factor() * np.sqrt(part.variance[0])
    assert inside / 400 >= 0.93  # a little too wide for ratios that are not skewed
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / 20)
    assert np.std(found, ddof=1) ** 2 <= 1.5 * part.variance[0]


def test_all_terms_are_the_sum_and_each_is_found_once():
    weights, values = heavy_tailed()
    weights[::7] = 0.0
    asked = []

    def find(indices):
        asked.extend(indices)
        return values[indices]

    terms = Terms(weights, find, 0)
    terms.ratios(3, 50)
    part = terms.estimate(len(terms), 0)
    np.testing.assert_allclose(part.value, values[weights > 0].sum(0))
    assert part.variance.tolist() == [0.0, 0.0]
    assert sorted(asked) == np.flatnonzero(weights > 0).tolist()


def test_more_draws_begin_with_the_same():
    weights, values = heavy_tailed()
    terms = Terms(weights, lambda i: values[i], 5)
    few = terms.drawn(10, 20).copy()
    np.testing.assert_array_equal(terms.drawn(10, 500)[:20], few)
    np.testing.assert_array_equal(Terms(weights, lambda i: values[i], 5).drawn(10, 20), few)
    assert (terms.drawn(10, 500) >= 10).all()
    assert not np.array_equal(Terms(weights, lambda i: values[i], 6).drawn(10, 20), few)


def test_draws_of_a_pilot_are_others():
    weights, values = heavy_tailed()
    terms = Terms(weights, lambda i: values[i], 5)
    pilot, fresh = terms.drawn(10, 64), terms.drawn(10, 64, 1)
    assert (pilot == fresh).mean() < 0.5
    assert terms.estimate(10, 64).value[0] != terms.estimate(10, 64, 1).value[0]


def test_the_number_of_heavy_ones_is_the_cheapest():
    weights, values = heavy_tailed()
    terms = Terms(weights, lambda i: values[i], 0)
    spread, mean, deviation = 0.4, 1.1, 0.003 * values[:, 0].sum()
    heavy = terms.heaviest(spread, mean, deviation)

    def cost(c):
        n = np.arange(1, 200_000)
        enough = (spread**2 / n + (2 * mean / n) ** 2) * terms.rest(c) ** 2 <= deviation**2
        return c + max(LEAST, n[np.argmax(enough)])

    assert cost(heavy) <= min(cost(c) for c in range(PILOT, len(terms))) + 1  # whole draws


def test_terms_that_are_redrawn_use_new_numbers_at_every_draw():
    weights, values = heavy_tailed(n=50)
    truth, found = values.sum(0)[0], []

    def find(numbers, indices):
        noise = np.array([np.random.default_rng([7, n, seed]).exponential() for n in numbers])
        return values[indices] * noise[:, None]

    for seed in range(300):
        terms = Redrawn(weights, find, seed)
        terms.ratios(0, 10)
        found.append(terms.estimate(0, 25).value[0])
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(300))


def test_independent_parts_add_up():
    weights, values = heavy_tailed()
    one, two = Terms(weights, lambda i: values[i], 0).estimate(0, 20), Terms(weights, lambda i: -values[i], 1).estimate(0, 40)
    both = combined(one, two)
    np.testing.assert_allclose(both.value, one.value + two.value)
    np.testing.assert_allclose(both.variance, one.variance + two.variance)
    assert 19 <= both.freedom <= 58
