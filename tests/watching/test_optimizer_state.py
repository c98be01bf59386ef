"""Updates and preconditioners are those of the real optimizers; edges are where their steps on a quadratic begin to grow."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures import preconditioned_eigenpair
from landscape.objective import Objective
from landscape.watching import Watch, preconditioner
from landscape.watching.optimizer_state import read
from tests.cases import CASES
from tests.reference import dense_hessian

KINDS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "decay": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "heavy ball": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.5, "betas": (0.8, 0.9)}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9}),
    "centered": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "weight_decay": 0.1}),
}


def stepped(kind: str, steps: int, seed: int = 0) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Two tensors after some steps on random gradients, and their optimizer."""
    generator = torch.Generator().manual_seed(seed)
    weights = [nn.Parameter(torch.randn(3, 2, generator=generator, dtype=torch.float64)) for _ in range(2)]
    make, settings = KINDS[kind]
    optimizer = make(weights, **settings)
    for _ in range(steps):
        for p in weights:
            p.grad = torch.randn(3, 2, generator=generator, dtype=torch.float64)
        optimizer.step()
    return weights, optimizer


def flat(weights: list[nn.Parameter]) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in weights])


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_what_the_next_step_does(kind: str, steps: int):
    weights, optimizer = stepped(kind, steps)
    gradient, before = torch.arange(12, dtype=torch.float64) / 5 - 1, flat(weights)
    state = {i: {k: v.clone() for k, v in s.items() if torch.is_tensor(v)} for i, s in enumerate(optimizer.state.values())}
    found = read(optimizer, weights)
    expected = before - found.lr * found.update(gradient, before)
    for i, s in enumerate(optimizer.state.values()):
        assert all(torch.equal(s[k], v) for k, v in state[i].items()), "reading changes nothing"
    assert len(optimizer.state) == len(state)
    for p, g in zip(weights, gradient.split(6), strict=True):
        p.grad = g.reshape(3, 2).clone()
    optimizer.step()
    torch.testing.assert_close(flat(weights), expected, rtol=1e-9, atol=1e-12)


def grows(kind: str, curvature: float) -> bool:
    """Whether the real optimizer's steps on curvature w^2 / 2 grow. Adaptive ones keep the second moments of a constant 1."""
    make, settings = KINDS[kind]
    w = nn.Parameter(torch.tensor([1e-6], dtype=torch.float64))
    optimizer = make([w], **(settings | ({} if make is torch.optim.SGD else {"eps": 1e-300})))
    sizes = []
    for step in range(800):
        w.grad = curvature * w.detach()
        if make is not torch.optim.SGD and optimizer.state:
            for name, value in {"exp_avg_sq": 1.0, "max_exp_avg_sq": 1.0, "square_avg": 1.0, "grad_avg": 0.0}.items():
                if name in optimizer.state[w]:
                    optimizer.state[w][name].fill_(value)
            if "step" in optimizer.state[w]:
                optimizer.state[w]["step"].fill_(10**6)
        optimizer.step()
        sizes.append(abs(float(w.detach())))
        if step == 20:  # the first steps of an adaptive one have other moments, and large ones would add to its second moments
            with torch.no_grad():
                w.fill_(1e-150)
                for name in ("exp_avg", "momentum_buffer"):
                    if name in optimizer.state[w]:
                        optimizer.state[w][name].zero_()
    return max(sizes[-50:]) > max(sizes[100:150])


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("amsgrad", "adam", "centered")])
def test_the_edge_is_where_steps_begin_to_grow(kind: str):
    weights, optimizer = stepped(kind, 1)
    found = read(optimizer, weights)
    adaptive = not isinstance(optimizer, torch.optim.SGD)
    edge = found.own_edge if adaptive else found.edge
    assert edge is not None
    assert (found.edge is None) is adaptive
    # The moments are set to 1 before a step, which then adds its own small square: sqrt(b2), the metric of Adam and RMSprop.
    shrunk = {"adamw": math.sqrt(0.9), "rmsprop": math.sqrt(0.99)}.get(kind, 1.0)
    assert not grows(kind, 0.97 * edge * shrunk)
    assert grows(kind, 1.03 * edge * shrunk)


def test_the_published_numbers():
    edges = {kind: (read(*stepped(kind, 2)[::-1]).edge, read(*stepped(kind, 2)[::-1]).own_edge) for kind in KINDS}
    assert edges["sgd"] == pytest.approx((20, 20))
    assert edges["decay"][0] == pytest.approx(20 - 0.3)
    assert edges["nesterov"][0] == pytest.approx(3.8 / 2.8 / 0.1)
    assert edges["dampened"][0] == pytest.approx(380)
    assert edges["adam"][1] == pytest.approx(3800)


