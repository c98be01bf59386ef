"""The registry of measures, used by the command line, the documentation, the certificate and the contract tests."""

import inspect
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from landscape.errors import NumericalError, UsageError, printable
from landscape.machine import progress
from landscape.measures.running.memo import computed
from landscape.measures.running.remaining_time import Remaining
from landscape.objective import Objective
from landscape.results import Estimate, Measurement, Spent

if TYPE_CHECKING:
    from landscape.measures.running.saved_measures import Kept
    from landscape.measures.running.time_forecast import Forecast

Symmetry = Literal["layer", "node"]
Settings = Mapping[str, Any]
# (objective, settings) -> passes of each computation. Computations of the same name are shared and counted once.
Work = Callable[[Objective, Settings], Mapping[Hashable, Spent]]

MEASURES: dict[str, "Measure"] = {}
_MANY = 10**9  # probes, steps or dimensions: more than any run takes


class NotDefined(UsageError):
    """The measure is not defined for this network, loss or data, e.g. the path norm with attention."""


@dataclass(frozen=True)
class Measure:
    """A registered measure.

    Attributes:
        name: its name on the command line and in the JSON.
        function: (objective, *, generator, ...) -> Estimate.
        unit: unit of the value.
        invariant_to: rescalings that provably leave it unchanged, for all settings; tested on random homogeneous networks.
        reference: the paper that defines it.
        work: its typical cost.
        default: whether `landscape sharpness` computes it by default.
        only_if: condition on the network for the claim of invariance; None if there is none.
        settings: its keyword arguments, by name.
    """

    name: str
    function: Callable[..., Estimate]
    unit: str
    invariant_to: tuple[Symmetry, ...]
    reference: str
    work: Work
    default: bool = True
    only_if: Callable[[Objective], bool] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def __call__(self, objective: Objective, generator: torch.Generator) -> Estimate:
        """Compute the measure with its settings. If it is not defined or fails, the Estimate is nan with a reason."""
        try:
            return self.function(objective, generator=generator, **self.settings)
        except NotDefined as error:
            return Estimate(nan, reason=f"not defined: {error}")
        except NumericalError as error:
            objective.group.fail_together(error)
            return Estimate(nan, converged=False, reason=str(error))
        except (RuntimeError, np.linalg.LinAlgError) as error:  # out of memory, or a failure in a backend
            objective.group.fail_together(error)
            return Estimate(nan, converged=False, reason=str(error).partition("\n")[0] or type(error).__name__)

    def unmoved_by(self, objective: Objective) -> tuple[Symmetry, ...]:
        """The rescalings of this network that leave the measure unchanged."""
        return self.invariant_to if self.only_if is None or self.only_if(objective) else ()

    def with_settings(self, text: str) -> "Measure":
        """The measure with other settings: "eps=5e-4:iterations=20" gives "keskar:eps=5e-4:iterations=20".

        Raises:
            UsageError: an unknown setting, or a value of the wrong type.
        """
        changed = dict(self.settings)
        for part in text.split(":"):
            key, equals, value = part.partition("=")
            if not equals or key not in changed:
                raise UsageError(
                    f"expected a setting of {self.name}, found {part!r}",
                    fix=f"its settings are {', '.join(f'{k}={v}' for k, v in self.settings.items()) or 'none'}",
                )
            changed[key] = _like(changed[key], value, f"{self.name}:{key}")
        return replace(self, name=f"{self.name}:{text}", settings=changed)


