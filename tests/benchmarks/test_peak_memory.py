"""The benchmark of peak memory: data of the size asked, peaks of whole processes, and failures that are named."""

import pytest

from benchmarks import peak_memory
from benchmarks.networks import trained


@pytest.mark.parametrize("samples", [5, 2000])
def test_samples_are_repeated_where_more_are_asked_than_there_are(samples):
    case, (_, x, y) = peak_memory.data_of("mlp", samples), trained("mlp")
    assert len(case.x) == len(case.y) == samples
    assert case.x[samples - 1].equal(x[(samples - 1) % len(x)])
    assert case.y[samples - 1] == y[(samples - 1) % len(y)]


@pytest.mark.slow  # a process for every run
def test_a_run_has_the_peak_of_a_process_and_its_share_of_the_budget(monkeypatch, capsys):
    monkeypatch.setattr(peak_memory, "BUDGETS", ("256MiB",))
    document = peak_memory.measure(peak_memory.arguments(["--networks", "mlp", "--samples", "64"]))
    assert document["beside peers"] == []
    (row,) = document["within a budget"]
    assert row["peak"] > row["libraries"] > 50 << 20
    assert row["beyond libraries"] == row["peak"] - row["libraries"]
    assert row["share of budget"] == row["beyond libraries"] / (256 << 20) < 1.05
    assert "mlp" in capsys.readouterr().out


@pytest.mark.slow  # a process
def test_a_run_that_fails_says_why():
    found = peak_memory.run("landscape", "mlp", 64, "1KiB")
    assert "expected" in found["failure"]


def test_the_table_has_peaks_shares_and_failures():
    row = {
        "network": "mlp",
        "samples": 5085,
        "tool": "landscape",
        "memory": "1GiB",
        "peak": 3 << 30,
        "beyond libraries": 1 << 29,
    }
    failed = {"network": "mlp", "samples": 64, "tool": "PyHessian", "memory": "default", "failure": "MemoryError: no room"}
    text = peak_memory.memory_table({"beside peers": [row | {"share of budget": 0.5}], "within a budget": [failed]})
    assert "| mlp | 5,085 | landscape | 1GiB | 3.0 GiB | 512 MiB | 50% |" in text
    assert "| mlp | 64 | PyHessian | – | MemoryError | – | – |" in text
