"""Li et al.'s method, step by step as their paper and figures do it, beside `plane` on the same network and directions.

The reference walks over the grid, writes theta + a d1 + b d2 into a copy of the model tensor by tensor, and averages the loss
over a DataLoader in eval mode. It knows nothing of flat vectors, and shares no line with what it checks.
"""

import copy

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.objective import Objective
from landscape.surfaces import plane, random_direction
from landscape.tasks.networks import build

ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}


def normalized(direction: list[torch.Tensor], weights: list[torch.Tensor], norm: str, ignore: str) -> list[torch.Tensor]:
    """Section 4: each filter of the direction gets the norm of the network's own; one-dimensional tensors zero on request."""
    out = []
    for d, w in zip(direction, weights, strict=True):
        if d.dim() <= 1:
            moved = torch.zeros_like(d) if ignore == "biasbn" else d * (w.norm() / d.norm())
        elif norm == "filter":
            moved = torch.stack([dj * (wj.norm() / dj.norm()) for dj, wj in zip(d, w, strict=True)])
        else:
            moved = d * (w.norm() / d.norm())
        out.append(moved if norm != "none" or (d.dim() <= 1 and ignore == "biasbn") else d)
    return out


@torch.no_grad()
def surface(
    model: nn.Module, directions: list[list[torch.Tensor]], loader: DataLoader, at: np.ndarray
) -> dict[str, np.ndarray]:
    """Loss and accuracy on the grid."""
    net = copy.deepcopy(model).eval()
    weights = [p.data.clone() for p in net.parameters()]
    loss, accuracy = np.zeros((len(at), len(at))), np.zeros((len(at), len(at)))
    for i, a in enumerate(at):
        for j, b in enumerate(at):
            for p, w, d1, d2 in zip(net.parameters(), weights, *directions, strict=True):
                p.data = w + (d1 * float(a) + d2 * float(b)).to(w.dtype)
            total, right, count = 0.0, 0, 0
            for x, y in loader:
                output = net(x)
                total += float(nn.functional.cross_entropy(output, y)) * len(x)
                right += int((output.argmax(1) == y).sum())
                count += len(x)
            loss[i, j], accuracy[i, j] = total / count, right / count
    return {"loss": loss, "accuracy": accuracy}


def network(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network with statistics of its own, and data."""
    g = torch.Generator().manual_seed(3)
    if name == "cases":
        model, _, x, y = CASES[3].make(0)
        return model, x, y
    model = build(name, seed=1, channels=1, width=4, **({"blocks": 1} if name == "resnet20" else {}))
    x, y = torch.randn(40, 1, 8, 8, generator=g), torch.randint(0, 10, (40,), generator=g)
    with torch.no_grad():
        model.train()
        for _ in range(20):
            model(x)
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g)
    return model.eval(), x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "norm", "ignore"),
    [
        ("cases", "filter", "biasbn"),
        ("cases", "filter", ""),
        ("cases", "layer", "biasbn"),
        ("cases", "layer", ""),
        ("cases", "none", "biasbn"),
        ("cases", "none", ""),
        ("digits-cnn", "filter", "biasbn"),
        ("resnet20", "filter", "biasbn"),
        ("resnet20", "filter", ""),
    ],
)
def test_a_plane_is_li_s_on_the_same_network_with_the_same_directions(name, norm, ignore, dtype):
    model, x, y = network(name)
    model, x = model.to(dtype), x.to(dtype)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype=dtype)
    zero = ("bias", "norm") if ignore else ()
    axes = tuple(random_direction(objective, seed=s, norm=norm, zero=zero) for s in (11, 12))
    theirs = []
    for s, d in zip((11, 12), axes, strict=True):
        g = torch.Generator().manual_seed(s)
        flat = torch.randn(sum(p.numel() for p in model.parameters()), generator=g, dtype=torch.float64)
        pieces = flat.split([p.numel() for p in model.parameters()])
        raw = [r.reshape(p.shape) for r, p in zip(pieces, model.parameters(), strict=True)]
        theirs.append(normalized(raw, [p.detach().double() for p in model.parameters()], norm, ignore))
        together = torch.cat([t.reshape(-1) for t in theirs[-1]]).to(dtype)
        torch.testing.assert_close(d.vector, together, rtol=ROUNDING[dtype], atol=0)
    span = 1.0 if norm != "none" else 0.1
    expected = surface(model, theirs, DataLoader(TensorDataset(x, y), batch_size=7), np.linspace(-span, span, 5))
    found = plane(objective, axes, span=(-span, span), grid=5)
    scale = np.abs(expected["loss"]).max()
    np.testing.assert_allclose(found.values["loss"], expected["loss"], rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * scale)
    assert np.abs(found.values["accuracy"] - expected["accuracy"]).max() <= (1.01 / len(x) if dtype == torch.float32 else 1e-12)
    assert np.ptp(expected["loss"]) > 0.01  # a surface, not a constant
    assert found.check.passed, found.check.lines()
