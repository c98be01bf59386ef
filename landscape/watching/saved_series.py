"""A training run measured afterwards, from the checkpoints that it left."""

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import UsageError
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
    counted: str = "step",
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
        counted: what those numbers count, as `steps_in` reads from names.
        sgd: settings of `torch.optim.SGD` that trained them, for the edge of stability; None for no edge.
        alarm: for label memorization, on the traces of layers, which are then measured too.

    Raises:
        UsageError: an unknown measure, or a setting of SGD out of range; see `check_sgd`.
        NumericalError: the loss at the objective's own weights is not finite, or has no second derivative.

    Cost: for each point as a check of `Watch`.
    """
    started, settings = time.perf_counter(), Settings(tol=tol, probes=probes, seed=seed)
    chosen = measures_of(with_layers(measures, alarm))
    stepping, words = None, ""
    if sgd is not None:
        check_sgd(sgd)
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
        counted=counted,
        memorization=None if alarm is None else alarm(WatchHistory(tuple(checks), counted=counted)),
        units=units_of(chosen),
        optimizer=words,
        remarks=tuple(dict.fromkeys(e.reason for c in checks for e in c.measures.values() if e.reason)),
        seconds=time.perf_counter() - started,
        provenance=provenance(objective, seed) | {"samples": objective.samples},
    )


def check_sgd(settings: Mapping[str, Any]) -> None:
    """Refuse a learning rate that is not positive, and a momentum with which SGD never settles; None is not looked at.

    Raises:
        UsageError: it names the setting and the range.
    """
    lr, momentum = settings.get("lr"), settings.get("momentum")
    if lr is not None and not 0 < lr < math.inf:
        raise UsageError(f"expected a positive learning rate, found {lr:g}", fix="the edge of stability is 2 / lr")
    if momentum is not None and not 0 <= momentum < 1:
        raise UsageError(f"expected a momentum from 0 to less than 1, found {momentum:g}", fix="0.9 is usual")


def steps_in(names: Sequence[str]) -> tuple[list[int], str]:
    """The last number in each name, if they increase, and what it counts; else 0, 1, 2, ... "checkpoint".

    Example:
        >>> steps_in(["epoch-0000", "epoch-0010"]), steps_in(["epoch=0-step=50", "epoch=1-step=100"])
        (([0, 10], 'epoch'), ([50, 100], 'step'))
        >>> steps_in(["start", "end"]), steps_in(["checkpoint-500", "checkpoint-1000"])
        (([0, 1], 'checkpoint'), ([500, 1000], 'checkpoint'))
    """
    found = [re.findall("([a-zA-Z]*)[^a-zA-Z0-9]*([0-9]+)", name) for name in names]
    last = [f[-1] for f in found if f]
    numbers = [int(number) for _, number in last]
    if len(numbers) < len(names) or not all(a < b for a, b in pairwise(numbers)):
        return list(range(len(names))), "checkpoint"
    words = {word.lower() for word, _ in last}
    return numbers, words.pop() if words in ({"epoch"}, {"step"}) else "checkpoint"
