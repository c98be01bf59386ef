"""The registry of measures, used by the command line, the documentation, the certificate and the contract tests."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any

import numpy as np
import torch

from landscape.errors import NoOutputs, NumericalError, UsageError, meant, printable
from landscape.objective import Objective
from landscape.results import Estimate, Spent
from landscape.symmetry.families import FAMILIES, Family

# What measures of one kind survive, each with its proof. D is a positive factor for every weight.
# Every weight counts in proportion to its size: L(D w) = L(w) for all w, so that D changes no growth of the loss.
ELEMENTWISE: tuple[Family, ...] = ("layer", "node", "norm-out", "norm-in")
# The loss at w + d alone counts, and how long d is: L(w + v + d) = L(w + d) for a shift v.
PLAIN: tuple[Family, ...] = ("shift",)
# Only the loss at multiples t w counts: L(T(t w)) = L(t w), and T(t w) = t T(w); along a shift there is no curvature. A trade
# of biases is not of that kind, since it adds a product of a weight and a constant.
HOMOGENEOUS: tuple[Family, ...] = ("layer", "node", "pair", "rotation", "norm-out", "norm-in", "shift")
# The function alone counts, up to a constant that is added to all outputs of a sample.
FUNCTION: tuple[Family, ...] = tuple(FAMILIES)

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
        invariant_to: families of symmetries that provably leave it unchanged, for all settings; tested on random networks.
        reference: the paper that defines it.
        work: its typical cost.
        default: whether `landscape sharpness` computes it by default.
        only_if: condition on the network for the claim of invariance; None if there is none.
        also: the families that it is proven to survive in one network beside `invariant_to`; None if there are none.
        settings: its keyword arguments, by name.
    """

    name: str
    function: Callable[..., Estimate]
    unit: str
    invariant_to: tuple[Family, ...]
    reference: str
    work: Work
    default: bool = True
    only_if: Callable[[Objective], bool] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    also: Callable[[Objective], tuple[Family, ...]] | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def __call__(self, objective: Objective, generator: torch.Generator) -> Estimate:
        """Compute the measure with its settings. If it is not defined or fails, the Estimate is nan with a reason."""
        try:
            return self.function(objective, generator=generator, **self.settings)
        except (NotDefined, NoOutputs) as error:
            return Estimate(nan, reason=f"not defined: {error}")
        except NumericalError as error:
            objective.group.fail_together(error)
            return Estimate(nan, converged=False, reason=str(error))
        except (RuntimeError, np.linalg.LinAlgError) as error:  # out of memory, or a failure in a backend
            objective.group.fail_together(error)
            return Estimate(nan, converged=False, reason=str(error).partition("\n")[0] or type(error).__name__)

    def claims(self, objective: Objective, *, trace: bool = True) -> tuple[Family, ...]:
        """The families that provably leave the measure unchanged, if the network has them; `trace` as for `mark_of`."""
        always = self.invariant_to if self.only_if is None or self.only_if(objective) else ()
        return always if self.also is None or not trace else tuple(dict.fromkeys((*always, *self.also(objective))))

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
    invariant_to: tuple[Family, ...],
    reference: str,
    work: Work,
    default: bool = True,
    only_if: Callable[[Objective], bool] | None = None,
    also: Callable[[Objective], tuple[Family, ...]] | None = None,
) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Register a function as a measure. Its keyword arguments become the settings; the function itself is unchanged."""

    def register(function: Callable[..., Estimate]) -> Callable[..., Estimate]:
        parameters = list(inspect.signature(function).parameters.values())
        settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "generator"}
        MEASURES[name] = Measure(name, function, unit, invariant_to, reference, work, default, only_if, settings, also)
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
            raise UsageError(f"expected a measure, found {name!r}", fix=meant(name, [*MEASURES, "all"]))
        out.append(MEASURES[name].with_settings(settings) if colon else MEASURES[name])
    return out


def _like(old: Any, text: str, what: str) -> Any:
    """A setting's new value, converted to the type of the old one."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool) and text.lower() in ("true", "false", "yes", "no"):
        return text.lower() in ("true", "yes")
    if isinstance(old, bool) and text in ("0", "1"):
        return text == "1"
    try:
        if isinstance(old, bool):
            raise ValueError
        number = int(text) if old is None else type(old)(text)
    except ValueError:
        number = nan
    if not 0 <= number < (_MANY if isinstance(number, int) else inf):
        found = printable(text, limit=40)
        if isinstance(old, bool):
            raise UsageError(f"expected yes or no for {what}, found {found!r}", fix=f"for example {what}=yes")
        raise UsageError(f"expected a number from 0 for {what}, found {found!r}", fix=f"for example {what}={old or 100}")
    return number