def measure(
    name: str,
    *,
    unit: str,
    invariant_to: tuple[Symmetry, ...],
    reference: str,
    work: Work,
    default: bool = True,
    only_if: Callable[[Objective], bool] | None = None,
) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Register a function as a measure. Its keyword arguments become the settings; the function itself is unchanged."""

    def register(function: Callable[..., Estimate]) -> Callable[..., Estimate]:
        parameters = list(inspect.signature(function).parameters.values())
        settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "generator"}
        MEASURES[name] = Measure(name, function, unit, invariant_to, reference, work, default, only_if, settings)
        return function

    return register


def variant(
    function: Callable[..., Estimate], doc: str, fixed: Settings | None = None, **defaults: Any
) -> Callable[..., Estimate]:
    """A function for another measure of a family, with its own docstring and defaults; `fixed` arguments are not settings."""
    fixed = fixed or {}
    parameters = inspect.signature(function).parameters.values()
    kept = [p.replace(default=defaults.get(p.name, p.default)) for p in parameters if p.name not in fixed]

    def bound(objective: Objective, **settings: Any) -> Estimate:
        return function(objective, **{**defaults, **settings, **fixed})

    bound.__doc__ = doc
    bound.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]  # what `inspect.signature` looks for
    return bound


def chosen(names: str | Sequence[str] | None = None) -> list[Measure]:
    """Measures by name: None for the default ones, "all", or a list; "keskar:eps=1e-4" changes a setting.

    Raises:
        UsageError: an unknown name or setting; the message lists the known ones.
    """
    if names is None:
        return [m for m in MEASURES.values() if m.default]
    listed = [names] if isinstance(names, str) else names
    wanted = dict.fromkeys(name for text in listed for name in (MEASURES if text == "all" else [text]))
    out = []
    for text in wanted:
        name, colon, settings = text.partition(":")
        if name not in MEASURES:
            raise UsageError(f"expected a measure, found {name!r}", fix=f"choose among {', '.join(MEASURES)}, or all")
        out.append(MEASURES[name].with_settings(settings) if colon else MEASURES[name])
    return out


def measure_all(
    objective: Objective,
    names: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
    seconds: Mapping[str, float] | None = None,
    plan: "Forecast | None" = None,
    kept: "Kept | None" = None,
    seen: Callable[[str, Measurement], None] | None = None,
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
    label = "measures, in forecast seconds" if seconds and not plan else "measures"
    with progress.stage(label, sum(steps.values())) as advance, ExitStack() as stack:
        if remaining is not None:
            stack.enter_context(progress.ticking(lambda: _learn(remaining, advance)))
        for m in measures:
            if m.name in there:
                out[m.name] = there[m.name]
            else:
                if remaining is not None:
                    remaining.begin(m.name)
                out[m.name] = _measured(m, objective, seed, kept)
                if remaining is not None:
                    remaining.end()
                    advance.left(*remaining.left())
            if seen is not None:
                seen(m.name, out[m.name])
            advance(steps[m.name])
    return out


def _learn(remaining: Remaining, advance: progress.Advance) -> None:
    """Update the estimate of the remaining time and report it."""
    remaining.look()
    advance.left(*remaining.left())


def _measured(m: Measure, objective: Objective, seed: int, kept: "Kept | None") -> Measurement:
    """Compute and save one measure. Work shared with a measure that an earlier run saved is counted for that one."""
    started, before, known = time.perf_counter(), objective.spent, computed(objective)
    estimate = m(objective, torch.Generator().manual_seed(seed))
    shared = {key: cost for key, cost in computed(objective).items() if key not in known}
    spent = objective.spent - before
    if kept is not None:
        for key in shared.keys() & kept.paid:
            spent = spent - shared[key]
    found = Measurement(
        estimate,
        m.unit,
        m.unmoved_by(objective),
        round(spent.products),
        time.perf_counter() - started,
        round(spent.gradients),
        int(spent.forwards + 1e-9),
        m.settings,
        m.summary,
        m.reference,
    )
    if kept is not None:
        kept.keep(objective, m.name, found, list(shared))
    return found


def _like(old: Any, text: str, what: str) -> Any:
    """A setting's new value, converted to the type of the old one."""
    if isinstance(old, str):
        return text
    try:
        number = int(text) if old is None else type(old)(text)
    except ValueError:
        number = nan
    if not 0 <= number < (_MANY if isinstance(number, int) else inf):
        found = printable(text, limit=40)
        raise UsageError(f"expected a number from 0 for {what}, found {found!r}", fix=f"for example {what}={old or 100}")
    return number
