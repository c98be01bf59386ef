"""The networks in JAX are those in PyTorch, and matfree's estimates are traces of their Hessians."""

import numpy as np
import pytest
import torch

from benchmarks.cases import Case
from benchmarks.parts.tools import at_work
from benchmarks.peers.plan import Plan
from benchmarks.reference import Product
from benchmarks.timing import Meter, OutOfTime

jax = pytest.importorskip("jax")
pytest.importorskip("matfree")
matfree_estimators = pytest.importorskip("benchmarks.peers.matfree_estimators")


SLOW = [pytest.param(n, last, marks=pytest.mark.slow) for n, last in
        (("vit", False), ("gpt", False), ("resnet20", False), ("resnet20", True))]  # fmt: skip


@pytest.mark.parametrize(("name", "last"), [("mlp", False), *SLOW])
def test_outputs_and_products_are_pytorchs(name, last):
    case = Case.of(name).first(3).laid_out(last)
    session = matfree_estimators.Matfree(case)
    assert session.network.channels_last == last
    network, point = session.network, session.point
    with torch.no_grad():
        outputs = case.model(case.x)
    found = np.asarray(network.outputs(point.weights, point.fixed, point.x))
    expected = outputs.movedim(1, -1).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    v = torch.randn(case.weights, generator=torch.Generator().manual_seed(0))
    with at_work():
        truth = Product(case, torch.float64)(v)
    assert (session.alone(v) - truth).norm() < 1e-4 * truth.norm()
    assert (session.more(v) - truth).norm() < 1e-4 * truth.norm()


def exact_trace(case):
    """Of a perceptron with rectifiers, which is linear in every single weight: that of its Gauss-Newton matrix, in float64."""
    model = case.model.double()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (case.x.double(),)))(weights)
    flat = torch.cat([j.flatten(2) for j in jacobian.values()], dim=2)  # (B, classes, P)
    q = model(case.x.double()).softmax(1).detach()
    curvature = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    return float(torch.einsum("bcp,bdp,bcd->", flat, flat, curvature) / len(q))


@pytest.mark.parametrize(("plan", "products"), [((64, 40), 40), ((37, None), 37), ((20, 40), 20)])
def test_a_trace_is_that_of_the_hessian_with_the_products_that_were_planned(plan, products):
    case = Case.of("mlp").first(16)
    hutchinson, xtrace = plan
    planned = Plan(hutchinson, 3, xtrace, 1.0, 0.1, 0.5, 72)
    session = matfree_estimators.Matfree(case)
    session.ready(planned)
    found = session.trace(0.05, planned, Meter())
    assert found.products == products
    assert f"{products} products" in found.note
    assert found.half_width > 0
    assert abs(found.value - exact_trace(case)) < 3 * found.half_width


def test_a_trace_without_time_is_stopped():
    session = matfree_estimators.Matfree(Case.of("mlp").first(4))
    with pytest.raises(OutOfTime):
        session.trace(0.05, Plan(64, None, None, 1.0, 0.1, 0.5, 72), Meter(limit=0.0))


@pytest.mark.parametrize(("products", "expected"), [(2, [2]), (16, [16]), (37, [13, 12, 12])])
def test_hutchinsons_probes_come_in_nearly_equal_blocks(products, expected):
    assert matfree_estimators.blocks("hutchinson", products) == expected
