"""The register of measures: the command line, the documentation, the certificate and the contract tests read it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.results import Estimate, Measurement

Symmetry = Literal["layer", "node"]
MeasureFunction = Callable[..., Estimate]

MEASURES: dict[str, "Measure"] = {}


@dataclass(frozen=True)
class Measure:
    """A named number of a network.

    Attributes:
        name: as the command line and the JSON call it.
        function: (objective, *, generator, ...) -> Estimate.
        unit: of the value.
        invariant_to: rescalings that provably leave it unchanged; tested on random homogeneous networks.
        reference: the paper.
        default: whether `landscape sharpness` computes it unasked.
    """

    name: str
    function: MeasureFunction
    unit: str
    invariant_to: tuple[Symmetry, ...]
    reference: str
    default: bool

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


def measure(
    name: str, *, unit: str, invariant_to: tuple[Symmetry, ...], reference: str, default: bool = True
) -> Callable[[MeasureFunction], MeasureFunction]:
    """Register a function as a measure; it stays an ordinary function."""

    def register(function: MeasureFunction) -> MeasureFunction:
        MEASURES[name] = Measure(name, function, unit, invariant_to, reference, default)
        return function

    return register


def chosen(names: str | Sequence[str] | None = None) -> list[Measure]:
    """Measures by name: None for the default ones, "all", or a list.

    Raises:
        UsageError: an unknown name; the message lists those there are.
    """
    if names is None:
        return [m for m in MEASURES.values() if m.default]
    if names == "all":
        return list(MEASURES.values())
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    for name in wanted:
        if name not in MEASURES:
            raise UsageError(f"expected a measure, found {name!r}", fix=f"choose among {', '.join(MEASURES)}, or all")
    return [MEASURES[name] for name in wanted]


def measure_all(objective: Objective, names: str | Sequence[str] | None = None, *, seed: int = 0) -> dict[str, Measurement]:
    """Compute measures of one network.

    Every measure starts from the same seed, so that two networks compared with the same seed see the same probes, and
    what several measures need (one Lanczos run, one sweep of probes) is computed once.

    Args:
        objective: the network on its data.
        names: None for the default measures, "all", or a list of names.
        seed: of every measure's generator.

    Returns:
        name -> Measurement, with its unit, invariance, products and seconds.
    """
    out = {}
    for m in chosen(names):
        started, before = time.perf_counter(), objective.products
        estimate = m.function(objective, generator=torch.Generator().manual_seed(seed))
        seconds = time.perf_counter() - started
        out[m.name] = Measurement(estimate, m.unit, m.invariant_to, objective.products - before, seconds)
    return out
