"""The check that every surface carries: what it must pass, and what it must find."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn

from landscape.curvature import footprint
from landscape.curvature.engine import Engine
from landscape.objective import Objective, preparation
from landscape.surfaces import Direction, line, plane, random_direction
from landscape.surfaces.checks import check_derivatives
from landscape.surfaces.checks.check_slice import check_slice
from landscape.surfaces.grid import flat_chart
from landscape.tasks.networks import build


def case_objective(index: int = 3) -> tuple[Objective, tuple]:
    parts = CASES[index].make(0)
    return Objective(parts[0], parts[1], parts[2:], dtype="float64"), parts


def oblique(dtype: str = "float64") -> tuple[Objective, np.ndarray, tuple[Direction, Direction]]:
    """L = mean (w . x - y)^2 with axes that are neither orthogonal nor of one length, and its Hessian."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=g), torch.randn(30, 1, generator=g)
    objective = Objective(nn.Linear(4, 1, bias=False), nn.MSELoss(), (x, y), dtype=dtype)
    u, v = torch.randn(2, 4, generator=g)
    axes = Direction("u", u.to(objective.theta)), Direction("v", (3 * u + 0.2 * v).to(objective.theta))
    return objective, (2 * x.double().T @ x.double() / 30).numpy(), axes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_quadratic_on_oblique_axes_is_the_closed_form(dtype):
    """f(a, b) = f(0) + g.s + s.H s / 2, s = a u + b v: cross term and all."""
    objective, hessian, axes = oblique(dtype)
    found = plane(objective, axes, span=((-2, 2), (-1, 1)), grid=(5, 9))
    u, v = (d.vector.double().numpy() for d in axes)
    gradient = objective.to("float64").gradient().numpy()
    exact = objective.to("float64").value().value
    for i, a in enumerate(np.linspace(-2, 2, 5)):
        for j, b in enumerate(np.linspace(-1, 1, 9)):
            s = a * u + b * v
            assert found.values["loss"][i, j] == pytest.approx(
                exact + gradient @ s + s @ hessian @ s / 2, rel=1e-5 if dtype == "float32" else 1e-11
            )
    check = found.check
    for key, truth in {"11": u @ hessian @ u, "12": u @ hessian @ v, "22": v @ hessian @ v}.items():
        assert check.curvature_hvp[key] == pytest.approx(truth, rel=1e-5)
        assert check.curvature[key] == pytest.approx(truth, abs=1e-3 * (v @ hessian @ v)), "rounding is a share of the largest"
    assert abs(check.cosine) > 0.9
    assert check.passed
    assert not check.from_slopes


WRONG_VALUES = {
    "transposed": lambda z: z.T,
    "one row further": lambda z: np.roll(z, 1, axis=0),
    "one column further": lambda z: np.roll(z, -1, axis=1),
    "turned by 90 degrees": lambda z: np.rot90(z).copy(),
    "first axis back to front": lambda z: z[::-1],
    "second axis back to front": lambda z: z[:, ::-1],
    "scaled": lambda z: 1.01 * z,
}


@pytest.mark.parametrize("how", WRONG_VALUES)
@pytest.mark.parametrize("grid", [3, 5, 6, 11])
def test_the_check_finds_values_in_the_wrong_place(grid, how):
    objective, _, axes = oblique()
    values = plane(objective, axes, grid=grid).values["loss"]
    chart = flat_chart(objective, axes, [(-1, 1)] * 2, [grid] * 2, "eval")
    assert check_slice(objective, axes, chart, values).passed
    check = check_slice(objective, axes, chart, WRONG_VALUES[how](values))
    assert not check.passed
    assert any(text.startswith("WRONG: ") for text in check.lines())
    assert check.recomputed > 1e-3


