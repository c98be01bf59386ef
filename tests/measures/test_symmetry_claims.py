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
# Where what is not claimed is seen to move: the path norm has no LayerNorm, and only BatchNorm scales single channels.
SEEN = {"layer": "low rank", "node": "low rank", "pair": "low rank", "norm-in": "batch norm", "bias": "stacked"}
# A claim holds whatever the settings are: few probes and steps test it as well as many.
FEW: dict[str, object] = {"probes": 4, "pairs": 3, "draws": 3, "steps": 2, "iterations": 2, "restarts": 0, "method": "climb"}
FEW |= {"subspace": 5, "p": 5, "m": 8}
NAMES = {
    m.name: ":".join([m.name, *(f"{k}={FEW[k]}" for k in m.settings if k in FEW and m.settings[k] is not None)])
    for m in MEASURES.values()
}
# Not moved here, and not claimed, since it moves elsewhere.
ELSEWHERE: set[tuple[str, Family]] = {
    ("relative_flatness", "norm-in"),  # where the factor is that of a part of a tensor
    ("frobenius_product", "bias"),  # where embeddings of words and positions are traded
    ("spectral_product", "bias"),
    # The metric "inv" takes up one factor for a whole layer beside its pair, but not one for each neuron.
    ("geodesic_trace_inv", "layer"),
    ("geodesic_inv", "layer"),
}


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
def measured(name: str, family: Family | None, among: frozenset[str] = frozenset(NAMES)) -> dict[str, Measurement]:
    """Measures of a network, or of it moved along a family."""
    objective, model = objectives(name)
    other = objective if family is None else objective.with_model(moved(model, family))
    found = measure_all(other, [NAMES[m] for m in MEASURES if m in among], seed=1)
    return {full.partition(":")[0]: m for full, m in found.items()}


def claiming(family: Family) -> frozenset[str]:
    """The measures that claim to survive a family."""
    return frozenset(name for name, m in MEASURES.items() if family in m.invariant_to)


def change(before: Measurement, after: Measurement) -> float:
    """|a - b| over the larger size; 0 where both are not defined; inf where one of two is."""
    a, b = before.estimate.value, after.estimate.value
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def broken(before: dict[str, Measurement], after: dict[str, Measurement], family: Family) -> dict[str, str]:
    """Measures whose claim does not hold, with the two values."""
    return {
        name: f"{before[name].estimate.value!r} -> {m.estimate.value!r} ({change(before[name], m):.1e})"
        for name, m in after.items()
        if family in before[name].invariant_to and not change(before[name], m) <= 1e-8
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
    assert broken(measured(name, None), measured(name, family, claiming(family)), family) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_claimed_moves(family: Family) -> None:
    """By a thousand times the tolerance of a claim: else the registry claims too little."""
    net = SEEN.get(family, "layer norm")
    before, after = measured(net, None), measured(net, family, frozenset(MEASURES) - claiming(family))
    still = {name for name, m in after.items() if before[name].defined and change(before[name], m) < 1e-5}
    assert still == {name for name, other in ELSEWHERE if other == family}


def test_an_untrue_claim_would_be_seen() -> None:
    """The comparison itself: measures of a pair that claim to survive it are named, with both values."""
    wrong = ["trace", "lambda_max", "sam", "keskar", "adaptive_trace", "adaptive_lambda_max", "pac_bayes_magnitude"]
    before = {name: replace(m, invariant_to=tuple(FAMILIES)) for name, m in measured("low rank", None).items()}
    after = measured("low rank", "pair", frozenset([*wrong, "fisher_rao", "weight_curvature", "logit_norm"]))
    assert set(broken(before, after, "pair")) == set(wrong)
