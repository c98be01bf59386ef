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
    from landscape.machine.progress import duration
    from landscape.measures.running.remaining_time import UNSURE
    from landscape.measures.running.time_forecast import forecast
    from landscape.reparam.attack import EVALUATIONS, attack

    assert asked.attack is not None  # asked for
    whole = forecast(objective, [asked.attack]).total * EVALUATIONS
    likely, low, high = (duration(whole * factor) for factor in (1, 1 / UNSURE, UNSURE))
    terminal.note(
        f"forecast: {EVALUATIONS} evaluations of {asked.attack}, about {likely} ({low} to {high}); then the certificate"
    )
    found = attack(
        objective,
        task.model,
        symmetries,
        asked.attack,
        families=asked.among(symmetries.families),
        alpha=asked.factor,
        condition=asked.ratio,
        evaluations=EVALUATIONS,
        seed=seed,
    )
    terminal.line(str(found))
    if found.refused:
        terminal.note(f"{found.refused} of {found.evaluations} points changed the outputs too much and were left out")
    return Line(TOGETHER, found.families, [asked.factor], asked.ratio, found.model, found)
