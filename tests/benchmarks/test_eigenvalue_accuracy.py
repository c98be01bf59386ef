"""What the table of eigenvalues to an accuracy says of the peers, and how their products are counted."""

import numpy as np
import pytest
import torch

from benchmarks.eigenvalue_accuracy import value_table
from benchmarks.peers import value_counts

VALUES = np.r_[10.0, 7.0, 5.0, np.linspace(0, 0.5, 297)]
DIAGONAL = torch.from_numpy(VALUES).float()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("way", ["_arpack", "_lanczos", "_power"])
def test_the_products_that_are_counted_suffice_and_were_made(way, k):
    if way == "_lanczos":
        pytest.importorskip("hessian_eigenthings")
    calls = []

    def product(v):
        calls.append(1)
        return DIAGONAL * v

    found = getattr(value_counts, way)(product, 300, np.sort(VALUES)[::-1][:k].copy(), 1e-2)
    assert not found.at_least
    assert found.error <= 1e-2
    assert k <= found.products <= len(calls)
    # The next looser setting did not suffice, or there was none.
    tighter = getattr(value_counts, way)(product, 300, np.sort(VALUES)[::-1][:k].copy(), 1e-5)
    assert tighter.products >= found.products


def test_a_peer_that_is_stopped_short_counts_as_needing_more(monkeypatch):
    monkeypatch.setattr(value_counts, "_MOST", 4)
    found = value_counts._power(lambda v: DIAGONAL * v, 300, np.array([10.0, 7.0, 5.0]), 1e-6)
    assert found.at_least
    assert found.error > 1e-6


def test_a_row_has_every_peer_with_its_ratio():
    row = {
        "title": "digits MLP", "trained": False, "samples": 1024, "values": 1, "accuracy": 1e-2, "converged": True,
        "seconds": 0.2, "products": 5, "error": 1.5e-3,
        "peers": {
            "PyHessian": {"ratio": 0.5, "products": 1000, "at_least": True},
            "curvlinops": {"ratio": 3.0, "products": 21, "at_least": False},
        },
    }  # fmt: skip
    lines = value_table([{"machine": {"processor": "A"}, "rows": [row, row | {"values": 10, "peers": {}}]}]).splitlines()
    assert lines[0].endswith("| ours | PyHessian | curvlinops |")
    assert lines[2].startswith("| A | digits MLP, untrained | 1,024 | λ_max to 1e-2 | 0.2 s, 5 products; error 2e-03 |")
    assert lines[2].endswith("| ≥ 0.5 ×; ≥ 1,000 products | 3 ×; 21 products |")
    assert "| 10 to 1e-2 |" in lines[3]
    assert lines[3].endswith("| – | – |")
