"""What the table of traces to an accuracy says of the peers."""

from benchmarks.peers.plan import Plan
from benchmarks.trace_accuracy import accuracy_table, needed

PLAN = Plan(hutchinson=378, hutchpp=24, xtrace=16, value=1.0, half_width=0.01, spread=0.5, products=72)


def test_every_peer_has_the_estimators_that_it_offers():
    assert needed("PyHessian", PLAN) == ("hutchinson", 378, False)
    assert needed("hessian-eigenthings", PLAN) == ("hutch++", 24, False)
    assert needed("curvlinops", PLAN) == ("xtrace", 16, False)
    assert needed("matfree", PLAN) == ("xtrace", 16, False)
    assert needed("curvlinops", Plan(16, 27, None, 1.0, 0.01, 0.1, 72)) == ("hutchinson", 16, False)


def test_an_estimator_that_needs_more_than_was_looked_at_counts_as_needing_just_that():
    unknown = Plan(5000, None, None, 1.0, 0.01, 0.1, 72)
    assert needed("PyHessian", unknown) == ("hutchinson", 5000, False)
    assert needed("hessian-eigenthings", unknown) == ("hutch++", 72, True)
    assert needed("curvlinops", unknown) == ("xtrace", 48, True)
    assert needed("matfree", unknown) == ("xtrace", 48, True)


def test_a_row_names_the_fastest_peer_and_what_was_not_reached():
    row = {
        "title": "small ViT", "trained": False, "samples": 1024, "accuracy": 0.05, "converged": False, "half_width": 0.081,
        "seconds": 2.0, "peer": "curvlinops", "way": "xtrace", "products": 16, "peers_seconds": {"curvlinops": 3.0},
        "ratio": 1.5, "how": "probes: 8 probes", "at_least": False,
    }  # fmt: skip
    (line,) = accuracy_table([{"machine": {"processor": "A"}, "rows": [row]}]).splitlines()[2:]
    assert line.startswith(
        "| A | small ViT, untrained | 1,024 | ±5%, not reached: ±8.1% | 2 s | curvlinops, xtrace, 16 products: 3 s |"
    )
    assert line.endswith("| 1.5 | probes: 8 probes |")
    (line,) = accuracy_table([{"machine": {"processor": "A"}, "rows": [row | {"at_least": True}]}]).splitlines()[2:]
    assert "| curvlinops, xtrace, ≥ 16 products: ≥ 3 s | ≥ 1.5 |" in line
