"""The line that says how far a computation in Python is."""

import io

import torch
from torch import nn

import landscape as ls
from landscape.machine.progress import remark, stage


def shown(file):
    """What the line said, one after another."""
    return [line.rstrip() for line in file.getvalue().split("\r") if line.strip()]


def test_a_line_has_the_stage_its_steps_and_how_long_it_took():
    file = io.StringIO()
    with ls.progress(file), stage("trace", 4) as advance:
        advance(1)
        remark("part of it was done")
    first, second, last = shown(file)
    assert first.startswith(f"trace: {'█' * 6}{'·' * 18} 1 of at most 4, at most ")
    assert second == "part of it was done"
    assert last.startswith("done in ")
    assert file.getvalue().endswith("\n")


def test_a_stage_of_unknown_length_has_no_bar_and_a_shorter_line_leaves_nothing_of_a_longer_one():
    file = io.StringIO()
    with ls.progress(file), stage("a search of some length", None) as advance:
        advance(3)
    first, last = file.getvalue().split("\r")[1:]
    assert first == "a search of some length: 3"
    assert len(last.rstrip("\n")) >= len(first)


def test_a_computation_says_how_far_it_is_on_stderr_and_only_inside_the_block(capsys):
    objective = ls.Objective(nn.Linear(4, 2), nn.MSELoss(), (torch.ones(6, 4), torch.ones(6, 2)))
    with ls.progress():
        ls.trace(objective, probes=4)
    told = capsys.readouterr()
    assert "of at most" in told.err
    assert "done in" in told.err
    assert not told.out
    ls.trace(objective, probes=4)
    assert not capsys.readouterr().err


def test_the_end_is_told_after_an_error_too():
    file = io.StringIO()
    try:
        with ls.progress(file):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert shown(file)[-1].startswith("done in ")
