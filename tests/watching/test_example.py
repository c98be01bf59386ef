"""The example of the edge of stability is short, and reaches the edge."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "edge_of_stability.py"


def test_it_is_at_most_forty_lines():
    assert EXAMPLE.read_text().count("\n") <= 40


@pytest.mark.slow
def test_the_digits_end_at_their_edge(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1])}
    done = subprocess.run([sys.executable, EXAMPLE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    mean, edge = done.stdout.splitlines()[-1].split(": ")[1].split(", 2 / lr = ")
    assert float(edge) == 10
    assert abs(float(mean) / float(edge) - 1) <= 0.05
    assert (tmp_path / "edge_of_stability.png").stat().st_size > 10_000
    assert "is above its edge" in done.stdout
    told = [line for line in done.stdout.splitlines() if re.fullmatch(r"step \d+: loss [\d.e-]+, lambda_max [\d.]+", line)]
    assert 10 <= len(told) <= 40  # progress while it trains
