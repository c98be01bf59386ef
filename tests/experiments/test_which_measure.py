"""Which measure: statistics, adversary and claims on networks that are made up, so that the answer is known."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.common.options import Options
from experiments.common.work import Place
from experiments.which_measure.claims import judged
from experiments.which_measure.networks import DIGITS, LABELS, one, planned
from experiments.which_measure.ranking_table import GENERALIZED, MEMORIZED, adversary, ranks, table

GIVEN = Options(None, 100, 4, (0, 1, 2, 3, 4), Path("runs"), 1, "cpu", False)
MEASURES = ["trace", "lambda_max", "adaptive_trace", "pac_bayes_magnitude", "spectral_product"]


def made_up() -> list[dict]:
    """The trace rises with the wrong labels and λ_max falls, and a move makes both 1000 times as large; the adaptive trace
    rises and stays; magnitude-aware PAC-Bayes falls and stays; the product of norms is noise, and a move makes it 10 times."""
    random, runs = np.random.default_rng(0), []
    for (level, labels), batch, lr, seed in itertools.product(enumerate(LABELS), (32, 256), (0.02, 0.05), range(5)):
        noise = dict(zip(MEASURES, np.exp(0.2 * random.standard_normal(len(MEASURES))), strict=True))
        slopes = {"trace": 1.0, "lambda_max": -1.0, "adaptive_trace": 1.0, "pac_bayes_magnitude": -1.0, "spectral_product": 0.0}
        trained = {m: float(noise[m] * np.exp(slopes[m] * level)) for m in MEASURES}
        moves = {"trace": 1000.0, "lambda_max": 1000.0, "spectral_product": 10.0}
        runs.append(
            {
                "item": {"data": "digits", "labels": labels, "batch_size": batch, "lr": lr, "seed": seed,
                         "measures": MEASURES, "samples": 500},
                "train_loss": 0.01 - 1e-4 * random.random(), "train_accuracy": 1.0,
                "test_accuracy": 0.98 - 0.15 * level + 0.01 * random.standard_normal(),
                "trained": trained, "moved": {m: v * moves.get(m, 1.0) for m, v in trained.items()},
            }
        )  # fmt: skip
    return runs


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    return {row["measure"]: row for row in table(made_up())}


def test_the_adversary_moves_the_side_that_hides_the_difference():
    choice = adversary(made_up())
    assert (choice["trace"], choice["lambda_max"]) == (GENERALIZED, MEMORIZED)


def test_the_statistics_before_and_after_the_attack(rows):
    runs = made_up()
    clean = np.array([r["item"]["labels"] == "clean" for r in runs])
    trace, moved = (np.array([r[kind]["trace"] for r in runs]) for kind in ("trained", "moved"))
    gaps = np.array([r["train_accuracy"] - r["test_accuracy"] for r in runs])
    for when, values in (("trained", trace), ("attacked", np.where(clean, moved, trace))):
        found = rows["trace"][when]
        assert found["auc"]["value"] == pytest.approx((values[~clean][:, None] > values[clean]).mean())
        assert found["tau"]["value"] == pytest.approx(stats.kendalltau(values, gaps).statistic)
    assert rows["trace"]["trained"]["auc"]["value"] == pytest.approx(1, abs=0.01)
    assert rows["trace"]["attacked"]["auc"]["value"] == 0
    assert rows["lambda_max"]["attacked"]["auc"]["value"] == 1
    still = rows["adaptive_trace"]
    for name, found in still["trained"].items():
        assert {k: v for k, v in still["attacked"][name].items() if k != "q"} == {k: v for k, v in found.items() if k != "q"}
    assert rows["trace"]["largest_change"] == pytest.approx(999)


def test_who_survives(rows):
    assert {m: (row["proven"], row["separates"], row["ranks"]) for m, row in rows.items()} == {
        "trace": (False, False, rows["trace"]["ranks"]),
        "lambda_max": (False, False, rows["lambda_max"]["ranks"]),
        "adaptive_trace": (True, True, True),
        "pac_bayes_magnitude": (True, True, True),
        "spectral_product": (False, False, False),
    }


def test_the_claims(rows):
    population = {"generalized": 20, "memorized": 100, "table": list(rows.values())}
    population["rank"] = ranks(made_up(), "pac_bayes_magnitude", MEASURES)
    found = judged({"digits": population}, GIVEN)
    *others, within = found["claims"]
    said = {c["claim"][:30]: c for c in others}
    held = {name: c["holds"] for name, c in said.items()}
    assert held == {
        "a measure without a proof agai": True,
        "measures proven to survive the": True,
        "trace and λ_max disagree about": True,
        "magnitude-aware PAC-Bayes rank": False,
        "the product of spectral norms ": None,
        "no measure orders the gap in e": False,
        "some measure that survives ran": True,
    }
    assert "share of wrong labels fixed" in within["claim"]
    # Within one share of wrong labels these gaps are noise.
    assert within["holds"] is None
    assert found["verdict"] == "mixed"
    assert "an AUC of 0.70" in said["trace and λ_max disagree about"]["detectable"], "Noether's formula for 20 and 100"
    assert {name.split(" ")[0] for name in said["no measure orders the gap in e"]["numbers"]["below one half"]} >= {
        "adaptive_trace"
    }


def test_a_rank_is_by_the_size_of_tau_and_has_an_interval(rows):
    runs = made_up()
    taus = {m: abs(rows[m]["trained"]["tau"]["value"]) for m in MEASURES}
    order = sorted(taus, key=taus.__getitem__, reverse=True)
    for name in MEASURES:
        found = ranks(runs, name, MEASURES)
        assert (found["rank"], found["of"]) == (1 + order.index(name), 5)
        assert found["low"] <= found["rank"] <= found["high"]
    noise = ranks(runs, "spectral_product", MEASURES)
    assert (noise["low"], noise["high"]) == (5, 5), "all others go with the gap"
    assert ranks(runs, "trace", MEASURES)["high"] > 1, "four measures go with the gap alike"


@pytest.mark.parametrize(("ends", "holds"), [((1, 5), True), ((1, 9), None), ((7, 9), False)])
def test_among_the_best_is_by_the_interval_of_the_rank(rows, ends, holds):
    up = [row | ({"trained": row["trained"] | {"tau": rows["trace"]["trained"]["tau"]}}) for row in rows.values()]
    rank = {"rank": ends[0], "low": ends[0], "high": ends[1], "of": 20}
    found = judged({"digits": {"generalized": 20, "memorized": 100, "table": up, "rank": rank}}, GIVEN)["claims"]
    (claim,) = [c for c in found if "PAC-Bayes ranks" in c["claim"]]
    assert claim["holds"] is holds


def test_a_network_keeps_its_function_and_its_proven_measures(tmp_path):
    item = planned(GIVEN)[0]
    recipe = replace(DIGITS, network_options={"widths": [8]}, stop_loss=0.5)
    item |= {"recipe": recipe.to_json(), "measures": ["trace", "adaptive_trace"], "samples": 60}
    found = one(item, Place(tmp_path, None, "cpu"))
    assert found["outputs_change"] < 1e-5
    assert found["moved"]["adaptive_trace"] == pytest.approx(found["trained"]["adaptive_trace"], rel=1e-4)
    assert found["moved"]["trace"] > 5 * found["trained"]["trace"]
    assert found["train_loss"] <= 0.5
    assert len(planned(GIVEN)) == len(LABELS) * 2 * 2 * 5
