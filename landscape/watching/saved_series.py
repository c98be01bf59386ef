"""A training run measured afterwards, from the checkpoints that it left."""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from landscape.machine import progress
from landscape.measures import provenance
from landscape.objective import Objective
from landscape.results import Check, WatchHistory
from landscape.watching.memorization_alarm import MemorizationAlarm, with_layers
from landscape.watching.moment import Moment, Settings, checked, measures_of, units_of
from landscape.watching.optimizer_state import read


def watched_series(
    objective: Objective,
    points: Iterable[tuple[Tensor, dict[str, Tensor]]],
    steps: Sequence[int],
    measures: Sequence[str] = ("lambda_max",),
    *,
    sgd: dict[str, Any] | None = None,
    alarm: MemorizationAlarm | None = None,
    tol: float = 3e-3,
    probes: int = 8,
    seed: int = 0,
) -> WatchHistory:
    """The history that a `Watch` would have written at these points, each warm-started from the one before.

    Args:
        objective: the network on the probe data, at any weights.
        points: flat weights (P,) and buffers, such as `landscape.checkpoints.CheckpointFiles.points()`.
        steps: number of each point.
        measures, tol, probes, seed: as for `Watch`. There is no optimizer's state: `preconditioned_lambda_max` is not defined.
        sgd: settings of `torch.optim.SGD` that trained them, for the edge of stability; None for no edge.
        alarm: for label memorization, on the traces of layers, which are then measured too.

    Raises:
        UsageError: an unknown measure, or a setting of SGD out of range.
        NumericalError: the loss at the objective's own weights is not finite, or has no second derivative.

    Cost: for each point as a check of `Watch`.
    """
    started, settings = time.perf_counter(), Settings(tol=tol, probes=probes, seed=seed)
    chosen = measures_of(with_layers(measures, alarm))
    stepping, words = None, ""
    if sgd is not None:
        weight = nn.Parameter(objective.theta)
        stepping = read(torch.optim.SGD([weight], **sgd), [weight])
        words = stepping.words
    objective.preflight()
    memory: dict[str, Any] = {}
    checks: list[Check] = []
    with progress.stage("checkpoints", total=len(steps)) as advance:
        for step, (theta, buffers) in zip(steps, points, strict=True):
            begun = time.perf_counter()
            at = Moment(objective.at(theta, buffers), stepping, settings, memory)
            checks.append(replace(checked(at, step, chosen), seconds=time.perf_counter() - begun))
            advance(1)
    return WatchHistory(
        tuple(checks),
        memorization=None if alarm is None else alarm(WatchHistory(tuple(checks))),
        units=units_of(chosen),
        optimizer=words,
        remarks=tuple(dict.fromkeys(e.reason for c in checks for e in c.measures.values() if e.reason)),
        seconds=time.perf_counter() - started,
        provenance=provenance(objective, seed) | {"samples": objective.samples},
    )


def steps_in(names: Sequence[str]) -> list[int]:
    """The last number in each name, if they increase; else 0, 1, 2, ...

    Example:
        >>> steps_in(["epoch-0000", "epoch-0010"]), steps_in(["start", "end"])
        ([0, 10], [0, 1])
    """
    found = [re.findall("[0-9]+", name) for name in names]
    numbers = [int(f[-1]) for f in found if f]
    increasing = len(numbers) == len(names) and all(a < b for a, b in pairwise(numbers))
    return numbers if increasing else list(range(len(names)))
