"""Climb a measure along the symmetries, and say how far it came."""

from typing import TYPE_CHECKING

from landscape.cli.moves.asked_families import TOGETHER, Asked
from landscape.cli.moves.certified_moves import Line
from landscape.cli.terminal import Terminal

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.reparam import Symmetries
    from landscape.tasks import Task


def climb(terminal: Terminal, task: "Task", objective: "Objective", symmetries: "Symmetries", asked: Asked, seed: int) -> Line:
    """The network where a measure is largest within the budget, as a line to certify."""
    from landscape.reparam.attack import attack

    assert asked.attack is not None  # asked for
    found = attack(
        objective,
        task.model,
        symmetries,
        asked.attack,
        families=asked.among(symmetries.families),
        alpha=asked.factor,
        condition=asked.ratio,
        seed=seed,
    )
    terminal.line(str(found))
    if found.refused:
        terminal.note(f"{found.refused} of {found.evaluations} points changed the outputs too much and were left out")
    return Line(TOGETHER, found.families, [asked.factor], asked.ratio, found.model, found)
