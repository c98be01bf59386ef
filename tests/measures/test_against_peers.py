"""Gauss-Newton and Fisher matrices against curvlinops, Hessian against PyHessian: published code for the same quantities."""

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn

from landscape.measures import measure_all
from landscape.objective import Objective

# Both are for networks without class weights: curvlinops takes losses by type.
PLAIN = [case for case in CASES if case.name in ("mlp", "mlp-mse", "cnn-batchnorm")]


@pytest.mark.parametrize("case", PLAIN, ids=str)
@pytest.mark.parametrize("kind", ["hessian", "ggn", "fisher"])
def test_curvlinops_agrees_on_every_matrix(case, kind):
    curvlinops = pytest.importorskip("curvlinops")
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y), dtype="float64", batch_size=9)
    twin, data = model.double(), [(x.double(), y.double() if y.is_floating_point() else y)]
    build = {"hessian": "HessianLinearOperator", "ggn": "GGNLinearOperator", "fisher": "EFLinearOperator"}[kind]
    theirs = getattr(curvlinops, build)(twin, loss, list(twin.parameters()), data, check_deterministic=False)
    dense = theirs @ torch.eye(objective.dim, dtype=torch.float64)
    ours = {"hessian": objective.hvp, "ggn": objective.ggnvp, "fisher": objective.fishervp}[kind]
    mine = ours(torch.eye(objective.dim, dtype=torch.float64)).T
    # Of C outputs under MSELoss curvlinops sums (sum of C terms)^2 / (N C), we average (mean of C terms)^2 over N samples.
    scale = y.shape[1] if kind == "fisher" and isinstance(loss, nn.MSELoss) else 1
    np.testing.assert_allclose(scale * mine.numpy(), dense.numpy(), atol=1e-10 * float(dense.abs().max()))


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
def test_pyhessian_agrees():
    """The field's reference on the same network: both eigenvalues to its tolerance, its trace inside our interval."""
    pyhessian = pytest.importorskip("pyhessian")
    model, loss, x, y = CASES[3].make(0)
    objective = Objective(model, loss, (x, y))
    theirs = pyhessian.hessian(model, loss, data=(x, y), cuda=False)
    torch.manual_seed(0)
    values, _ = theirs.eigenvalues(maxIter=1000, tol=1e-7, top_n=2)
    from landscape.spectra import eigenpairs

    ours = sorted(eigenpairs(objective, 2, "both").values, key=abs, reverse=True)[:2]
    np.testing.assert_allclose(ours, values, rtol=1e-2)
    their_trace = theirs.trace(maxIter=400, tol=0.0)
    spread = np.std(their_trace, ddof=1) / len(their_trace) ** 0.5
    trace = measure_all(objective, ["trace"])["trace"].estimate
    assert abs(np.mean(their_trace) - trace.value) < 4 * (spread**2 + trace.stderr**2) ** 0.5
