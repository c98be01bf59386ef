"""The size of a move at which a measure has a given value."""

from typing import TYPE_CHECKING

from landscape.cli.moves.asked_families import named
from landscape.cli.terminal import Terminal
from landscape.errors import NumericalError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from landscape.objective import Objective
    from landscape.reparam import Symmetries
    from landscape.symmetry.families import Family
    from landscape.tasks import Task


def solved(
    terminal: Terminal,
    task: "Task",
    objective: "Objective",
    symmetries: "Symmetries",
    family: "Family",
    target: str,
    layers: list[str] | None,
    seed: int,
) -> float:
    """The alpha of a layer, or the condition number of the pairs' matrices, at which a measure has its target value.

    In closed form for the trace and a layer, by search otherwise.
    """
    import torch

    from landscape.cli.setup import seeded
    from landscape.measures import chosen, measure_all
    from landscape.reparam import move, rescale, smallest_scales, solve_alpha, trace_along
    from landscape.reparam.moving.matrices import largest_condition
    from landscape.reparam.moving.same_function import compare

    name, value = named(target)
    (measure,) = chosen([name])
    if len(layers or ()) > 1:
        raise UsageError("expected one --layer with --target, found several", fix="name the one layer to rescale")
    if family in measure.invariant_to:
        pairs = family != "pair" and "pair" in symmetries.families and "pair" not in measure.invariant_to
        raise UsageError(
            f"expected a measure that {family} moves, found {name}, which is invariant to it",
            fix="pass --symmetry pair, whose matrices move it" if pairs else "try --target trace=1e6",
        )

    def value_of(other: "nn.Module") -> float:
        moved = objective.with_model(other).checked_by(objective)
        return measure_all(moved, [name], seed=seed)[name].estimate.value

    if family == "pair":
        most = largest_condition(p.dtype for p in task.model.parameters())
        double = objective.dtype == torch.float64

        reached: list[float] = []

        def mixed_at(condition: float) -> float:
            other = move(task.model, symmetries, "pair", condition=condition, generator=seeded(seed))
            try:
                compare(task.model, other, objective.example)
            except NumericalError as error:
                nearest = min(reached, key=lambda other: abs(other - value), default=None)
                far = "no value" if nearest is None else f"{nearest:.4g}"
                advice = "" if nearest is None else f"choose a {'smaller' if value > nearest else 'larger'} target"
                fixes = [advice, "" if double else "--dtype float64"]
                raise UsageError(
                    f"expected a value of {name} that matrices reach before rounding of the weights changes the function, "
                    f"found {value:g}: {far} was reached, and condition number {condition:.3g} changes the outputs",
                    fix=", or ".join(filter(None, fixes)) or "rescale layers instead: --symmetry layer",
                ) from error
            reached.append(value_of(other))
            return reached[-1]

        return solve_alpha(mixed_at, value, low=1.0, high=0.999 * most, size="condition number").alpha
    unit = symmetries[layers[0]] if layers else symmetries.default
    # A BatchNorm that absorbs the factor bounds it from below; 1 % is added for rounding.
    low = 1.01 * float(smallest_scales(task.model, symmetries)[unit.neurons].max())
    if name == "trace":
        along = trace_along(objective, symmetries, unit, low=low, generator=seeded(seed))
        turn, least = along.flattest()
        terminal.line(f"{unit.name}: flattening bound {least.value:.5g} {least.doubt()} at alpha = {turn:.4g}")
        return along.solve(value)

    def measure_at(alpha: float) -> float:
        other = rescale(task.model, alpha, layers=[unit.name], example=objective.example)
        return value_of(other)

    return solve_alpha(measure_at, value, low=min(max(1e-4, low), 1.0)).alpha
