"""What is left is told from what was done lately."""

import pytest

from landscape.machine.time_estimate import Pace


def test_before_anything_is_done_nothing_is_told():
    assert Pace(5.0).left(10) is None


def test_work_that_grows_slower_is_told_from_its_last_stretches():
    """Points of a tenth of a second, then some of ten seconds: the mean since the beginning would be wrong by ten times."""
    pace, now = Pace(0.0), 0.0
    for _ in range(2000):
        now += 0.1
        pace.add(1, now)
    assert pace.left(100) == pytest.approx(10, rel=0.05)
    for _ in range(6):
        now += 10
        pace.add(1, now)
    assert pace.left(100) == pytest.approx(1000)
    assert now / 2006 * 100 < 15


def test_one_pause_changes_nothing():
    pace, now = Pace(0.0), 0.0
    for k in range(200):
        now += 3600.0 if k == 100 else 1.0
        pace.add(1, now)
        if k >= 20:
            assert pace.left(10) == pytest.approx(10)
