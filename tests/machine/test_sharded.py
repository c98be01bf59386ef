"""The samples of an Objective over 1, 2 and 3 processes: the same numbers, and one collective a product."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reference import dense_gauss_newton, dense_hessian, dense_loss, sample_gradients
from sharded import NAMES, build, products, solved

import landscape as ls

EXACT = 1e-12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded")
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("sharded.py")), str(path), "2", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return path


@pytest.fixture(params=[2, 3])
def found(request, folder):
    """The number of processes, and what they found together."""
    return request.param, torch.load(folder / f"{request.param}.pt")


@pytest.fixture(scope="module")
def alone():
    """What one process finds."""
    return {name: products(build(name)) for name in NAMES} | {"solved": solved(build("seven"))}


@pytest.mark.parametrize("name", NAMES)
def test_products_do_not_depend_on_the_number_of_processes(found, alone, name):
    _, together = found
    assert together[name].keys() == alone[name].keys()
    for quantity, expected in alone[name].items():
        scale = float(expected.abs().max())
        assert float((together[name][quantity] - expected).abs().max()) <= EXACT * scale, quantity


def test_products_are_the_dense_ones(found):
    _, together = found
    objective = build("seven")
    model, loss, (x, y) = objective.plain()
    v = torch.randn(3, objective.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    hessian = torch.from_numpy(dense_hessian(model, loss, x, y))
    function, theta = dense_loss(model, loss, x, y)
    expected = {
        "hvp": v @ hessian, "ggnvp": v @ torch.from_numpy(dense_gauss_newton(model, loss, x, y)),
        "fishervp": v @ torch.from_numpy(sample_gradients(model, loss, x, y)),
        "gradient": torch.func.grad(function)(theta), "value": function(theta).detach(),
    }  # fmt: skip
    for quantity, there in expected.items():
        torch.testing.assert_close(together["seven"][quantity], there, rtol=EXACT, atol=EXACT)
    values = torch.linalg.eigvalsh(hessian).flip(0)[:4]
    torch.testing.assert_close(together["solved"]["eigenvalues"], values, rtol=EXACT, atol=EXACT)


def test_eigenpairs_trace_and_density_do_not_depend_on_it_either(found, alone):
    _, together = found
    for quantity, expected in alone["solved"].items():
        scale = float(expected.abs().max())
        difference = float((together["solved"][quantity] - expected).abs().max())
        # An eigenvector is as sharp as its gap lets it be; the others are sums.
        assert difference <= (1e-9 if quantity == "eigenvectors" else EXACT) * scale, quantity


def test_a_batch_that_must_not_be_cut_is_not(found):
    processes, together = found
    assert together["together, shares"] == {2: [[7], []], 3: [[7], [], []]}[processes], "one loss of all samples"
    normalized = build("norm").batch_normalized()
    normalized._checked = True
    torch.testing.assert_close(together["normalized"]["gradient"], normalized.gradient(), rtol=EXACT, atol=EXACT)


def test_samples_are_shared_out_evenly_and_a_process_may_have_none(found):
    processes, together = found
    assert together["seven, shares"] == {2: [[3, 1], [2, 1]], 3: [[3], [2], [1, 1]]}[processes]
    assert together["two, shares"] == {2: [[1], [1]], 3: [[1], [1], []]}[processes]


def test_a_product_is_one_collective(found):
    _, together = found
    assert together["collectives of three calls"] == 3, "of one vector, of five, and a gradient with its value"
    collectives, matvecs = together["eigenpairs"]
    assert collectives == together["sweeps"], "one for each block of products, and none besides"
    assert 0 < collectives <= matvecs
    assert together["collectives alone"] == 0


def test_what_processes_tell_one_another(found):
    processes, together = found
    assert together["parts"].tolist() == {2: [[0.0] * 4 + [1.0] * 3] * 2, 3: [[0.0] * 3 + [1.0] * 2 + [2.0] * 2] * 2}[processes]
    assert together["agreed"] == "rank 0"
    assert together["everyone"] == list(range(processes))
    assert together["alike"][0] == [(True, True)] * processes


def test_an_error_in_one_process_is_raised_in_all(found):
    processes, together = found
    assert ("error of one" in together) == (processes == 3)
    if processes == 3:
        assert "out of bounds" in together["error of one"]


def test_processes_out_of_step_are_refused(found):
    processes, together = found
    assert together["out of step"].startswith(f"expected {processes} processes at the same step, found them at different ones")


def test_a_line_without_a_folder_is_shared_by_points_to_the_bit(found):
    _, together = found
    alone = ls.line(build("seven"), grid=9)
    assert together["of a line"]["loss"].tolist() == alone.values["loss"].tolist()
    assert together["again"]
