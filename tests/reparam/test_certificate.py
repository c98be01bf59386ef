"""The certificate: the same function, and which measures a rescaling can fake."""

import copy
from dataclasses import replace

import pytest
import torch
from rescalable import BY_NAME
from torch import nn

from landscape.errors import MismatchError, UsageError
from landscape.measures import MEASURES
from landscape.objective import Objective
from landscape.reparam import certificate, rescale

QUADRATIC = ["trace", "frobenius", "lambda_max", "adaptive_trace", "adaptive_lambda_max"]


def objective_of(name: str, dtype: str, n: int = 40) -> tuple[nn.Module, Objective]:
    model, x = BY_NAME[name].make(n=n)
    model = model.to(getattr(torch, dtype))
    return model, Objective(model, nn.CrossEntropyLoss(), (x, torch.arange(n) % 3), dtype=dtype)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("node", [False, True], ids=["layer", "node"])
def test_invariant_measures_hold_and_the_others_move(name: str, dtype: str, node: bool) -> None:
    model, objective = objective_of(name, dtype)
    other = rescale(model, 8.0, node=node, example=torch.randn(2, *BY_NAME[name].shape, dtype=getattr(torch, dtype)))
    result = certificate(objective, other, measures=QUADRATIC)
    assert result.same_function
    assert result.max_delta_logit <= (1e-12 if dtype == "float64" else 1e-5) * result.logit_scale
    assert result.symmetry == ("node" if node else "layer")
    verdicts = {row.name: row.verdict for row in result.rows}
    assert verdicts.pop("adaptive_trace") == verdicts.pop("adaptive_lambda_max") == "invariant"
    # The trace moves as well, but at this factor not always by more than its interval.
    assert verdicts["lambda_max"] == verdicts["frobenius"] == "moved"
    assert [row.name for row in result.rows] == QUADRATIC
    assert all(row.claimed == (result.symmetry in MEASURES[row.name].invariant_to) for row in result.rows)
    assert result.samples == 40


@pytest.mark.parametrize("alpha", [1e-3, 1e3])
def test_extreme_factors(alpha: float) -> None:
    model, objective = objective_of("mlp", "float64")
    result = certificate(objective, rescale(model, alpha), measures=QUADRATIC)
    assert result.same_function
    assert [row.verdict for row in result.rows] == ["moved"] * 3 + ["invariant"] * 2
    assert result.rows[2].ratio > 1e4


def test_keskar_moves() -> None:
    model, objective = objective_of("mlp", "float64")
    result = certificate(objective, rescale(model, 8.0), measures=["keskar"])
    assert result.rows[0].verdict == "moved"
    assert result.rows[0].ratio > 1.2


def test_a_false_claim_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = objective_of("mlp", "float64")
    monkeypatch.setitem(MEASURES, "trace", replace(MEASURES["trace"], invariant_to=("layer",)))
    assert certificate(objective, rescale(model), measures=["trace"]).rows[0].verdict == "CLAIM BROKEN"
    # The claim is about layers; a node-wise rescaling does not test it.
    assert certificate(objective, rescale(model, node=True), measures=["trace"]).rows[0].verdict == "moved"
    assert (
        certificate(objective, rescale(model, node=True), measures=["trace"], symmetry="layer").rows[0].verdict
        == "CLAIM BROKEN"
    )


def test_nothing_moves_without_a_rescaling() -> None:
    model, objective = objective_of("mlp", "float64")
    result = certificate(objective, copy.deepcopy(model), measures=QUADRATIC)
    assert {row.verdict for row in result.rows} == {"invariant", "unmoved here"}
    assert result.scaling == {}
    assert result.max_delta_logit == 0


def test_another_function_is_not_comparable() -> None:
    model, objective = objective_of("mlp", "float64")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight *= 1 + 1e-8
    result = certificate(objective, other, measures=["trace", "adaptive_trace"])
    assert not result.same_function
    assert {row.verdict for row in result.rows} == {"not comparable"}
    assert "NOT THE SAME FUNCTION" in str(result)


def test_scaling_is_read_off_the_weights() -> None:
    model, objective = objective_of("mlp", "float64")
    result = certificate(objective, rescale(model, layers={"0": 4.0, "3": 0.5}), measures=["trace"])
    assert result.scaling == {
        "0.weight": pytest.approx((4, 4)), "0.bias": pytest.approx((4, 4)), "3.weight": pytest.approx((0.125, 0.125)),
        "3.bias": pytest.approx((0.5, 0.5)), "5.weight": pytest.approx((2, 2)),
    }  # fmt: skip
    scaling = certificate(objective, rescale(model, 3.0, node=True), measures=["trace"]).scaling
    low, high = scaling["0.bias"]
    assert 1 / 3 <= low < 1 < high <= 3


def test_a_partly_scaled_tensor_is_no_layer_wise_rescaling() -> None:
    model, objective = objective_of("dense", "float64")
    other = rescale(model, layers={"conv1": 2.0}, example=torch.randn(2, 2, 4, 4, dtype=torch.float64))
    assert certificate(objective, other, measures=["adaptive_trace"]).symmetry == "node"


def test_an_objective_serves_as_the_other_and_a_restricted_one_as_the_first() -> None:
    model, objective = objective_of("mlp", "float64")
    other = rescale(model)
    assert certificate(objective, objective.with_model(other), measures=["trace"]).rows[0].verdict == "moved"
    part = certificate(objective.only("0.*"), other, measures=["trace", "adaptive_trace"])
    assert set(part.scaling) == {"0.weight", "0.bias"}
    assert part.rows[0].ratio == pytest.approx(1 / 25, rel=1e-6)
    assert part.rows[1].verdict == "invariant"


def test_prints_and_goes_to_json() -> None:
    model, objective = objective_of("mlp", "float64")
    result = certificate(objective, rescale(model), measures=["trace", "adaptive_trace"], seed=3)
    text, data = str(result), result.to_json()
    assert text.startswith("the same function: max |Δlogit| = ")
    assert data["provenance"]["seed"] == 3
    assert data["provenance"]["rounding"] == 1e-6
    assert [row["verdict"] for row in data["rows"]] == ["moved", "invariant"]
    assert certificate(objective, rescale(model), measures=["trace"], seed=4).rows[0].before != result.rows[0].before


def test_bad_requests() -> None:
    model, objective = objective_of("mlp", "float64")
    with pytest.raises(MismatchError, match="expected two networks with the same parameters, found different ones"):
        certificate(objective, nn.Sequential(nn.Linear(5, 3)).double())
    with pytest.raises(UsageError, match="expected a measure, found 'sharpish'"):
        certificate(objective, rescale(model), measures=["sharpish"])
