"""Measures of one network, computed one after another: progress, passes spent, and what is saved."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch

from landscape.machine import progress
from landscape.measures.registry import Measure, chosen
from landscape.measures.running.marks import mark_of
from landscape.measures.running.memo import computed
from landscape.measures.running.remaining_time import Remaining
from landscape.measures.running.saved_measures import Kept
from landscape.measures.running.time_forecast import Forecast
from landscape.objective import Objective
from landscape.results import Measurement


def measure_all(
    objective: Objective,
    names: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
    seconds: Mapping[str, float] | None = None,
    plan: Forecast | None = None,
    kept: Kept | None = None,
    seen: Callable[[str, Measurement], None] | None = None,
    marks: bool = False,
) -> dict[str, Measurement]:
    """Compute measures of one network.

    Every measure uses the same seed: two networks measured with the same seed get the same probes, and computations that
    several measures need (a Lanczos run, a sweep of probes) are done once. A measure that is not defined for the network, or
    fails, is nan with a reason; the others are computed all the same.

    Args:
        objective: the network on its data.
        names: None for the default measures, "all", or a list of names.
        seed: seed of every measure's generator.
        seconds: forecast time of each measure, so that the steps of the progress bar take equal times.
        plan: `forecast(objective, names)`; with it the remaining time is estimated from measured times of passes.
        kept: measures that are already saved; each new one is saved there as soon as it is computed.
        seen: called with each measure, in order, as soon as it is computed.
        marks: whether to find the network's symmetries, which costs one trace (seconds); without, what a measure is not proven
            to survive is marked as not known.

    Returns:
        name -> Measurement, with its unit, invariance, settings, passes and seconds.
    """
    objective.preflight()
    out: dict[str, Measurement] = {}
    measures = chosen(names)
    there = {} if kept is None else kept.measurements
    todo = [m for m in measures if m.name not in there]
    steps = {m.name: max(1, round(seconds[m.name])) if seconds and not plan else 1 for m in measures}
    passes = {} if plan is None else {m.name: plan.passes[m.name] for m in todo}
    remaining = None if plan is None else Remaining(passes, plan.each, lambda: objective.spent)
    label = "measuring, seconds of work" if seconds and not plan else "measures"
    with progress.stage(label, sum(steps.values())) as advance, ExitStack() as stack:
        if remaining is not None:
            stack.enter_context(progress.ticking(lambda: _learn(remaining, advance), remaining.told))
        for m in measures:
            if m.name in there:
                out[m.name] = there[m.name]
            else:
                if remaining is not None:
                    remaining.begin(m.name)
                out[m.name] = _measured(m, objective, seed, kept, marks)
                if remaining is not None:
                    remaining.end()
                    _say(remaining, advance)
            if seen is not None:
                seen(m.name, out[m.name])
            advance(steps[m.name])
    return out


def _learn(remaining: Remaining, advance: progress.Advance) -> None:
    """Update the estimate of the remaining time and report it."""
    remaining.look()
    _say(remaining, advance)


def _say(remaining: Remaining, advance: progress.Advance) -> None:
    """Report the remaining time, or that it is not known: the search that runs then counts its evaluations, to its limit."""
    advance.left(*((math.nan,) * 3 if remaining.open else remaining.left()))


def _measured(m: Measure, objective: Objective, seed: int, kept: Kept | None, marks: bool) -> Measurement:
    """Compute and save one measure. Work shared with a measure that an earlier run saved is counted for that one."""
    started, before, known = time.perf_counter(), objective.spent, computed(objective)
    estimate = m(objective, torch.Generator().manual_seed(seed))
    seconds = time.perf_counter() - started
    shared = {key: cost for key, cost in computed(objective).items() if key not in known}
    spent = objective.spent - before
    if kept is not None:
        for key in shared.keys() & kept.paid:
            spent = spent - shared[key]
    found = Measurement(
        estimate,
        m.unit,
        matvecs=round(spent.products),
        seconds=seconds,
        gradients=round(spent.gradients),
        forwards=int(spent.forwards + 1e-9),
        settings=m.settings,
        definition=m.summary,
        reference=m.reference,
        **mark_of(m, objective, trace=marks),
    )
    if kept is not None:
        kept.keep(objective, m.name, found, list(shared))
    return found
