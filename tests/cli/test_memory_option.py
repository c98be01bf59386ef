"""`--memory` and `--shard-basis` as a person meets them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from in_process import run

from landscape.tasks import Recipe, train

FEW = ("--samples", 60, "-k", 2, "--probes", 2, "--steps", 12, "--dtype", "float64")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "mlp.safetensors"
    train(Recipe(network_options={"widths": [7]}, epochs=1), out=path)
    return path


def landscape(*arguments, processes=1, code=0):
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    done = subprocess.run([*start, "landscape", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def test_the_forecast_is_said_and_recorded_and_decides_no_result(checkpoint, tmp_path):
    command = ("spectrum", checkpoint, *FEW, "--json", "--out", tmp_path / "out")
    roomy = landscape(*command)
    tight = landscape(*command, "--memory", "300MiB")  # the same directory: it is the same run
    assert "note: memory: about " in roomy.stderr
    assert " of 300 MiB: " in tight.stderr
    assert "samples a pass, basis of 24 vectors 1 MiB in memory" in tight.stderr
    one, other = json.loads(roomy.stdout), json.loads(tight.stdout)
    np.testing.assert_allclose(other["eigenvalues"]["values"], one["eigenvalues"]["values"], rtol=1e-9, atol=1e-12)
    told = other["provenance"]["memory"]
    assert told["budget"] == 300 << 20
    assert 0 < told["forecast"] < told["budget"]
    assert told["graphs_kept"] is True
    assert [b["where"] for b in told["bases"]] == ["device", "device"]


def test_what_is_no_size_is_one_line(checkpoint, capfd):
    done = run(capfd, "sharpness", checkpoint, "--memory", "lots")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: expected a memory size, found 'lots'; for example 512MiB")


@pytest.mark.slow
def test_a_budget_as_small_as_the_refusal_says_is_enough(checkpoint):
    command = ("sharpness", checkpoint, "--measures", "lambda_max", "--samples", 30, "--json")
    refused = landscape(*command, "--memory", "1MiB", code=2)
    assert refused.stderr.splitlines()[-1].startswith("error: expected a memory budget of at least 8")
    enough = refused.stderr.rpartition("pass --memory ")[2].split()[0]
    found = json.loads(landscape(*command, "--memory", enough).stdout)["results"][0]
    assert found["measures"]["lambda_max"]["converged"]
    assert found["provenance"]["memory"]["budget"] < 200 << 20


@pytest.mark.slow
def test_a_basis_is_spread_over_processes(checkpoint, tmp_path):
    command = ("spectrum", checkpoint, *FEW, "--json", "--shard-basis")
    alone = json.loads(landscape(*command, "--out", tmp_path / "one").stdout)
    shared = landscape(*command, "--out", tmp_path / "two", processes=2)
    found = json.loads(shared.stdout)
    np.testing.assert_allclose(found["eigenvalues"]["values"], alone["eigenvalues"]["values"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["density"]["nodes"], alone["density"]["nodes"], rtol=0, atol=1e-10)
    half = found["provenance"]["memory"]["bases"][0]["bytes"] / alone["provenance"]["memory"]["bases"][0]["bytes"]
    assert half == pytest.approx(0.5, abs=0.01)
