"""Certificates of several runs in one report: each is told by the size of its change, and no two are taken for one."""

import json
from dataclasses import replace

import report_examples as examples

from landscape.cli.found_results import collect
from landscape.report.page.certificate_section import certificates

NETWORK = {"checkpoint": "net.pt", "sha256": "0" * 64, "alpha": 5.0}
ATTACK = {"measure": "adaptive_trace", "start": 9.0, "best": 5e4, "alpha": 5.0, "condition": 10.0}


def kept(folder, symmetry, seed=0, **more):
    """A run's folder with one certificate."""
    folder.mkdir()
    certificate = examples.certificate(5.0)
    found = replace(certificate, symmetry=symmetry, provenance=dict(certificate.provenance) | {"seed": seed})
    (folder / "certificate.json").write_text(json.dumps(found.to_json() | NETWORK | more))
    return folder


def sections(*folders):
    """(name, sizes of the changes) of each certificate in a report."""
    found = collect(folders)[0]["certificates"]
    return [(e["name"], e["sizes"]) for name, pairs in found.items() for e in certificates(name, pairs, caption=False)]


def test_matrices_are_told_by_their_condition_number(tmp_path):
    runs = [kept(tmp_path / f"c{c}", "pair", condition=c) for c in (10.0, 228.0)]
    [(_, sizes)] = sections(*runs)
    assert sizes == ["condition number 10", "condition number 228"]
    [(_, sizes)] = sections(kept(tmp_path / "all", "pair + shift", condition=10.0))
    assert sizes == ["α = 5, condition number 10"]


def test_an_attack_is_named_with_what_it_reached(tmp_path):
    found = sections(kept(tmp_path / "a", "pair", condition=10.0), kept(tmp_path / "b", "pair", condition=10.0, attack=ATTACK))
    assert [("attack on adaptive_trace: 9 to 5e+04, a lower bound" in name) for name, _ in found] == [False, True]


def test_two_runs_that_differ_in_one_place_stay_apart_and_equal_ones_are_one(tmp_path):
    runs = [kept(tmp_path / "first", "shift"), kept(tmp_path / "again", "shift"), kept(tmp_path / "other", "shift", seed=7)]
    assert [name.partition(", ")[2] for name, _ in sections(*runs)] == ["", "other"]
