"""Samples ranked by a score, drawn from a result made by hand."""

import csv
import io

import numpy as np
import pytest
from matplotlib.colors import to_hex

from landscape.errors import UsageError
from landscape.report import draw_ranked_images, draw_ranked_scores, figure_samples, figure_shares, samples_csv
from landscape.report.style import VERMILLION
from landscape.results import Detection, SampleScores


def scores(inputs: np.ndarray | None = None) -> SampleScores:
    values = np.array([0.5, 300.0, 2.0, 0.125])
    return SampleScores(
        {"loss": values, "other": np.array([1.0, np.nan, 0.1, 1 / 3])},
        {"loss": "loss", "other": "loss^2 / input^4"},
        "loss",
        targets=np.array([0, 1, 1, 0]),
        predicted=np.array([0, 0, 1, 0]),
        wrong=np.array([False, True, False, False]),
        detection={"loss": Detection(1.0, 0.5, 1.0, 2, 2)},
        names=("cat", "dog"),
        top=3,
        inputs=inputs,
    )


def test_the_curve_has_every_sample_and_marks_wrong_ones():
    ax = draw_ranked_scores(scores())
    right, wrong = ax.get_lines()[:2]
    assert right.get_ydata().tolist() == [2.0, 0.5, 0.125]
    assert right.get_xdata().tolist() == [2, 3, 4]
    assert wrong.get_ydata().tolist() == [300.0]
    assert ax.get_yscale() == "log"
    assert "loss (loss)" in ax.get_ylabel()


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 1, 8, 8), (3, 3, 8, 8)])
def test_images_stand_in_the_order_of_rank(shape):
    inputs = np.random.default_rng(0).random(shape)
    axes = draw_ranked_images(scores(inputs))
    assert len(axes) == 3
    assert axes[0].get_title(loc="left") == "sample 1\nlabel dog\npredicted cat\n300"
    assert to_hex(axes[0].spines["top"].get_edgecolor()) == VERMILLION.lower()
    assert to_hex(axes[1].spines["top"].get_edgecolor()) != VERMILLION.lower()
    first = axes[0].get_images()[0].get_array()
    assert first.shape == ((8, 8, 3) if shape[1] == 3 and len(shape) == 4 else (8, 8))
    assert first.min() >= 0
    assert first.max() <= 1


def test_inputs_that_are_no_images_are_drawn_as_a_curve():
    found = scores(np.zeros((3, 7)))
    with pytest.raises(UsageError, match="expected samples that are images"):
        draw_ranked_images(found)
    assert len(figure_samples(found).axes) == 1
    assert found.plot().get_xlabel().startswith("rank of the sample")


def test_csv_round_trip():
    found = scores()
    rows = list(csv.DictReader(io.StringIO(samples_csv(found))))
    assert [int(r["sample"]) for r in rows] == found.ranking().tolist() == [1, 2, 0, 3]
    back = sorted(rows, key=lambda r: int(r["sample"]))
    for name, values in found.scores.items():
        assert np.array_equal([float(r[name]) for r in back], values, equal_nan=True)
    assert [r["label"] for r in back] == ["0", "1", "1", "0"]


def test_shares_of_the_largest_samples_and_the_effective_number():
    found = scores()
    total = 302.625
    ax = found.plot_shares()
    curve = ax.get_lines()[0]
    assert curve.get_xdata().tolist() == [0, 1, 2, 3, 4]
    assert curve.get_ydata().tolist() == pytest.approx([0, 300 / total, 302 / total, 302.5 / total, 1])
    effective = total**2 / (300.0**2 + 2.0**2 + 0.5**2 + 0.125**2)
    assert found.carried_by() == pytest.approx(effective)
    assert ax.get_lines()[2].get_xdata()[0] == pytest.approx(effective)
    assert "1 sample of 4 carry" in ax.texts[0].get_text()
    assert found.shares("other").tolist() == pytest.approx([1 / 1.4333333333, 0.3333333333 / 1.4333333333, 0.1 / 1.4333333333])
    assert figure_shares(found, score="other").axes[0].get_lines()[0].get_label() == "other"
    assert found.plot_shares(caption=True).figure is not None


def test_shares_of_both_signs_are_refused():
    found = SampleScores({"loss": np.array([1.0, -1.0])}, {"loss": "loss"}, "loss")
    with pytest.raises(UsageError, match="0 or more"):
        found.shares()
    with pytest.raises(UsageError, match="expected a score that is here"):
        found.shares("gauss_newton_trace")
