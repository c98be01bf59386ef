"""What the studies wrote: every verdict follows from its claims, every picture and page from the results."""

import pytest

from experiments.common.document import RESULTS, read
from experiments.common.options import ROOT
from experiments.studies import STUDIES

every_study = pytest.mark.parametrize("name", [study.name for study in STUDIES])


@every_study
def test_a_study_has_a_script_results_and_a_figure(name):
    module = ROOT / "experiments" / name
    assert (module / "__main__.py").exists()
    assert (ROOT / "figures" / f"{name}.png").exists()
    assert read(name)["how"]["script"].startswith(f"python -m experiments.{name}")


@every_study
def test_a_verdict_follows_from_its_claims(name):
    found = read(name)["verdict"]
    held = [claim["holds"] for claim in found["claims"] if not claim["question"]]
    without = "not reproduced" if False in held else "cannot be told"
    of_claims = "reproduced" if all(h is True for h in held) else "mixed" if True in held else without
    assert found["verdict"] == (of_claims if held else "questions of ours")
    assert found["claims"]
    assert found["scale"]
    assert any(letter.isdigit() for letter in found["headline"]), "a number"
    assert found["departures"]
    for claim in found["claims"]:
        assert all(claim[part] for part in ("claim", "published", "ours"))


@every_study
def test_a_study_says_what_it_took(name):
    how = read(name)["how"]
    assert how["core_seconds"] > 0
    assert len(how["seeds"]) >= 5
    assert all(how[part] for part in ("torch", "machine"))


def test_every_result_belongs_to_a_study():
    assert {path.stem for path in RESULTS.glob("*.json")} == {study.name for study in STUDIES}


def test_results_do_not_tell_where_they_were_made():
    for path in RESULTS.glob("*.json"):
        places = [place for place in ("/work/", "/tmp/", "/home/", "/Users/") if place in path.read_text()]
        assert not places, path.name


# The same in every seed, by a proof or to rounding: these have no power.
WITHOUT_POWER = {
    "outliers of the spiked matrix are found exactly",
    "Lanczos finds the eigenvalues of the dense Hessian",
    "a rescaled network computes the same function",
    "measures that are proven to survive a family of symmetries do survive it",
    "filter normalization makes the picture of a network independent of layer-wise rescaling",
    "and of neuron-wise rescaling, too",
    "measures that are proven to survive a family of symmetries do not move along it",
    "measures proven to survive the rescaling do not move",
}


def test_every_claim_that_depends_on_seeds_says_what_they_could_have_seen():
    claims = [claim for study in STUDIES for claim in read(study.name)["verdict"]["claims"]]
    assert {claim["claim"] for claim in claims if not claim["detectable"]} == WITHOUT_POWER
