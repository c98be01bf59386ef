"""Exact products of sharded networks on gloo processes; exact_worker.py has what is checked against the dense Hessian."""

import pytest
from test_sharded_objective import run

from benchmarks import sharded_products


@pytest.mark.slow  # processes that import torch.distributed
@pytest.mark.parametrize("processes", [2, 3])
def test_exact_products_are_the_dense_answer(tmp_path, processes):
    found = run("exact_worker.py", processes, tmp_path / "found.json")
    for kind in found.values():
        calls, outer, steps = kind["calls"], kind["outer"], kind["steps"]
        # The figures of docs/memory-and-processes.md: on a graph that is kept, and on one made anew for every step.
        kept = {"_allgather_base_": outer + 2 * calls, "_reduce_scatter_base_": outer + 2 * calls, "allreduce_": 1}
        fresh = {
            "_allgather_base_": steps * (2 * outer + 4 * calls), "_reduce_scatter_base_": steps * (2 * outer + 3 * calls),
            "allreduce_": 1,
        }  # fmt: skip
        assert kind["kept"] == kept
        assert kind["hvp"] == (kept if steps == 1 else fresh)


@pytest.mark.slow  # likewise
def test_a_process_holds_one_layer_at_a_time():
    found = sharded_products.run("exact", 1024, 24, 3)
    whole = 3 * found["part"]
    bound = 7 * found["part"] + 8 * found["layer"] + (12 << 20)  # libraries
    assert found["took"] <= bound
    assert bound < 6 * found["part"] + 2 * whole, "weights and vector gathered whole would not pass"


@pytest.mark.slow  # likewise
def test_missing_second_derivatives_are_found_and_an_error_of_one_process_is_named_in_all(tmp_path):
    found = run("missing_worker.py", 2, tmp_path / "found.json")
    assert found["alone"] == "process 1 of 2 alone: no room here"