@pytest.mark.parametrize("wrong", ["twice", "half", "minus", "Gauss-Newton", "rotated"])
def test_the_check_finds_a_wrong_hessian(monkeypatch, wrong):
    objective, _ = case_objective(1)
    assert plane(objective, grid=3).check.passed
    right = Objective.hvp
    products = {
        "twice": lambda self, v: 2 * right(self, v),
        "half": lambda self, v: right(self, v) / 2,
        "minus": lambda self, v: -right(self, v),
        "Gauss-Newton": lambda self, v: self.ggnvp(v),
        "rotated": lambda self, v: right(self, v.roll(1, -1)),
    }
    monkeypatch.setattr(Objective, "hvp", products[wrong])
    check = plane(objective, grid=3).check
    assert not check.passed
    assert check.problems == [
        "curvatures of the surface differ from those of the Hessian (or a kink lies in the weights themselves)"
    ]


def kinked() -> tuple[Objective, Objective]:
    """A wide rectifier network on many samples, and itself with one kink within any step that differences of values take."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(512, 1, 8, 8, generator=g), torch.randint(0, 10, (512,), generator=g)
    smooth, _ = case_objective(1)
    return Objective(build("digits-cnn", channels=1, width=8), nn.CrossEntropyLoss(), (x, y)), smooth


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0])
def test_values_and_gradients_that_do_not_belong_together_are_found(monkeypatch, factor):
    """Gradient and products wrong alike: differences of slopes agree with the products, and values alone can tell."""
    gradient, hvp = Objective.gradient, Objective.hvp
    monkeypatch.setattr(Objective, "gradient", lambda self, theta=None: factor * gradient(self, theta))
    monkeypatch.setattr(Objective, "hvp", lambda self, v: factor * hvp(self, v))
    for objective in kinked():
        check = line(objective, seed=2, grid=3).check
        assert check.problems == ["slopes of the surface differ from its gradients"], check.lines()
        assert check.derivatives.slope_error > 0.3


def test_how_far_differences_of_values_were_off_is_said():
    for objective in kinked():
        check = plane(objective, grid=2, seed=0).check
        assert check.passed, check.lines()
        assert check.derivatives.slope_error < 1e-3
        assert any(text.startswith("slope: finite differences and gradients differ by ") for text in check.lines())
        for key, value in check.derivatives.values.items():
            (told,) = [text for text in check.lines() if text.startswith(f"curvature {key}:")]
            assert (f"({value:.4g} from its values, with kinks between them)" in told) is check.from_slopes
            assert f"{check.curvature_hvp[key]:.4g} from products with H" in told


@pytest.mark.parametrize("norm", ["filter", "layer"])
def test_the_check_finds_an_axis_that_is_not_normalized_as_it_says(norm):
    objective, _ = case_objective()
    good = random_direction(objective, seed=1, norm=norm)
    raw = random_direction(objective, seed=1, norm="none")
    # Filters that have their lengths give their layer its own, not the other way round.
    other = random_direction(objective, seed=1, norm="layer") if norm == "filter" else raw
    assert line(objective, good, grid=3).check.passed
    for d in (raw, other):
        check = line(objective, Direction(d.name, d.vector, norm), grid=3).check
        assert check.problems == [f"axis 1 is not {norm}-normalized"]
    one = good.vector.clone()
    first = objective.layout.filters == 0
    one[first] *= 1.002  # a single filter
    if norm == "filter":
        assert not line(objective, Direction("one filter", one, norm), grid=3).check.passed


@pytest.mark.parametrize(
    ("network", "batchnorm"),
    [
        ("digits-cnn", "eval"),
        ("digits-cnn", "recalibrate"),
        ("resnet20", "eval"),
        pytest.param("resnet20", "recalibrate", marks=pytest.mark.slow),
    ],
)
def test_kinks_do_not_make_the_check_fail(network, batchnorm, monkeypatch):
    """Thousands of rectifiers times hundreds of samples: some switch within any step that differences of values can take."""
    for limit in ("_CONVOLVED", "SAMPLES"):
        monkeypatch.setattr(check_derivatives, limit, 1024)
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(1024, 1, 8, 8, generator=g), torch.randint(0, 10, (1024,), generator=g)
    options = {"digits-cnn": {"width": 8}, "resnet20": {"width": 2, "blocks": 1}}[network]
    model = build(network, channels=1, **options)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    checks = [plane(objective, grid=2, seed=s, batchnorm=batchnorm).check for s in (0, 2)]
    assert all(c.passed for c in checks), [c.lines() for c in checks]
    assert any(c.from_slopes for c in checks)
    assert any("from the surface's slopes" in text for c in checks for text in c.lines())


def test_few_samples_are_checked_and_fewer_where_a_processor_convolves():
    flat, cnn = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), build("digits-cnn", channels=1)
    for model, of, samples in ((cnn, 100, 4), (flat, 100, 32), (cnn, 32, None), (flat, 32, None)):
        x, y = torch.rand(of, 1, 8, 8), torch.randint(0, 10, (of,))
        check = plane(Objective(model, nn.CrossEntropyLoss(), (x, y)), grid=2).check
        assert check.passed
        assert check.derivatives.samples == samples


def test_products_whose_batches_are_put_together_wrongly_are_found(monkeypatch):
    """Few samples, but in two unequal batches: a mean over batches in place of one over samples shows."""
    right = Engine.hvp

    def equal(engine, theta, v):
        return torch.stack([right(replace(engine, batches=[b]), theta, v) for b in engine.batches]).mean(0)

    torch.manual_seed(0)
    x, y = torch.rand(40, 1, 32, 32), torch.randint(0, 10, (40,))
    model = nn.Sequential(nn.Conv2d(1, 64, 3), nn.Tanh(), nn.Conv2d(64, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6272, 10))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    assert plane(objective, grid=2, random_check=False).check.passed
    monkeypatch.setattr(Engine, "hvp", equal)
    check = plane(objective, grid=2, random_check=False).check
    assert any("differ from those of the Hessian" in problem for problem in check.problems), check.problems


def test_further_surfaces_do_not_repeat_what_was_found_about_the_network(monkeypatch):
    """Neither the checks before derivatives nor the count of their memory; both are made again for another network."""
    counted: list[str] = []
    for module, name in ((preparation, "check_engine"), (footprint, "_measure"), (preparation, "check_values")):
        made = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, made=made: counted.append(name) or made(*a))
    x, y = torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,))
    objective = Objective(build("digits-cnn", channels=1), nn.CrossEntropyLoss(), (x, y))
    first = plane(objective, grid=2, random_check=False)
    assert counted.count("check_engine") == 1
    assert "check_values" in counted
    counted.clear()
    second = plane(objective, grid=2, random_check=False)
    assert counted == []
    assert second.check == first.check
    plane(objective.with_loss(nn.CrossEntropyLoss(label_smoothing=0.1)), grid=2, random_check=False)
    assert counted.count("check_engine") == 1


def test_a_flat_direction_passes():
    """Nothing but rounding on both sides."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.zero_()
    dead = Objective(
        model, nn.CrossEntropyLoss(), (torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2)
    )
    d = torch.zeros(dead.dim)
    d[:6] = 1.0
    check = line(dead, Direction("dead", d), grid=3).check
    assert check.passed, check.lines()
    assert check.recomputed == 0


def test_a_kink_in_the_weights_themselves_is_said():
    """A unit at exactly 0 that moves along the axis: the loss has no second derivative there."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for p, value in zip(model.parameters(), (0.0, 0.0, 1.0, 0.5), strict=True):
            p.fill_(value)
    objective = Objective(model, nn.MSELoss(), (torch.ones(4, 1), torch.zeros(4, 1)), dtype="float64")
    check = line(objective, Direction("w", torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)), grid=3).check
    assert not check.passed
    assert "a kink lies in the weights themselves" in check.problems[0]
