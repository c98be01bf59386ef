"""Every claim of every measure against every family of symmetries, in float64: what it claims holds to 1e-8, the rest moves.

The networks and the moves are those of `symmetric_networks`, by hand from the algebra alone.
"""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from symmetric_networks import SYMMETRIC, Symmetric, families, moved
from torch import nn

from landscape.measures import MEASURES, measure_all
from landscape.objective import Objective
from landscape.results import Measurement
from landscape.symmetry.families import FAMILIES, Family

CASES = {case.name: case for case in SYMMETRIC}
QUICK = {"low rank", "stacked", "layer norm", "batch norm"}  # small, and with every family
# A claim holds whatever the settings are: few probes and steps test it as well as many.
FEW: dict[str, object] = {"probes": 4, "pairs": 3, "draws": 3, "steps": 2, "iterations": 2, "restarts": 0, "subspace": 5, "p": 5, "m": 8}
FEW |= {"method": "climb"}
NAMES = {
    ":".join([m.name, *(f"{k}={FEW[k]}" for k in m.settings if k in FEW and m.settings[k] is not None)]): m.name
    for m in MEASURES.values()
}
# Not seen to move, though no proof is known: a measure claims no more than is proven.
UNPROVEN: set[tuple[str, Family]] = {("relative_flatness", "norm-in")}  # it moves where a stream's scale is part of a tensor's


def cases() -> list[object]:
    """Each network with each family that it has; the larger networks are slow."""
    return [
        pytest.param(case.name, family, marks=[] if case.name in QUICK else pytest.mark.slow, id=f"{case.name}, {family}")
        for case in SYMMETRIC
        for family in families(case.make()[0])
    ]


@cache
def objectives(name: str) -> tuple[Objective, nn.Module]:
    """The network on its data, and the network itself."""
    model, x, y, loss = CASES[name].make()
    return Objective(model, loss, (x, y), dtype="float64"), model


@cache
def measured(name: str, family: Family | None) -> dict[str, Measurement]:
    """All measures of a network, or of it moved along a family."""
    objective, model = objectives(name)
    other = objective if family is None else objective.with_model(moved(model, family))
    return {NAMES[full]: m for full, m in measure_all(other, list(NAMES), seed=1).items()}


def change(before: Measurement, after: Measurement) -> float:
    """|a - b| over the larger size; 0 where both are not defined; inf where one of two is."""
    a, b = before.estimate.value, after.estimate.value
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def broken(before: dict[str, Measurement], after: dict[str, Measurement], family: Family) -> dict[str, str]:
    """Measures whose claim does not hold, with the two values."""
    return {
        name: f"{m.estimate.value!r} -> {after[name].estimate.value!r} ({change(m, after[name]):.1e})"
        for name, m in before.items()
        if family in m.invariant_to and not change(m, after[name]) <= 1e-8
    }


@pytest.mark.parametrize("case", SYMMETRIC, ids=str)
def test_the_hand_made_moves_keep_the_function(case: Symmetric) -> None:
    """Up to a constant that the softmax ignores, where the family says so; and the weights move."""
    model, x, _, _ = case.make()
    for family in families(model):
        other = moved(model, family)
        before, after = model(x).detach(), other(x).detach()
        if family == "shift":
            before, after = before.log_softmax(-1), after.log_softmax(-1)
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
        assert any((p - q).abs().max() > 0.1 for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_every_family_is_somewhere() -> None:
    assert {family for case in SYMMETRIC for family in families(case.make()[0])} == set(FAMILIES)


@pytest.mark.parametrize(("name", "family"), cases())
def test_claims_hold(name: str, family: Family) -> None:
    assert broken(measured(name, None), measured(name, family), family) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_claimed_moves(family: Family) -> None:
    """On some of the quick networks, by a thousand times the tolerance of a claim: else the registry claims too little."""
    where = [name for name in QUICK if family in families(objectives(name)[1])]
    furthest = {
        name: max(
            (
                change(measured(net, None)[name], measured(net, family)[name])
                for net in where
                if measured(net, None)[name].defined
            ),
            default=math.inf,
        )
        for name in MEASURES
        if any(family not in measured(net, None)[name].invariant_to for net in where)
    }
    assert {name for name, most in furthest.items() if most < 1e-5} == {name for name, other in UNPROVEN if other == family}


def test_an_untrue_claim_would_be_seen() -> None:
    """The comparison itself: measures of a pair that claim to survive it are named, with both values."""
    before = {name: replace(m, invariant_to=tuple(FAMILIES)) for name, m in measured("grouped queries", None).items()}
    found = broken(before, measured("grouped queries", "pair"), "pair")
    assert {"trace", "lambda_max", "sam", "keskar", "adaptive_trace", "adaptive_lambda_max", "pac_bayes_magnitude"} <= set(
        found
    )
    assert not {"fisher_rao", "weight_curvature", "logit_norm"} & set(found)
