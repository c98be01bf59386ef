"""The measures of one moment of training, warm-started from the moment before."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from landscape import linalg
from landscape.errors import LandscapeError, UsageError, first_line, meant
from landscape.measures import MEASURES, Measure, NotDefined, chosen, critical_sharpness_along, preconditioned_eigenpair
from landscape.measures.perturbation.critical_sharpness import first_step
from landscape.objective import Objective
from landscape.results import Check, Estimate
from landscape.spectra import eigenpairs
from landscape.watching.optimizer_state import Stepping

Found = dict[str, Estimate]


@dataclass(frozen=True)
class Settings:
    """Settings of the measures that a watch warm-starts.

    Attributes:
        tol: relative residual of eigenvalues.
        probes: random vectors for traces; the same at every check, so that they do not make the curve rough.
        halvings: of critical sharpness.
        seed: of every random vector.
    """

    tol: float = 3e-3
    probes: int = 8
    halvings: int = 4
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A generator of this seed."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Moment:
    """A network in training at one step.

    Attributes:
        objective: the loss on the probe batch, at the weights of this step.
        stepping: how the optimizer steps; None without one.
        settings: of the measures.
        memory: what the next moment starts from; kept from one to the next.
    """

    objective: Objective
    stepping: Stepping | None
    settings: Settings
    memory: dict[str, Tensor | float] = field(default_factory=dict)

    @cached_property
    def slope(self) -> tuple[float, Tensor]:
        """The probe batch's loss, and its gradient (P,)."""
        return self.objective.value_and_gradient()

    @property
    def loss(self) -> float:
        """The probe batch's loss. Cost: a forward pass, or none once there is a slope."""
        return self.slope[0] if "slope" in self.__dict__ else self.objective.value().value

    @cached_property
    def sweep(self) -> tuple[list[str], linalg.ProbeSweep]:
        """Names of the layers, and one sweep of probes for the traces of all of them."""
        layers = self.objective.layout.layers
        ids = torch.empty(self.objective.dim, dtype=torch.long)
        for i, entries in enumerate(layers.values()):
            for e in entries:
                ids[e.start : e.stop] = i
        found = linalg.quadratic_forms(
            self.objective.hvp,
            self.objective.dim,
            probes=self.settings.probes,
            block=self.objective.plan.block,
            sections=ids,
            generator=self.settings.generator(),
            dtype=self.objective.dtype,
            device=self.objective.device,
        )
        return [name or "(model)" for name in layers], found

    def step_of(self) -> Stepping:
        """How the optimizer steps.

        Raises:
            NotDefined: there is no optimizer.
        """
        if self.stepping is None:
            raise NotDefined("no optimizer was given", fix="pass optimizer=")
        return self.stepping


def _lambda_max(at: Moment) -> Found:
    start = at.memory.get("lambda_max")
    pairs = eigenpairs(
        at.objective,
        1,
        tol=at.settings.tol,
        start=start if isinstance(start, Tensor) else None,
        generator=at.settings.generator(),
    )
    at.memory["lambda_max"] = pairs.vectors
    return {"lambda_max": pairs.estimate(0)}


def _preconditioned(at: Moment) -> Found:
    stepping, start = at.step_of(), at.memory.get("preconditioned")
    if stepping.preconditioner is None:
        raise NotDefined("the optimizer has no second moments before its first step")
    pairs = preconditioned_eigenpair(
        at.objective,
        stepping.preconditioner.to(at.objective.theta),
        decay=stepping.decay,
        tol=at.settings.tol,
        start=start if isinstance(start, Tensor) else None,
        generator=at.settings.generator(),
    )
    at.memory["preconditioned"] = pairs.vectors
    return {"preconditioned_lambda_max": pairs.estimate(0)}


def _trace(at: Moment) -> Found:
    return {"trace": at.sweep[1].trace()}


def _layer_traces(at: Moment) -> Found:
    names, sweep = at.sweep
    return {f"trace/{name}": e for name, e in zip(names, sweep.section_traces(), strict=True)}


