import json
import math

import pytest
from scipy import stats

from landscape.results import Certificate, CertificateRow, Estimate, Measurement, Sharpness


def test_intervals_are_what_their_kind_says():
    low, high = Estimate(3.0, 0.5, "t", 7).interval(0.9)
    assert (low, high) == pytest.approx(stats.t.interval(0.9, 6, 3.0, 0.5))
    assert Estimate(3.0, 0.5, "samples", 7).interval() == pytest.approx(stats.norm.interval(0.95, 3.0, 0.5))
    assert Estimate(3.0, 0.5, "residual", 7).interval() == (2.5, 3.5)
    assert Estimate(3.0, None, "lower bound", 7).interval() == (3.0, math.inf)
    assert Estimate(3.0).interval() is None
    for hits in (0, 1, 17, 40):
        expected = stats.binomtest(hits, 40).proportion_ci(0.95, method="wilson")
        assert Estimate(hits / 40, 0.01, "proportion", 40).interval() == pytest.approx(tuple(expected))
    assert Estimate(3.0, 0.5, "t", 1).interval() is None


def test_json_has_exactly_the_six_keys_and_no_nan():
    data = json.loads(json.dumps(Estimate(math.inf, math.nan, "t", 3).to_json(), allow_nan=False))
    assert set(data) == {"value", "stderr", "kind", "n", "converged", "reason"}
    assert data["value"] is None
    assert "inf" in data["reason"]
    back = Estimate.from_json(Estimate(2.0, 0.1, "residual", 9, False, "why").to_json())
    assert back == Estimate(2.0, 0.1, "residual", 9, False, "why")


def made(value: float, loss: float = 0.01) -> Sharpness:
    measures = {
        "trace": Measurement(Estimate(value, 0.1, "t", 9, data_stderr=0.2), "loss / weight^2", ()),
        "adaptive_trace": Measurement(Estimate(2 * value, 0.1, "t", 9), "loss", ("layer", "node")),
        "half": Measurement(Estimate(value, None, "lower bound", 9, False, "cut short"), "", ("layer",)),
    }
    return Sharpness(Estimate(loss, 0.001, "samples", 10), Estimate(0.9, 0.01, "samples", 10), measures, 10)


def test_marks_and_rows():
    table = made(1.0)
    marks = {name: m.mark for name, m in table.measures.items()}
    assert marks == {"trace": "yes", "adaptive_trace": "no", "half": "node-wise"}
    assert table.unconverged == ["half"]
    text = str(table)
    assert "NOT CONVERGED: cut short" in text
    assert "sd 0.2" in text  # of a maximum: nothing is called 95 %
    assert Sharpness.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_html_escapes_names():
    table = made(1.0)
    table.measures["<script>"] = table.measures["trace"]
    assert "<script>" not in table._repr_html_()


def test_certificate_survives_json():
    row = CertificateRow("trace", Estimate(1.0), Estimate(4.0), False, "moved")
    made = Certificate((row,), "layer", 1e-15, 3.0, True, 10, {"fc1.weight": (5.0, 5.0)})
    back = Certificate.from_json(json.loads(json.dumps(made.to_json())))
    assert back == made
    assert back.rows[0].ratio == 4.0
    assert "the same function" in str(back)
