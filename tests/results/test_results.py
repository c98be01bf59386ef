import json
import math
from dataclasses import replace

import pytest
from scipy import stats

from landscape.results import Certificate, CertificateRow, Estimate, FoundSymmetries, Measurement, Sharpness
from landscape.results.sharpness import joint_mark
from landscape.symmetry.families import FAMILIES


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
    half = stats.t.ppf(0.975, 4) * 0.1 / 2
    assert Estimate(2.0, 0.1, "log t", 5).interval() == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)))
    assert Estimate(-2.0, 0.1, "log t", 5).interval() == pytest.approx((-2 * math.exp(half), -2 * math.exp(-half)))


def test_the_interval_of_a_logarithm_beyond_the_range_of_numbers_ends_at_0_and_infinity():
    """Of the values 1 and 100, one degree of freedom: t at 99.99 % is 6,366, and e^6,240 is no float."""
    assert Estimate(50.5, 49.5, "log t", 2).interval(0.9999) == (0.0, math.inf)
    low, high = Estimate(-50.5, 49.5, "log t", 2).interval(0.9999)
    assert (low, high) == (-math.inf, 0.0)
    assert math.copysign(1, high) == 1  # printed as 0, not as -0


def test_json_has_exactly_the_six_keys_and_no_nan():
    data = json.loads(json.dumps(Estimate(math.inf, math.nan, "t", 3).to_json(), allow_nan=False))
    assert set(data) == {"value", "stderr", "kind", "n", "converged", "reason"}
    assert data["value"] is None
    assert "inf" in data["reason"]
    back = Estimate.from_json(Estimate(2.0, 0.1, "residual", 9, False, "why").to_json())
    assert back == Estimate(2.0, 0.1, "residual", 9, False, "why")


def made(value: float, loss: float = 0.01) -> Sharpness:
    measures = {
        "trace": Measurement(
            Estimate(value, 0.1, "t", 9, data_stderr=0.2),
            "loss / weight^2",
            (),
            fakeable_by=("layer", "node"),
            survives=("shift",),
            unknown=(),
        ),
        "adaptive_trace": Measurement(
            Estimate(2 * value, 0.1, "t", 9), "loss", ("layer", "node"), survives=("layer", "node"), unknown=()
        ),
        "half": Measurement(
            Estimate(value, None, "lower bound", 9, False, "cut short"), "", ("layer",), survives=("layer",), unknown=("node",)
        ),
    }
    return Sharpness(Estimate(loss, 0.001, "samples", 10), Estimate(0.9, 0.01, "samples", 10), measures, 10)


def test_marks_and_rows():
    table = made(1.0)
    marks = {name: m.mark for name, m in table.measures.items()}
    assert marks == {"trace": "layer, node", "adaptive_trace": "no", "half": "not known"}
    assert table.unconverged == ["half"]
    text = str(table)
    assert "NOT CONVERGED: cut short" in text
    assert "sd 0.2" in text  # of a maximum: nothing is called 95 %
    assert Sharpness.from_json(json.loads(json.dumps(table.to_json()))) == table


def marked(fakeable_by: str = "", survives: str = "", unknown: str = "") -> Measurement:
    return Measurement(
        Estimate(1.0), "", (), fakeable_by=(*fakeable_by.split(),), survives=(*survives.split(),), unknown=(*unknown.split(),)
    )


def test_marks_name_the_families_or_those_that_are_survived():
    assert marked().mark == "no"
    assert marked(survives="layer pair").mark == "no"
    assert marked("pair").mark == "pair"
    assert marked("layer node pair", "shift").mark == "layer, node, pair"
    assert marked("layer node pair norm-out bias", "shift").mark == "every family but shift"
    assert marked("layer node pair norm-out bias").mark == "all"
    assert marked("pair rotation shift bias", "layer node norm-out norm-in").mark == "pair, rotation, shift, bias"
    assert marked(unknown="pair").mark == "not known"
    assert marked("layer node", "shift", "pair bias").mark == "layer, node; rest not known"
    assert Measurement(Estimate(1.0), "", ("layer",)).mark == "not known"  # nobody has looked at a network


def test_the_mark_of_several_networks_is_no_only_if_it_is_for_all():
    assert joint_mark([marked(survives="layer"), marked(survives="pair")]) == "no"
    assert joint_mark([marked(survives="layer"), marked("pair", "layer")]) == "pair"
    assert joint_mark([marked(survives="layer"), marked(unknown="pair")]) == "not known"
    assert joint_mark([marked("pair"), marked(unknown="pair shift")]) == "pair; rest not known"


def test_documents_of_before_say_what_they_knew():
    """They asked about layers and nodes alone, so that their "no" is no longer one."""
    before = {"value": 1.0, "stderr": None, "kind": "exact", "n": None, "converged": True, "reason": None, "unit": "loss"}
    marks = {claim: Measurement.from_json(before | {"invariant_to": list(claim)}).mark for claim in ((), ("layer", "node"))}
    assert marks == {(): "layer, node; rest not known", ("layer", "node"): "not known"}
    everything = Measurement(Estimate(1.0), "", ()).unknown
    assert everything == tuple(FAMILIES)
    assert Measurement.from_json(before | {"invariant_to": []}).unknown == everything[2:]


def test_found_symmetries_in_one_line():
    found = FoundSymmetries({"layer": 2, "pair": 12}, ("aten.foo in block", "b", "c", "d", "e"))
    assert found.line() == "symmetries found: layer (2), pair (12); not read: aten.foo in block, b, c and 2 more"
    assert FoundSymmetries().line() == "no symmetries found"
    assert FoundSymmetries(reason="it branches").line() == "symmetries not known: it branches"
    table = replace(made(1.0), symmetries=found)
    assert "survive all of them: adaptive_trace" in str(table)
    assert "layer (2), pair (12)" in table._repr_html_()
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
