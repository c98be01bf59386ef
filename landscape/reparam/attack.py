"""Climb a measure along all symmetries of a network together: how large can the number be made for this function."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError
from landscape.machine.progress import stage
from landscape.measures import chosen, measure_all
from landscape.objective import Objective
from landscape.reparam.certify import change_of_outputs, moved_objective
from landscape.reparam.moving.move import Size, check, classes_of
from landscape.reparam.moving.orbits import Block, blocks_of, network_at
from landscape.reparam.moving.same_function import NEARLY, compare, tolerance_of
from landscape.symmetry.families import Family
from landscape.symmetry.symmetries import Symmetries

# A value must rise by more than this, relative, to count: rounding, and for a maximum the point at which it ended.
_RISE = {torch.float64: 1e-6, torch.float32: 2e-3}
_RISE_OF_A_MAXIMUM = 4e-2
_FIRST = 0.6  # share of the evaluations that goes to the edge of the budget, before steps from the best point
_STEP, _SMALLEST = 0.5, 0.02
EVALUATIONS = 120  # of the measure, unless said otherwise
_SPREAD = 1.5  # the first evaluation tells the time of the others to about this factor


@dataclass(frozen=True)
class Attack:
    """How far a measure was climbed along the symmetries of a network: a lower bound on its worst case.

    Attributes:
        measure: its name.
        model: the network where it is largest.
        start, best: the measure as trained, and there.
        evaluations: of the measure.
        refused: points left out, since rounding or an eps changed the outputs too much there.
        gains: family -> by how much its changes raised the measure; the sum is best - start.
        families: along which it was climbed.
        alpha, condition: the budget: factors between 1/alpha and alpha, matrices of at most this condition number.
    """

    measure: str
    model: nn.Module
    start: float
    best: float
    evaluations: int
    refused: int
    gains: dict[str, float]
    families: tuple[Family, ...]
    alpha: float
    condition: float

    @property
    def moved(self) -> bool:
        """Whether any change raised the measure by more than its error."""
        return self.best > self.start

    @property
    def factor(self) -> float:
        """best / start; nan unless the start is positive."""
        return self.best / self.start if self.start > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, without the network."""
        names = ("measure", "start", "best", "evaluations", "refused", "gains", "alpha", "condition")
        return {name: getattr(self, name) for name in names} | {"families": list(self.families), "moved": self.moved}

    def __str__(self) -> str:
        budget = f"factors up to {self.alpha:.4g}, condition numbers up to {self.condition:.4g}, {self.evaluations} evaluations"
        over = ", ".join(self.families)
        if not self.moved:
            return f"nothing moved {self.measure}: {self.start:.6g} along {over} ({budget})"
        times = f", {self.factor:.4g} times" if self.factor == self.factor else ""
        gains = ", ".join(f"{f} +{g:.3g}" for f, g in sorted(self.gains.items(), key=lambda pair: -pair[1]))
        return (
            f"{self.measure} climbed from {self.start:.6g} to {self.best:.6g}{times}: a lower bound on the worst case along "
            f"{over} ({budget}); {gains}"
        )


