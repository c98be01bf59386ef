"""Every registered measure against dense float64 truths; its claim of invariance is in test_invariance.py."""

import itertools
import json

import numpy as np
import pytest
import torch
from cases import CASES
from reference import dense_gauss_newton, dense_hessian, dense_loss, sample_gradients
from torch import nn

from landscape.errors import UsageError
from landscape.measures import (
    MEASURES,
    adaptive_trace,
    chosen,
    empirical_fisher_trace,
    fisher_trace,
    frobenius,
    gauss_newton_trace,
    keskar,
    layer_relative_trace,
    measure_all,
    provenance,
    relative_flatness,
    sharpness,
    trace,
)
from landscape.objective import Objective
from landscape.results import Sharpness
from landscape.symmetry.families import FAMILIES


class Dense:
    """Every measure that is a quadratic form, from dense float64 matrices."""

    def __init__(self, model, loss, x, y) -> None:
        self.hessian = dense_hessian(model, loss, x, y)
        self.theta = dense_loss(model, loss, x, y)[1].numpy()
        self.tensors = [tuple(p.shape) for p in model.parameters()]
        self.ggn = dense_gauss_newton(model, loss, x, y)
        plain = nn.CrossEntropyLoss() if isinstance(loss, nn.CrossEntropyLoss) else loss
        self.fisher = dense_gauss_newton(model, plain, x, y)
        self.empirical = sample_gradients(model, loss, x, y)

    def __getitem__(self, name: str) -> float:
        h, w = self.hessian, self.theta
        norms, forms, start = np.empty_like(w), 0.0, 0
        for shape in self.tensors:
            part = slice(start, start := start + int(np.prod(shape)))
            norms[part] = np.linalg.norm(w[part])
            if len(shape) > 1:  # Petzka's double sum over neurons, with the blocks it avoids
                rows = w[part].reshape(shape[0], -1)
                blocks = h[part, part].reshape(*rows.shape, *rows.shape)
                forms += sum(
                    rows[s] @ rows[t] * np.trace(blocks[s, :, t, :]) for s in range(len(rows)) for t in range(len(rows))
                )
        adaptive, layer = np.abs(w)[:, None] * h * np.abs(w), norms[:, None] * h * norms
        return {
            "lambda_max": np.linalg.eigvalsh(h)[-1],
            "lambda_min": np.linalg.eigvalsh(h)[0],
            "trace": np.trace(h),
            "frobenius": np.linalg.norm(h),
            "adaptive_trace": np.trace(adaptive),
            "adaptive_lambda_max": np.linalg.eigvalsh(adaptive)[-1],
            "layer_relative_trace": np.trace(layer),
            "layer_relative_lambda_max": np.linalg.eigvalsh(layer)[-1],
            "weight_curvature": w @ h @ w,
            "relative_flatness": forms,
            "gauss_newton_trace": np.trace(self.ggn),
            "gauss_newton_lambda_max": np.linalg.eigvalsh(self.ggn)[-1],
            "fisher_trace": np.trace(self.fisher),
            "fisher_lambda_max": np.linalg.eigvalsh(self.fisher)[-1],
            "empirical_fisher_trace": np.trace(self.empirical),
            "empirical_fisher_lambda_max": np.linalg.eigvalsh(self.empirical)[-1],
            "fisher_rao": w @ self.fisher @ w,
        }[name]


QUADRATIC = ["lambda_max", "lambda_min", "trace", "frobenius", "adaptive_trace", "adaptive_lambda_max"]
ALL_QUADRATIC = [
    *QUADRATIC, "layer_relative_trace", "layer_relative_lambda_max", "weight_curvature", "relative_flatness",
    "gauss_newton_trace",
    "gauss_newton_lambda_max", "fisher_trace", "fisher_lambda_max", "empirical_fisher_trace", "empirical_fisher_lambda_max",
    "fisher_rao",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quadratic_forms_equal_the_dense_ones(case):
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y), dtype="float64", batch_size=9)
    dense = Dense(model, loss, x, y)
    found = measure_all(objective, ALL_QUADRATIC, seed=3)
    for name in ALL_QUADRATIC:
        estimate, truth = found[name].estimate, dense[name]
        assert estimate.converged, name
        if estimate.kind == "residual":
            top = dense["lambda_max"] if name == "lambda_min" else truth
            assert estimate.value == pytest.approx(truth, rel=1e-5, abs=1e-5 * abs(top)), name
            assert abs(estimate.value - truth) <= estimate.stderr + 1e-9, name
        elif estimate.kind == "exact":
            assert estimate.value == pytest.approx(truth, rel=1e-9), name
        else:
            low, high = estimate.interval(0.9999)
            assert low <= truth <= high, name
        assert estimate.data_stderr is None or estimate.data_stderr > 0, name


@pytest.mark.slow
def test_intervals_of_probes_cover_the_truth():
    """95 % intervals over 300 seeds: between 92 and 98.5 % of them hold the truth."""
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    dense = Dense(model, loss, x, y)
    # The truth itself: only the statistics are looked at.
    objective.hvp = lambda v: v.double() @ torch.from_numpy(dense.hessian)
    objective.ggnvp = lambda v: v.double() @ torch.from_numpy(dense.ggn)
    objective.fishervp = lambda v: v.double() @ torch.from_numpy(dense.empirical)
    objective.sample_curvatures = lambda v, curvature="hessian": None
    functions = (
        trace, adaptive_trace, frobenius, layer_relative_trace, relative_flatness, gauss_newton_trace, fisher_trace,
        empirical_fisher_trace,
    )  # fmt: skip
    for function in functions:
        name, truth = function.__name__, dense[function.__name__]
        hits = 0
        for seed in range(300):
            low, high = function(objective, probes=24, generator=torch.Generator().manual_seed(seed)).interval()
            hits += low <= truth <= high
        assert 0.92 <= hits / 300 <= 0.985, (name, hits / 300)