def _gradient_norm(at: Moment) -> Found:
    return {"gradient_norm": Estimate(float(torch.linalg.vector_norm(at.slope[1], dtype=torch.float64)))}


def _critical_sharpness(at: Moment) -> Found:
    objective, (value, gradient) = at.objective, at.slope
    direction = -gradient if at.stepping is None else -at.stepping.update(gradient, objective.theta)
    slope = float((direction.double() * gradient.double()).sum())
    first = at.memory.get("critical step")
    if not isinstance(first, float):
        first = first_step(value, slope)
    found = critical_sharpness_along(objective, direction, slope=slope, start=first, value=value, halvings=at.settings.halvings)
    if math.isfinite(found.value):
        at.memory["critical step"] = 2 / found.value / math.sqrt(2)  # the bracket [eta, 2 eta] with the last one in its middle
    return {"critical_sharpness": found}


# What a watch measures by itself; any other name is one of the registry.
OWN: Mapping[str, Callable[[Moment], Found]] = {
    "lambda_max": _lambda_max,
    "preconditioned_lambda_max": _preconditioned,
    "trace": _trace,
    "layer_traces": _layer_traces,
    "critical_sharpness": _critical_sharpness,
    "gradient_norm": _gradient_norm,
}
UNITS = {
    "lambda_max": "loss / weight^2",
    "preconditioned_lambda_max": "1 / learning rate",
    "trace": "loss / weight^2",
    "layer_traces": "loss / weight^2",
    "critical_sharpness": "1 / learning rate",
    "gradient_norm": "loss / weight",
}


def measures_of(names: Sequence[str]) -> list[str | Measure]:
    """The measures of these names: names of `OWN`, and measures of the registry.

    Raises:
        UsageError: an unknown name or setting.
    """
    listed = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    known = set(OWN) | set(MEASURES)
    if unknown := [n for n in listed if n.partition(":")[0] not in known]:
        every = [*MEASURES, *(n for n in OWN if n not in MEASURES)]
        raise UsageError(f"expected measures to watch, found {unknown[0]!r}", fix=meant(unknown[0], every))
    return [name if name in OWN else chosen([name])[0] for name in listed]


def units_of(measures: Sequence[str | Measure]) -> dict[str, str]:
    """Unit of each measure by name."""
    return {(m if isinstance(m, str) else m.name): (UNITS[m] if isinstance(m, str) else m.unit) for m in measures}


def checked(at: Moment, step: int, measures: Sequence[str | Measure]) -> Check:
    """Measure one moment. A measure that is not defined or fails is nan with its reason: a training run goes on."""
    found: Found = {}
    for m in measures:
        try:
            found |= {m.name: m(at.objective, at.settings.generator())} if isinstance(m, Measure) else OWN[m](at)
        except NotDefined as error:
            found[str(m)] = Estimate(math.nan, reason=f"not defined: {error}")
        except (LandscapeError, RuntimeError, np.linalg.LinAlgError) as error:
            found[str(m)] = Estimate(math.nan, converged=False, reason=first_line(error))
    return Check(step, at.loss, found, _edges(at.stepping, found))


def lost(step: int, measures: Sequence[str | Measure], reason: str) -> Check:
    """A check that could not be made: every measure is nan with the reason."""
    names = [m if isinstance(m, str) else m.name for m in measures]
    return Check(step, math.nan, {name: Estimate(math.nan, converged=False, reason=reason) for name in names})


def _edges(stepping: Stepping | None, found: Found) -> dict[str, float]:
    """The edges of what was measured."""
    if stepping is None:
        return {}
    steepest = 2 / stepping.lr if stepping.lr else None
    edges = {
        "lambda_max": stepping.edge,
        "preconditioned_lambda_max": stepping.own_edge,
        "critical_sharpness": steepest,
    }
    return {name: edge for name, edge in edges.items() if edge is not None and name in found}
