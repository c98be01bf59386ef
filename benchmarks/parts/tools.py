"""The tools of the curvature parts, opened on a case; those that are missing or fail to open become rows that say so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, filterwarnings

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.peers import CURVATURE
from benchmarks.peers.plan import Plan
from benchmarks.peers.session import Session, in_best_format
from benchmarks.record import OURS, Row, absent, row
from benchmarks.reference import differentiable_attention
from benchmarks.timing import Meter, Timed, alternate


@dataclass
class Opened:
    """A tool at work on a case."""

    name: str
    session: Session
    layout: str


@contextmanager
def at_work() -> Iterator[None]:
    """Attention that can be differentiated twice, and silence about what peers do on purpose."""
    with differentiable_attention(), catch_warnings():
        filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
        filterwarnings("ignore", message=r"There is a performance drop because we have not yet implemented the batching rule")
        filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated")
        yield


def opened(part: str, case: Case, rows: list[Row]) -> list[Opened]:
    """Every tool of the part that can be opened; for the others a row each."""
    found = []
    for tool in CURVATURE:
        if tool.parts is not None and part not in tool.parts:
            continue
        if tool.version is None:
            rows.append(absent(part, case.name, tool.name, f"not installed: pip install {tool.distribution}"))
            continue
        try:
            with at_work():
                session, layout = in_best_format(tool.open(), case)
        except Exception as error:  # another tool's bug is a finding, not the end of the run
            rows.append(absent(part, case.name, tool.name, f"{type(error).__name__}: {error}"))
            continue
        found.append(Opened(tool.name, session, layout))
    return found


def prepare(tools: list[Opened], plan: Plan | None = None) -> None:
    """What tools do once and nobody is charged for; an error comes again when they are timed."""
    for tool in tools:
        with at_work(), suppress(Exception):
            tool.session.ready(plan)


def compete(tools: list[Opened], call: Callable[[Any, Meter, Any], Any], options: Options) -> dict[str, Timed]:
    """One job for every tool: ours first, which sets the limit of the others; then rounds in turn, while time is left.

    A long job of ours (a third of the budget) is not done twice: its first time stands.

    Args:
        tools: who takes part.
        call: (session, meter, our first result or None) -> result.
        options: rounds, budget and limit.
    """
    ours = next(t for t in tools if t.name == OURS)
    with at_work():
        first = alternate({OURS: lambda: call(ours.session, Meter(), None)}, repeats=1, budget=0.0, warm=False)[OURS]
        limit = options.allowed(0.0 if first.failure else first.median)
        again = first.failure is None and first.median < options.budget / 3
        jobs: dict[str, Callable[[], Any]] = {
            t.name: (lambda t=t: call(t.session, Meter(None if t is ours else limit), first.result))
            for t in tools
            if again or t is not ours
        }
        return {OURS: first} | alternate(jobs, repeats=options.repeats, budget=options.budget, warm=False)


def outcome(part: str, case: Case, work: str, tool: Opened, timed: Timed, **facts: Any) -> Row:
    """The row of one tool's job."""
    result = timed.result.result if hasattr(timed.result, "result") else timed.result
    known = {} if result is None else {"products": result.products}
    notes = [n for n in (getattr(result, "note", ""), tool.layout) if n]
    return row(part, case.name, work, tool.name, timed, note="; ".join(notes), samples=case.samples, **known, **facts)