@pytest.mark.slow
def test_data_error_is_the_scatter_over_fresh_samples():
    """60 draws of 200 samples scatter as `data_stderr` says; as chunks of one objective they share what is prepared once."""
    names = [
        "lambda_max", "sam", "asam", "adaptive_average_l2", "keskar", "adaptive_worst_linf_m:m=20:steps=4:restarts=0",
        "fisher_rao",
    ]  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    generators = [torch.Generator().manual_seed(seed) for seed in range(60)]
    x = torch.cat([torch.randn(200, 3, generator=g) for g in generators])
    y = (x[:, 0] + 0.5 * torch.cat([torch.randn(200, generator=g) for g in generators]) > 0).long()
    whole = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    found = [measure_all(draw, names) for draw in whole.chunks(200)]
    ratios = {}
    for name in names:
        estimates = [one[name].estimate for one in found]
        ratios[name] = np.std([e.value for e in estimates], ddof=1) / np.mean([e.data_stderr for e in estimates])
    assert ratios == pytest.approx(dict.fromkeys(names, 1.0), rel=0.3)


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


def test_a_random_basis_that_does_not_fit_is_on_disk_and_gives_the_same(monkeypatch):
    """By hand: a budget without room for it. Values, gradients and the pseudoinverse are held to dense algebra."""
    from landscape.machine.memory import Plan
    from landscape.measures.perturbation.box_growth import Coordinates
    from landscape.measures.perturbation.epsilon_sharpness import _random_basis

    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    inside = keskar(objective, subspace=5).value
    assert objective.plan.directions(5, 12).where == "device"
    monkeypatch.setattr(Plan, "rest", property(lambda plan: 2 * plan.row))
    assert objective.plan.directions(5, 12).where == "disk"
    basis = _random_basis(objective, 5, torch.Generator().manual_seed(1))
    assert type(basis._store).__name__ == "_Disk"
    random, where = torch.Generator().manual_seed(1), Coordinates(objective, basis=basis)
    dense = torch.stack([torch.randn(objective.dim, generator=random) for _ in range(5)]).double()
    point = torch.arange(5.0, dtype=torch.float64) * 1e-3
    np.testing.assert_allclose(where.at(point), objective.theta + dense.T @ point, rtol=1e-12)
    value, gradient = objective.value_and_gradient(objective.theta + dense.T @ point)
    found, along = where.value_and_gradient(point)
    assert found == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(along, dense @ gradient, rtol=1e-9, atol=1e-12)
    rows = torch.randn(2, objective.dim, dtype=torch.float64)
    np.testing.assert_allclose(where.inverse(rows), rows @ torch.linalg.pinv(dense), rtol=1e-9, atol=1e-12)
    assert keskar(objective, subspace=5).value == pytest.approx(inside, rel=1e-6)


def test_keskar_subspace_stays_in_its_box():
    """With A a basis of the whole space it is a maximum over another box; with p = 1 it is a line that can be scanned."""
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    from landscape.measures.perturbation.epsilon_sharpness import _random_basis

    generator = torch.Generator().manual_seed(4)
    a = _random_basis(objective, 1, generator)[:1][0]
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
        assert set(m.invariant_to) <= set(FAMILIES)


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


@pytest.mark.parametrize(
    ("layers", "mode"),
    [
        ([nn.Linear(4, 3)], "eval; biases included"),
        ([nn.Linear(4, 3, bias=False)], "eval"),
        ([nn.Linear(4, 3), nn.LayerNorm(3)], "eval; biases and norm layers included"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3)], "eval; BatchNorm with its running statistics; biases and norm layers included"),
    ],
)
def test_the_provenance_names_layers_that_are_there(layers, mode):
    objective = Objective(nn.Sequential(*layers), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.arange(8) % 3))
    assert provenance(objective, 0)["mode"] == mode


class LikeLlamaRMSNorm(nn.Module):
    """A normalization of another library: only its name tells."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class OverSteps(nn.Module):
    """A layer on a sequence of two steps of two features, then 3 logits without a bias."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.end = layer, nn.Linear(width, 3, bias=False)

    def forward(self, x):
        x = x.view(-1, 2, 2)
        out = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return self.end((out[0] if isinstance(out, tuple) else out)[:, -1])


@pytest.mark.parametrize(
    ("layer", "width", "mode"),
    [
        (nn.LSTM(2, 3, batch_first=True), 3, "eval; biases included"),
        (nn.LSTM(2, 3, batch_first=True, bias=False), 3, "eval"),
        (nn.MultiheadAttention(2, 1, batch_first=True), 2, "eval; biases included"),
        (nn.PReLU(2), 2, "eval"),
        (nn.LayerNorm(2, bias=False), 2, "eval; norm layers included"),
        (nn.GroupNorm(1, 2), 2, "eval; biases and norm layers included"),
        (LikeLlamaRMSNorm(2), 2, "eval; norm layers included"),
    ],
)
def test_only_weights_of_norm_layers_count_as_norm_layers(layer, width, mode):
    objective = Objective(OverSteps(layer, width), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.arange(8) % 3))
    assert provenance(objective, 0)["mode"] == mode