@pytest.mark.parametrize("kind", ["adam", "amsgrad", "adamw", "rmsprop", "heavy ball"])
def test_the_preconditioned_eigenvalue_equals_the_dense_one(kind: str):
    model, loss, x, y = CASES[0].make(0)
    model = model.double()
    x = x.double()
    make, settings = KINDS[kind]
    optimizer = make([{"params": [*model.parameters()][:2], "lr": 0.002}, {"params": [*model.parameters()][2:]}], **settings)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    found = read(optimizer, list(model.parameters()))
    dense = dense_hessian(model, loss, x, y)
    inverse = []  # P^-1, written from the definitions of the optimizers
    for i, p in enumerate(model.parameters()):
        s, group = optimizer.state[p], optimizer.param_groups[int(i >= 2)]
        if kind == "heavy ball":
            divisor = torch.ones_like(p)
        elif kind == "rmsprop":
            divisor = s["square_avg"].sqrt() + group["eps"]
        else:
            (b1, b2), t = group["betas"], float(s["step"])
            v = s["max_exp_avg_sq" if kind == "amsgrad" else "exp_avg_sq"]
            divisor = (1 - b1**t) * ((v / (1 - b2**t)).sqrt() + group["eps"])
        inverse.append((group["lr"] / settings["lr"] / divisor).detach().reshape(-1))
    root = torch.cat(inverse).sqrt().numpy()
    coupled = 0.0 if kind == "adamw" else settings.get("weight_decay", 0.0)
    expected = np.linalg.eigvalsh(root[:, None] * (dense + coupled * np.eye(len(dense))) * root)[-1]
    objective = Objective(model, loss, (x, y), dtype="float64")
    assert found.preconditioner is not None
    pairs = preconditioned_eigenpair(objective, found.preconditioner, decay=found.decay, tol=1e-9)
    assert pairs.values[0] == pytest.approx(expected, rel=1e-8)
    assert abs(pairs.values[0] - expected) <= max(float(pairs.residuals[0]), 1e-8 * expected)
    torch.testing.assert_close(preconditioner(model, optimizer), found.preconditioner)


def test_what_is_left_out_is_said():
    weights, optimizer = stepped("adam", 0)
    assert "before its first step" in read(optimizer, weights).no_own_edge
    assert read(optimizer, weights).preconditioner is None
    assert len(optimizer.state) == 0, "reading makes no entries"
    with pytest.raises(UsageError, match="expected an optimizer that has made a step"):
        preconditioner(nn.ParameterList(weights), optimizer)
    weights, optimizer = stepped("sgd", 1)
    optimizer.param_groups[0]["lr"] = 0.0
    assert read(optimizer, weights).no_edge == "the learning rate is 0"
    two = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.01}], lr=0.1)
    assert "groups differ" in read(two, weights).no_edge
    assert read(two, weights).own_edge == pytest.approx(20)
    assert read(two, weights).preconditioner.tolist() == [1.0] * 6 + [10.0] * 6
    half = torch.optim.SGD(weights[:1], lr=0.1)
    assert "fixed" in read(half, weights).no_edge
    assert read(half, weights).preconditioner.tolist() == [1.0] * 6 + [math.inf] * 6
    for other, words in (
        (torch.optim.Adagrad(weights), "expected an optimizer whose edge is known, found Adagrad"),
        (torch.optim.SGD(weights, lr=0.1, maximize=True), "found maximize=True"),
        (torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), "holds none of them"),
    ):
        with pytest.raises(UsageError, match=words):
            read(other, weights)


def test_an_unknown_optimizer_is_watched_without_an_edge():
    net = nn.Linear(2, 1)
    batch = (torch.ones(3, 2), torch.ones(3, 1))
    measures = ["lambda_max", "preconditioned_lambda_max", "critical_sharpness"]
    watch = Watch(net, nn.MSELoss(), batch, measures=measures, optimizer=torch.optim.Adagrad(net.parameters()))
    check = watch(0)
    assert check is not None
    assert check.edges == {}
    assert check.measures["lambda_max"].converged
    assert "no optimizer" in (check.measures["preconditioned_lambda_max"].reason or "")
    assert any("Adagrad" in line for line in watch.history.remarks)
