"""The figure of growth: sizes as asked, slopes of known laws, a row of a small network."""

import pytest

from benchmarks.growth import QUANTITIES, draw, measured, network, slope, width_of


@pytest.mark.parametrize("weights", [1e4, 1e5, 1e6, 1e7])
def test_networks_have_about_the_weights_asked(weights):
    there = sum(p.numel() for p in network(width_of(weights)).parameters())
    assert there == pytest.approx(weights, rel=0.01)


def test_a_slope_is_the_power_of_the_two_largest():
    rows = [{"weights": 8, "product": 0.5}, {"weights": 2, "product": 9.0}, {"weights": 4, "product": 0.5 / 2**1.5}]
    assert slope(rows, "weights", "product") == pytest.approx(1.5)


def test_a_row_has_every_quantity_and_is_drawn(tmp_path):
    row = measured(16, 8, 1)
    assert row["weights"] == 16 * 64 + 16 + 3 * (16 * 16 + 16) + 10 * 16 + 10
    assert all(row[q] > 0 for q in QUANTITIES)
    assert row["converged"]
    assert row["products"] >= 1
    assert row["bytes_lambda_max"] >= row["bytes"] >= 0
    seen = row | {"bytes": 1 << 20, "bytes_lambda_max": 2 << 20}
    larger = {k: v * 2 for k, v in seen.items()}
    draw({"rows": {"weights": [seen, larger], "samples": [seen, larger]}}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"
