"""Seconds to the trace with a 95 % interval of ±5 %. Tools without an interval are given the products that they need."""

from collections.abc import Iterator

import torch

import landscape as ls
from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.tools import compete, opened, outcome, prepare
from benchmarks.peers.plan import planned
from benchmarks.record import Row


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in seconds; `facts` has the intervals and how far each value is from the plan's."""
    case = case.first(options.size("trace", case.name))
    rows: list[Row] = []
    tools = opened("trace", case, rows)
    yield from rows
    objective = ls.Objective(case.model, case.loss, case.batches())
    plan = planned(
        objective.hvp, objective.dim, options.accuracy, width=6 if options.quick else 24,
        generator=torch.Generator().manual_seed(7),
    )  # fmt: skip
    prepare(tools, plan)
    times = compete(tools, lambda session, meter, _: session.trace(options.accuracy, plan, meter), options)
    reference = {
        "reference": plan.value,
        "reference_half_width": plan.half_width / abs(plan.value),
        "plan": {"hutchinson": plan.hutchinson, "hutch++": plan.hutchpp, "xtrace": plan.xtrace, "spread": plan.spread},
    }
    for tool in tools:
        found = times[tool.name].result
        facts = {} if found is None else {
            "value": found.value,
            "half_width": None if found.half_width is None else found.half_width / abs(found.value),
            "deviation": abs(found.value / plan.value - 1),
        }  # fmt: skip
        yield outcome("trace", case, f"±{options.accuracy:.0%}", tool, times[tool.name], **facts, **reference)
