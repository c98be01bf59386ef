"""Whether two networks differ in the weights that vary, and in nothing else, so that a path may lead from one to the other."""

import torch

from landscape.errors import MismatchError, UsageError
from landscape.objective import Objective


def check_same_network(start: Objective, end: Objective) -> None:
    """Refuse two networks between which the weights that vary cannot lead.

    Raises:
        MismatchError: they differ in their parameters.
        UsageError: weights that are held differ, so that a path in the others never reaches the second network.
    """
    if [(e.name, e.shape) for e in start.layout] != [(e.name, e.shape) for e in end.layout]:
        raise MismatchError(
            "expected two networks of one architecture, found different parameters", fix="compare like with like"
        )
    ours, theirs = start.held, end.held
    apart = [name for name, p in ours.items() if name in theirs and not torch.equal(p, theirs[name].to(p))]
    if apart:
        several = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
        raise UsageError(
            f"expected two networks that differ in the weights that vary alone, found others that differ: {apart[0]}{several}",
            fix="let all weights vary (leave --params out), since a path in some of them does not reach the other network",
        )
