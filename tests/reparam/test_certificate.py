"""The certificate: the same function, and which measures a rescaling can fake."""

import copy
import functools
import math
from dataclasses import replace

import pytest
import torch
from rescalable import BY_NAME
from torch import nn

from landscape.errors import MismatchError, UsageError
from landscape.measures import MEASURES, measure_all
from landscape.objective import Objective
from landscape.reparam import certificate, find_symmetries, rescale, scales_for, spaced
from landscape.results import Certificate, Measurement

QUADRATIC = ["trace", "frobenius", "lambda_max", "adaptive_trace", "adaptive_lambda_max"]


@functools.cache
def objective_of(name: str, dtype: str, n: int = 40) -> tuple[nn.Module, Objective]:
    """Shared by all tests, which change neither."""
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


# One measure that claims to be invariant for every kind of number.
KINDS = {
    "t": "adaptive_trace", "residual": "adaptive_lambda_max", "lower bound": "adaptive_worst_linf:steps=3:restarts=1",
    "exact": "first_order_adaptive_linf", "samples": "logit_norm",
    "proportion": "critical_sample_ratio:alpha=60:radius=1000:span=10",
}  # fmt: skip


def off(measured: dict[str, Measurement], factor: float) -> dict[str, Measurement]:
    """The same measurements with every value a little different."""
    return {n: replace(m, estimate=replace(m.estimate, value=factor * m.estimate.value)) for n, m in measured.items()}


def test_a_claim_fails_at_a_millionth_in_float64_whatever_the_kind() -> None:
    model, objective = objective_of("mlp", "float64")
    names, other = list(KINDS.values()), rescale(model, 8.0, node=True)
    before = measure_all(objective, names)
    assert [m.estimate.kind for m in before.values()] == list(KINDS)
    assert all(m.estimate.value > 0 for m in before.values())
    verdicts = {
        change: {r.verdict for r in certificate(objective, other, before=off(before, 1 + change)).rows}
        for change in (0.0, 5e-7, -5e-7, 2e-6, -2e-6)
    }
    assert verdicts == {c: {"invariant"} if abs(c) < 1e-6 else {"CLAIM BROKEN"} for c in verdicts}


def test_a_claim_fails_at_a_thousandth_in_float32_except_for_maxima_and_counts() -> None:
    model, objective = objective_of("mlp", "float32")
    before = measure_all(objective, list(KINDS.values()))
    other = rescale(model, 8.0, node=True)

    def broken(change: float) -> set[str]:
        return set(certificate(objective, other, before=off(before, 1 + change)).broken)

    assert broken(0.0) == broken(4e-4) == set()
    assert broken(1e-2) == {KINDS[k] for k in ("t", "residual", "exact", "samples")}
    assert KINDS["lower bound"] in broken(3e-2)


def test_before_is_computed_once() -> None:
    model, objective = objective_of("mlp", "float64")
    before = measure_all(objective, ["trace", "adaptive_trace"], seed=2)
    spent = objective.spent.products
    one, two = (certificate(objective, objective.with_model(rescale(model, a)), seed=2, before=before) for a in (2.0, 9.0))
    assert objective.spent.products == spent
    assert one.rows == certificate(objective, rescale(model, 2.0), measures=["trace", "adaptive_trace"], seed=2).rows
    assert [r.before for r in one.rows] == [r.before for r in two.rows]
    with pytest.raises(UsageError, match="expected the measures of the network before, found none of frobenius"):
        certificate(objective, rescale(model), measures=["trace", "frobenius"], before=before)


def test_what_is_not_defined_is_said_to_be_so() -> None:
    """Attention has no path norm: no verdict from nan, and nothing that JSON cannot hold."""
    model, x = BY_NAME["pre-norm"].make(n=6)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, torch.arange(6) % 3), dtype="float64")
    other = rescale(model, example=x)
    result = certificate(objective, other, measures=["path_norm", "logit_norm"])
    assert [r.verdict for r in result.rows] == ["not defined", "invariant"]
    assert "not defined" in (result.rows[0].before.reason or "")
    assert result.table()[0][1:4] == ("–", "–", "–")
    assert result.verdict_line() == "1 invariant, as claimed; 1 not defined"
    assert Certificate.from_json(result.to_json()).to_json() == result.to_json()
    # A number on one side only is no proof of anything.
    before = measure_all(objective, ["logit_norm"])
    lost = {"logit_norm": replace(before["logit_norm"], estimate=replace(before["logit_norm"].estimate, value=math.nan))}
    assert certificate(objective, other, before=lost).rows[0].verdict == "not comparable"


def test_float32_weights_that_were_not_rounded_are_held_to_float64() -> None:
    """A checkpoint in float32, computed in float64: new weights in float64 are exact, those in float32 are not."""
    model, x = BY_NAME["mlp"].make(n=20)
    model = model.float()
    objective = Objective(model, nn.CrossEntropyLoss(), (x, torch.arange(20) % 3), dtype="float64")
    exact = certificate(objective, rescale(copy.deepcopy(model).double(), 3.0), measures=["adaptive_trace"])
    rounded = certificate(objective, rescale(model, 3.0), measures=["adaptive_trace"])
    assert exact.provenance["rounding"] == 1e-6
    assert rounded.provenance["rounding"] == 1e-3
    assert exact.same_function
    assert rounded.same_function


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "functional"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_measures_hold_their_claims(name: str, dtype: str) -> None:
    """With the settings that people get: nothing is broken, and something of every sort is there."""
    model, objective = objective_of(name, dtype, n=24)
    before = measure_all(objective, "all")
    example = torch.randn(2, *BY_NAME[name].shape, dtype=getattr(torch, dtype))
    for node in (False, True):
        result = certificate(objective, rescale(model, 5.0, node=node, example=example), before=before)
        assert result.broken == []
        assert {"invariant", "moved"} <= {r.verdict for r in result.rows}


def test_a_sweep_is_spaced_on_both_sides_of_one() -> None:
    assert spaced(8.0, 0) == []
    assert spaced(8.0, 5) == pytest.approx([1 / 8, 1 / 4, 1 / 2, 2, 4])
    for further in range(1, 9):
        found = spaced(5.0, further)
        assert len(found) == further
        assert found == sorted(found)
        assert found[0] == pytest.approx(0.2)
        assert not {1.0, 5.0} & set(found)
        assert [1 / a for a in found] == pytest.approx(spaced(0.2, further))
    with pytest.raises(UsageError, match="expected a sweep of 0 or more further factors, found -1"):
        spaced(5.0, -1)


def test_neuron_wise_factors_are_powers_of_alpha() -> None:
    """One seed, other alphas: each neuron keeps its exponent, so that a measure's curve over alpha is one curve."""
    model, _ = BY_NAME["mlp"].make()
    symmetries = find_symmetries(model)

    def exponents(alpha: float) -> torch.Tensor:
        scales = scales_for(model, symmetries, alpha, node=True, generator=torch.Generator().manual_seed(3))
        return scales[1:].log() / math.log(alpha)

    assert exponents(5.0).abs().max() <= 1
    assert exponents(5.0).std() > 0.3
    for alpha in (0.2, 1.7, 40.0):
        torch.testing.assert_close(exponents(alpha), exponents(5.0))


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
