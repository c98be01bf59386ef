"""Every registered measure against dense float64 truths, and its claim of invariance on random networks with biases."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_hessian, dense_loss
from torch import nn

from landscape.errors import UsageError
from landscape.measures import MEASURES, adaptive_trace, chosen, frobenius, keskar, lambda_max, measure_all, sharpness, trace
from landscape.objective import Objective
from landscape.results import Sharpness


def dense_value(name: str, hessian: np.ndarray, theta: np.ndarray) -> float:
    scaled = np.abs(theta)[:, None] * hessian * np.abs(theta)[None, :]
    return {
        "lambda_max": lambda: np.linalg.eigvalsh(hessian)[-1],
        "lambda_min": lambda: np.linalg.eigvalsh(hessian)[0],
        "trace": lambda: np.trace(hessian),
        "frobenius": lambda: np.linalg.norm(hessian),
        "adaptive_trace": lambda: np.trace(scaled),
        "adaptive_lambda_max": lambda: np.linalg.eigvalsh(scaled)[-1],
    }[name]()


QUADRATIC = ["lambda_max", "lambda_min", "trace", "frobenius", "adaptive_trace", "adaptive_lambda_max"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quadratic_forms_equal_the_dense_ones(case):
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y), dtype="float64", batch_size=9)
    hessian, theta = dense_hessian(model, loss, x, y), objective.theta.numpy()
    found = measure_all(objective, QUADRATIC, seed=3)
    for name in QUADRATIC:
        estimate, truth = found[name].estimate, dense_value(name, hessian, theta)
        assert estimate.converged
        if estimate.kind == "residual":
            assert estimate.value == pytest.approx(truth, rel=1e-5, abs=1e-5 * abs(dense_value("lambda_max", hessian, theta)))
            assert abs(estimate.value - truth) <= estimate.stderr + 1e-9
        else:
            low, high = estimate.interval(0.9999)
            assert low <= truth <= high, name
        assert estimate.data_stderr is None or estimate.data_stderr > 0


def test_intervals_of_probes_cover_the_truth():
    """95 % intervals over 300 seeds: between 92 and 98.5 % of them hold the truth."""
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    hessian, theta = dense_hessian(model, loss, x, y), objective.theta.numpy()
    dense = torch.from_numpy(hessian)
    objective.hvp = lambda v: v.double() @ dense  # the truth itself: only the statistics are looked at
    for function, name in ((trace, "trace"), (adaptive_trace, "adaptive_trace"), (frobenius, "frobenius")):
        truth = dense_value(name, hessian, theta)
        hits = 0
        for seed in range(300):
            low, high = function(objective, probes=24, generator=torch.Generator().manual_seed(seed)).interval()
            hits += low <= truth <= high
        assert 0.92 <= hits / 300 <= 0.985, (name, hits / 300)


def test_data_error_covers_fresh_samples():
    """The error over samples: lambda_max of many small draws scatters as data_stderr says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    errors, values = [], []
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(200, 3, generator=g)
        y = (x[:, 0] + 0.5 * torch.randn(200, generator=g) > 0).long()
        estimate = lambda_max(Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64"))
        values.append(estimate.value)
        errors.append(estimate.data_stderr)
    assert np.std(values, ddof=1) == pytest.approx(np.mean(errors), rel=0.3)


def rescaled(model: nn.Sequential, node: bool, seed: int) -> nn.Sequential:
    """Dinh's transformation by hand, on Linear-ReLU chains with biases: unit scales s, rows times s, columns over s."""
    g = torch.Generator().manual_seed(seed)
    out = copy.deepcopy(model).double()
    linears = [m for m in out if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for a, b in itertools.pairwise(linears):
            n = a.out_features if node else 1
            s = torch.exp(2 * torch.randn(n, generator=g, dtype=torch.float64)).expand(a.out_features)
            a.weight *= s[:, None]
            a.bias *= s
            b.weight /= s[None, :]
    return out


@pytest.mark.parametrize("symmetry", ["layer", "node"])
def test_claims_of_invariance(symmetry):
    """A measure that claims it must not move on any network; one that does not must move by a factor on some."""
    moved = dict.fromkeys(MEASURES, 1.0)
    for seed in range(3):
        model, loss, x, y = CASES[0].make(seed)
        model = model.double()
        other = rescaled(model, symmetry == "node", seed)
        assert float((model(x.double()) - other(x.double())).detach().abs().max()) < 1e-12
        before = measure_all(Objective(model, loss, (x, y), dtype="float64"), "all")
        after = measure_all(Objective(other, loss, (x, y), dtype="float64"), "all")
        for name, m in MEASURES.items():
            a, b = before[name].estimate.value, after[name].estimate.value
            if symmetry in m.invariant_to:
                assert b == pytest.approx(a, rel=1e-6), name
            moved[name] = max(moved[name], abs(b / a), abs(a / b))
    for name, m in MEASURES.items():
        assert symmetry in m.invariant_to or moved[name] > 2, f"{name} moved by {moved[name]:.3f} at most"


def corner_maximum(function, theta, radius) -> float:
    """Best of all 2^P corners: the maximum of a convex function over a box."""
    signs = itertools.product((-1.0, 1.0), repeat=len(theta))
    return max(function(theta + radius * torch.tensor(s, dtype=torch.float64)).item() for s in signs)


def test_keskar_equals_brute_force_on_a_convex_loss():
    torch.manual_seed(1)
    model = nn.Linear(4, 2)
    x, y = torch.randn(30, 4), torch.randn(30, 2)
    function, theta = dense_loss(model, nn.MSELoss(), x, y)
    objective = Objective(model, nn.MSELoss(), (x, y), dtype="float64")
    for eps in (1e-3, 0.1, 1.0):
        truth = corner_maximum(function, theta, eps * (theta.abs() + 1))
        phi = 100 * (truth - float(function(theta))) / (1 + float(function(theta)))
        assert keskar(objective, eps=eps).value == pytest.approx(phi, rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_keskar_is_no_less_than_scipy_finds_in_ten_iterations(case):
    """The published setting, run here with scipy and the dense loss, from the centre."""
    from scipy.optimize import minimize

    model, loss, x, y = case.make(2)
    function, theta = dense_loss(model, loss, x, y)
    value_and_gradient = torch.func.grad_and_value(function)

    def negative(z):
        gradient, value = value_and_gradient(torch.from_numpy(z))
        return -float(value), -gradient.numpy()

    start = theta.numpy()
    for eps in (1e-3, 5e-4, 0.05):
        radius = eps * (np.abs(start) + 1)
        found = minimize(
            negative, start, jac=True, method="L-BFGS-B", bounds=list(zip(start - radius, start + radius, strict=True)),
            options={"maxiter": 10},
        )  # fmt: skip
        centre = float(function(theta))
        phi = 100 * (-found.fun - centre) / (1 + centre)
        estimate = keskar(Objective(model, loss, (x, y), dtype="float64"), eps=eps)
        assert estimate.kind == "lower bound"
        assert estimate.value >= phi * (1 - 1e-9), eps


def test_keskar_subspace_stays_in_its_box():
    """With A a basis of the whole space it is a maximum over another box; with p = 1 it is a line that can be scanned."""
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    from landscape.measures.epsilon_sharpness import _random_basis
    from landscape.measures.shared import extremes

    generator = torch.Generator().manual_seed(4)
    extremes(objective, generator)
    a = _random_basis(objective, 1, generator)[0]
    bound = 1e-3 * (abs(float(a @ objective.theta) / float(a @ a)) + 1)
    scan = max(objective.value(objective.theta + t * a).value for t in np.linspace(-bound, bound, 101))
    centre = objective.value().value
    phi = 100 * (scan - centre) / (1 + centre)
    found = keskar(objective, subspace=1, generator=torch.Generator().manual_seed(4)).value
    assert found == pytest.approx(phi, rel=1e-6)


def test_keskar_refuses_nonsense():
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y))
    with pytest.raises(UsageError, match="expected a positive epsilon, found -1"):
        keskar(objective, eps=-1.0)
    with pytest.raises(UsageError, match="expected a subspace of 1 to"):
        keskar(objective, subspace=0)


def test_loss_scale():
    """Eigenvalues and traces are of the first degree in the loss."""
    model, loss, x, y = CASES[0].make(0)
    one = measure_all(Objective(model, loss, (x, y), dtype="float64"), QUADRATIC)
    three = measure_all(Objective(model, lambda z, t: 3 * loss(z, t), (x, y), dtype="float64"), QUADRATIC)
    for name in QUADRATIC:
        assert three[name].estimate.value == pytest.approx(3 * one[name].estimate.value, rel=1e-6), name


def test_shared_work_is_done_once_and_the_same_alone():
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    together = measure_all(objective, ["trace", "frobenius", "lambda_max", "lambda_min"])
    assert together["frobenius"].matvecs == 0
    assert together["lambda_min"].matvecs == 0
    for name, m in together.items():
        alone = measure_all(Objective(model, loss, (x, y), dtype="float64"), [name])
        assert alone[name].estimate == m.estimate


def test_the_registry_refuses_and_documents():
    with pytest.raises(UsageError, match="expected a measure, found 'sharp'; choose among lambda_max"):
        chosen(["sharp"])
    for m in MEASURES.values():
        assert m.summary.endswith(".")
        assert "arXiv" in m.reference or "19" in m.reference
        assert set(m.invariant_to) <= {"layer", "node"}


def test_result_prints_and_survives_json():
    model, loss, x, y = CASES[3].make(0)
    result = sharpness(Objective(model, loss, (x, y)), ["lambda_max", "adaptive_trace", "keskar"])
    text = str(result)
    assert "lambda_max" in text
    assert "residual" in text
    assert "lower bound" in text
    assert "<td>adaptive_trace</td>" in result._repr_html_()
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    entry = document["measures"]["lambda_max"]
    assert set(entry) >= {"value", "stderr", "kind", "n", "converged", "reason", "unit", "invariant_to", "matvecs", "seconds"}
    assert Sharpness.from_json(document)["lambda_max"].value == result["lambda_max"].value


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
def test_pyhessian_agrees():
    """The field's reference on the same network: eigenvalues to its tolerance, its trace inside our interval."""
    pyhessian = pytest.importorskip("pyhessian")
    model, loss, x, y = CASES[3].make(0)
    objective = Objective(model, loss, (x, y))
    theirs = pyhessian.hessian(model, loss, data=(x, y), cuda=False)
    torch.manual_seed(0)
    values, _ = theirs.eigenvalues(maxIter=1000, tol=1e-7, top_n=1)
    found = measure_all(objective, ["lambda_max", "lambda_min", "trace"])
    largest = max((found[n].estimate.value for n in ("lambda_max", "lambda_min")), key=abs)
    assert largest == pytest.approx(values[0], rel=1e-3)
    their_trace = theirs.trace(maxIter=400, tol=0.0)
    spread = np.std(their_trace, ddof=1) / len(their_trace) ** 0.5
    ours = found["trace"].estimate
    assert abs(np.mean(their_trace) - ours.value) < 4 * (spread**2 + ours.stderr**2) ** 0.5
