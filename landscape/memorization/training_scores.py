"""Scores of every sample over the checkpoints of a training run."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from landscape.errors import UsageError
from landscape.machine import progress
from landscape.memorization.point_scores import input_derivatives, new_generators
from landscape.objective import Objective

# A point of a training run: the flat weights, or these and the buffers that replace the network's own.
Point = Tensor | tuple[Tensor, Mapping[str, Tensor]]

_OF_INPUTS = {"mean_loss_sensitivity", "mean_input_curvature"}


def training_scores(
    objective: Objective,
    trajectory: Iterable[Point],
    wanted: Sequence[str],
    step: float,
    probes: int,
    generator: torch.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, str], int]:
    """The wanted scores that follow training, the reasons for those that are not defined, and the number of checkpoints.

    Args:
        objective: the trained network on its data.
        trajectory: the points, in the order of training; read one at a time.
        wanted: names of `SCORES` that follow training; others are ignored.
        step, probes: of the input curvature.
        generator: of its random signs, new ones for each point.

    Raises:
        UsageError: there are fewer than two points; a point lacks the running statistics of the network's BatchNorm.

    Cost: for each point a forward pass; three more, and three for each probe, for scores of the inputs.
    """
    asked, missing = set(wanted), dict[str, str]()
    sums: dict[str, np.ndarray] = {}
    right: list[np.ndarray] = []
    count = 0
    with progress.stage(
        "checkpoints of training", total=len(trajectory) if isinstance(trajectory, Sequence) else None
    ) as advance:
        for point in trajectory:
            theta, buffers = point if isinstance(point, tuple) else (point, {})
            if objective.batchnorms and not buffers:
                raise UsageError(
                    "expected the running statistics of BatchNorm with every point of the trajectory, found weights alone",
                    fix="pass pairs (theta, buffers), e.g. CheckpointFiles(folder, model).points()",
                )
            each = objective.evaluate(theta, dict(buffers)).each
            _add(sums, "cumulative_loss", each["loss"])
            if "accuracy" in each:
                right.append(each["accuracy"])
            if asked & _OF_INPUTS and not set(missing) & _OF_INPUTS:
                signs = new_generators(probes if "mean_input_curvature" in asked else 0, generator)
                try:
                    norms, squares = input_derivatives(objective.at(theta, dict(buffers)), step, signs)
                except UsageError as error:
                    missing |= dict.fromkeys(sorted(asked & _OF_INPUTS), str(error))
                else:
                    _add(sums, "mean_loss_sensitivity", norms)
                    _add(sums, "mean_input_curvature", squares)
            count += 1
            advance(1)
    if count < 2:
        raise UsageError(f"expected at least 2 checkpoints of training, found {count}", fix="train with --keep-every 1")
    found = {name: total / (1 if name == "cumulative_loss" else count) for name, total in sums.items()}
    if "forgetting" in asked:
        events = forgetting_events(np.array(right)) if right else None
        if events is None:
            missing["forgetting"] = "expected right or wrong for every sample, found a task without classes"
        else:
            found["forgetting"] = events
    return {name: found[name] for name in wanted if name in found and name not in missing}, missing, count


def forgetting_events(right: np.ndarray) -> np.ndarray | None:
    """How often each sample turned from right to wrong; T for one that was never right. None unless all are right or wrong.

    Args:
        right: (T, N) 1 where a sample was right at a checkpoint, 0 where it was wrong.

    Example:
        >>> forgetting_events(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).tolist()
        [1.0, 1.0, 3.0]
    """
    if not ((right == 0) | (right == 1)).all():
        return None
    events = ((right[:-1] == 1) & (right[1:] == 0)).sum(0)
    return np.where(right.any(0), events, len(right)).astype(float)


def _add(sums: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    """Add to a sum over checkpoints."""
    sums[name] = values + sums.get(name, 0.0)
