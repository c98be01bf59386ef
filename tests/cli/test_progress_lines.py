"""Progress in a log: of nested stages one line, with one remaining time."""

import io
import math

import pytest
from clock import FakeClock
from rich.console import Console

from landscape.cli import terminal
from landscape.machine import progress


@pytest.fixture
def log(monkeypatch):
    """Lines of progress, and the clock that they go by."""
    clock, text = FakeClock(), io.StringIO()
    monkeypatch.setattr(terminal, "time", clock)
    lines = terminal._Lines(Console(file=text, width=200, highlight=False), lambda remark: None)
    with progress.listening(lines):
        yield clock, lambda: text.getvalue().splitlines()


def test_nested_stages_tell_one_time(log):
    """The outer stage knows what is left of all; the inner one, which would say something else, tells how far it is."""
    clock, lines = log
    with progress.stage("measures", 12) as outer, progress.stage("eigenvalues", 300) as inner:
        outer.left(20.0, 10.0, 40.0)
        clock.now += 11
        inner(34)
    assert lines() == ["measures: 0 of 12, about 9.0 s left (at most 29 s); eigenvalues: 34 of at most 300"]


def test_the_outermost_that_knows_has_the_time(log):
    clock, lines = log
    with progress.stage("networks", 3) as networks:
        networks.left(60.0, 30.0, 120.0)
        with progress.stage("measures", 12) as measures, progress.stage("maximisation") as inner:
            measures.left(20.0, 10.0, 40.0)
            clock.now += 20
            inner(5)
    assert lines() == ["networks: 0 of 3, about 40 s left (10 s to 2 min); maximisation: 5"]


def test_a_forecast_that_is_over_says_so(log):
    clock, lines = log
    with progress.stage("networks", 3) as networks, progress.stage("probes", 64) as inner:
        networks.left(5.0, 2.0, 10.0)
        clock.now += 12
        inner(8)
    assert lines() == ["networks: 0 of 3, longer than forecast; probes: 8 of at most 64"]


def test_a_search_whose_end_nobody_knows_counts_to_its_limit(log):
    clock, lines = log
    with progress.stage("measures", 3) as measures, progress.stage("maximisation", 100) as inner:
        measures.left(20.0, 10.0, 40.0)
        measures.left(math.nan, math.nan, math.nan)
        for _ in range(2):
            clock.now += 6
            inner(10)
    assert lines() == ["maximisation: 20 of at most 100, 12 s, at most 48 s left"]


def test_a_bar_without_a_known_end_leaves_the_time_to_the_search(monkeypatch):
    shown = terminal.Terminal(json=False)
    text = io.StringIO()
    shown.err = Console(file=text, force_terminal=True, width=160, color_system=None)
    with shown.progress(), progress.stage("measures", 3) as measures, progress.stage("maximisation", 100) as inner:
        measures.left(math.nan, math.nan, math.nan)
        inner(10)
    assert "nan" not in text.getvalue()


def test_steps_alone_give_a_bound(log):
    clock, lines = log
    with progress.stage("points", 100) as advance:
        for _ in range(3):
            clock.now += 6
            advance(10)
    assert lines() == ["points: 20 of at most 100, 12 s, at most 48 s left"]