def attack(
    objective: Objective,
    model: nn.Module,
    symmetries: Symmetries,
    measure: str,
    *,
    families: Sequence[Family] | None = None,
    alpha: float = 5.0,
    condition: float = 10.0,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
) -> Attack:
    """Make a measure as large as a budget allows without changing the function.

    The unknowns are the factor of every neuron, the matrix of every mixing, and every constant, all at once. The search needs
    no derivatives, so that it takes any measure: first random points at the edge of the budget, of whole families and then of
    single layers or heads, then steps of a size that adapts around the best point. All evaluations have the same random
    numbers.

    Args:
        objective: the network on its data.
        model: the network itself, with the weights that `objective` has.
        symmetries: of this network.
        measure: name of the measure to climb, with settings if any.
        families: to climb along; None for all that the network has. Those that the measure is proven to survive are left out.
        alpha: factors stay between 1/alpha and alpha, constants below alpha times the rms of what they are added to.
        condition: largest condition number of the matrices.
        evaluations: of the measure, at least 2.
        seed: of the search and of the measure.

    Returns:
        Attack. Its value is a lower bound on the largest one within the budget.

    Raises:
        UsageError: as for `move`, or too few evaluations.
        NumericalError: the measure has no value as trained.

    Cost: the measure `evaluations` times, and as many forward passes on two samples.

    Accuracy: the outputs are compared in float64 at every point, on two samples; a point that changes them is left out.
    """
    (known,) = chosen([measure])
    asked = tuple(symmetries.families if families is None else families)
    # What the measure is proven to survive cannot be what moves it, unless it survives everything: then all is tried.
    along = tuple(family for family in asked if family not in known.claims(objective)) or asked
    check(model, symmetries, along, alpha=alpha, condition=condition)
    if evaluations < 2:
        raise UsageError(f"expected at least 2 evaluations, found {evaluations}")
    begun = time.perf_counter()
    first = measure_all(objective, [known.name], seed=seed)[known.name].estimate
    each = time.perf_counter() - begun
    if not (first.converged and math.isfinite(first.value)):
        raise NumericalError(
            f"expected a value of {measure} to climb from, found none ({first.reason or 'not converged'})",
            fix="choose another measure",
        )
    exact = "norm-in" not in along or symmetries.nearly is None
    tolerance = tolerance_of(model) if exact else max(NEARLY, tolerance_of(model))

    def value_of(other: nn.Module) -> float | None:
        try:
            classes = classes_of(symmetries) if "shift" in along else ()
            compare(model, other, objective.example, tolerance=tolerance, classes=classes)
        except NumericalError:
            return None
        there = moved_objective(objective, other)
        if not exact and change_of_outputs(objective, there, along) > tolerance:  # an eps may count on other samples
            return None
        estimate = measure_all(there, [known.name], seed=seed)[known.name].estimate
        return estimate.value if estimate.converged else None

    blocks = blocks_of(symmetries, along, Size(alpha, condition))
    rise = _RISE.get(objective.dtype, _RISE[torch.float32])
    search = _Search(
        blocks,
        lambda states: value_of(network_at(model, blocks, states)),
        first.value,
        _RISE_OF_A_MAXIMUM if first.kind == "lower bound" else rise,
        evaluations - 1,
        torch.Generator().manual_seed(seed),
    )
    with stage("attack", total=evaluations - 1) as advance:
        search.advance = advance
        left = each * (evaluations - 1)
        advance.left(left, left / _SPREAD, left * _SPREAD)
        search.run()
    return Attack(
        known.name, network_at(model, blocks, search.states), first.value, search.best, 1 + search.spent, search.refused,
        search.gains, along, alpha, condition,
    )  # fmt: skip


@dataclass
class _Search:
    """One search: the best states so far, and what each family gave."""

    blocks: list[Block]
    value_at: Callable[[list[Tensor]], float | None]
    best: float
    rise: float
    budget: int
    generator: torch.Generator
    spent: int = 0
    refused: int = 0
    gains: dict[str, float] = field(default_factory=dict)
    advance: Callable[[int], None] = lambda steps: None

    def __post_init__(self) -> None:
        self.states = [block.identity() for block in self.blocks]

    def run(self) -> None:
        """Points at the edge of the budget, then steps from the best one."""
        families = list(dict.fromkeys(block.family for block in self.blocks))
        edge = int(_FIRST * self.budget)
        for _ in range(3):  # whole families: all up, all down and mixed factors among others
            for family in families:
                if self.spent < edge:
                    self._try({i: b.draw(self.generator) for i, b in enumerate(self.blocks) if b.family == family})
        while self.spent < edge:
            i = int(torch.randint(len(self.blocks), (1,), generator=self.generator))
            self._try({i: self.blocks[i].draw(self.generator)})
        steps = dict.fromkeys(families, _STEP)
        while self.spent < self.budget:
            for family in families:
                if self.spent >= self.budget:
                    break
                near = {
                    i: b.near(self.states[i], steps[family], self.generator)
                    for i, b in enumerate(self.blocks)
                    if b.family == family
                }
                better = self._try(near)
                steps[family] = max(steps[family] * (1.5 if better else 0.8), _SMALLEST)

    def _try(self, changed: dict[int, Tensor]) -> bool:
        """Keep these states of blocks of one family if the value rises by more than its error."""
        states = [changed.get(i, state) for i, state in enumerate(self.states)]
        value = self.value_at(states)
        self.spent += 1
        self.advance(1)
        if value is None:
            self.refused += 1
            return False
        if not value > self.best + self.rise * abs(self.best):
            return False
        family = self.blocks[next(iter(changed))].family
        self.gains[family] = self.gains.get(family, 0.0) + value - self.best
        self.best, self.states = value, states
        return True
