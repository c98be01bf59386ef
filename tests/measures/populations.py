"""Populations that are not ours to choose, each with a small trained network: packages' data sets, and one with long tails."""

from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import nn

NAMES = ("digits", "breast_cancer", "wine", "diabetes", "long-tailed")


@cache
def population(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    """Network, loss, inputs and targets of all samples, float64; the value on all of them is the truth."""
    random = np.random.default_rng(0)
    if name == "long-tailed":  # house prices by incomes and areas, as it were: log-normal inputs, squared error
        x = random.lognormal(0.0, 0.75, (5000, 5))
        y = np.log1p(x @ [1.0, 0.5, 0.3, 0.2, 0.1]) + 0.3 * random.standard_normal(5000)
        x /= x.std(0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    if name == "digits":
        x = x @ np.linalg.svd(x, full_matrices=False)[2][:8].T / 3
    classes = name in ("digits", "breast_cancer", "wine")
    inputs = torch.from_numpy(np.ascontiguousarray(x))
    targets = torch.from_numpy(y if classes else ((y - y.mean()) / y.std())[:, None])
    torch.manual_seed(0)
    outputs = int(y.max()) + 1 if classes else 1
    model = nn.Sequential(nn.Linear(x.shape[1], 6), nn.Tanh(), nn.Linear(6, outputs)).double()
    loss: nn.Module = nn.CrossEntropyLoss() if classes else nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    return model, loss, inputs, targets


@cache
def curvatures(name: str) -> dict[str, np.ndarray]:
    """Every sample's own Hessian "H" (N, P, P), gradient "g" (N, P) and "loss" (N,), by torch.func; and the weights "w"."""
    model, loss, x, y = population(name)
    names = [n for n, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    w = torch.cat([p.detach().flatten() for p in model.parameters()])

    def own(w, a, b):
        parts = w.split([s.numel() for s in shapes])
        weights = {n: t.view(s) for n, t, s in zip(names, parts, shapes, strict=True)}
        return loss(torch.func.functional_call(model, weights, (a[None],)), b[None])

    def each(function):
        mapped = torch.func.vmap(function, (None, 0, 0))
        pieces = [mapped(w, x[i : i + 100], y[i : i + 100]).detach().numpy() for i in range(0, len(x), 100)]
        return np.concatenate(pieces)

    return {"H": each(torch.func.hessian(own)), "g": each(torch.func.grad(own)), "loss": each(own), "w": w.numpy()}
