"""Settings by name, forecasts, and what happens where a measure cannot be had."""

import math

import pytest
from cases import CASES

from landscape.errors import UsageError
from landscape.machine.progress import duration
from landscape.measures import MEASURES, chosen, forecast, measure_all
from landscape.objective import Objective
from landscape.results import Estimate, Measurement, Sharpness


def objective_of(number: int = 0, **options) -> Objective:
    model, loss, x, y = CASES[number].make(0)
    return Objective(model, loss, (x, y), **{"dtype": "float64", **options})


def test_settings_by_name_change_the_value_and_are_recorded():
    objective = objective_of()
    found = measure_all(objective, ["sam", "sam:rho=0.1", "keskar:eps=5e-4:iterations=20", "keskar_5e-4", "trace:probes=8"])
    assert found["sam:rho=0.1"].estimate.value > 2 * found["sam"].estimate.value
    assert found["sam:rho=0.1"].settings == {"rho": 0.1, "steps": 20}
    assert found["keskar:eps=5e-4:iterations=20"].estimate.value == pytest.approx(found["keskar_5e-4"].estimate.value, rel=1e-3)
    assert found["trace:probes=8"].estimate.n == 8
    assert Measurement.from_json(found["sam:rho=0.1"].to_json()).settings == {"rho": 0.1, "steps": 20}
    assert found["sam:rho=0.1"].to_json()["settings"]["rho"] == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sam:radius=1", "expected a setting of sam, found 'radius=1'; its settings are rho=0.05, steps=20"),
        ("sam:rho", "expected a setting of sam, found 'rho'"),
        ("sam:rho=big", "expected a number from 0 for sam:rho, found 'big'; for example sam:rho=0.05"),
        ("sam:rho=-1", "expected a number from 0 for sam:rho, found '-1'"),
        ("keskar:eps=inf", "expected a number from 0 for keskar:eps"),
        ("fisher_rao:x=1", "its settings are none"),
        ("adaptive_worst_l2:norm=linf", "expected a setting of adaptive_worst_l2"),
        ("sharp", "expected a measure, found 'sharp'"),
    ],
)
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        chosen([text])


def test_all_may_stand_beside_other_settings():
    names = [m.name for m in chosen(["all", "keskar:eps=1e-4", "trace"])]
    assert names == [*MEASURES, "keskar:eps=1e-4"]


def test_sam_starts_from_the_eigenvector_that_lambda_max_found():
    both = measure_all(objective_of(), ["lambda_max", "sam", "sam_linf"])
    assert both["lambda_max"].matvecs > 0
    assert both["sam"].matvecs == both["sam_linf"].matvecs == 0


def test_every_pass_is_counted():
    found = measure_all(objective_of(3), ["input_margin", "critical_sample_ratio", "logit_norm", "fisher_rao"])
    assert all(m.forwards > 0 for m in found.values())


def test_what_is_not_defined_is_said_and_nothing_else_is_lost():
    objective = objective_of(1)  # regression: no classes, no accuracy
    found = measure_all(objective, ["pac_bayes", "adaptive_worst_l2_normalized", "trace"])
    assert math.isnan(found["pac_bayes"].estimate.value)
    assert found["pac_bayes"].estimate.converged
    assert "not defined: expected a task with an accuracy" in found["pac_bayes"].estimate.reason
    assert found["trace"].defined
    text = str(Sharpness(Estimate(1.0), None, found, 23))
    assert "–" in text
    assert "nan" not in text


def test_a_measure_that_breaks_down_does_not_take_the_others_with_it():
    """Radii at which float32 overflows: said in words, and the trace is there."""
    found = measure_all(objective_of(1, dtype="float32"), ["trace", "sam:rho=1e30", "adaptive_average_l2:rho=1e30"])
    assert found["trace"].defined
    assert "not finite" in found["sam:rho=1e30"].estimate.reason
    assert math.isinf(found["adaptive_average_l2:rho=1e30"].estimate.value)


def test_the_forecast_counts_what_is_then_spent():
    """In all within a factor 1.6, and no more than a factor 3 for any single measure that takes real work."""
    objective = objective_of(3)
    names = [n for n in MEASURES if MEASURES[n].reference]
    plan = forecast(objective, names)
    before = objective.spent
    found = measure_all(objective, names, seconds=plan.seconds)
    spent = objective.spent - before
    for kind in ("products", "gradients", "forwards"):
        foreseen, seen = getattr(plan.spent, kind), getattr(spent, kind)
        assert seen / 1.7 < foreseen < seen * 1.7, (kind, foreseen, seen)
    assert set(plan.seconds) == set(found)
    assert plan.total > 0
    assert "curvature products" in str(plan)
    # What is shared is paid once.
    assert forecast(objective, ["trace", "frobenius"]).spent.products == forecast(objective, ["trace"]).spent.products
    for setting, least in (
        ("adaptive_worst_l2:steps=200:restarts=5", 1600),
        ("sam:steps=100", 110),
        ("keskar:method=all:iterations=50", 120),
    ):
        assert forecast(objective, [setting]).spent.gradients >= least
    assert forecast(objective, ["trace:probes=128"]).spent.products > 1.8 * forecast(objective, ["trace"]).spent.products


def test_durations_read_well():
    assert [duration(s) for s in (0.2, 59, 600, 7200)] == ["200 ms", "59 s", "10 min", "2.0 h"]
