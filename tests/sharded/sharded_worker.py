"""One of several gloo processes: a network sharded by `fully_shard`, held against its dense Hessian in float64.

Started by test_sharded_objective.py under torchrun. Every process checks its own part; an error ends all of them.
"""

import json
import sys
import warnings
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import landscape as ls
from landscape.errors import NumericalError, UsageError


class Collectives(TorchDispatchMode):
    """Counts collectives by name. (torch's CommDebugMode loses its place in a network that is called again in one block.)"""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func.__name__:
            self.counts[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


class Mlp(nn.Module):
    """A layer of its own in the root, which FSDP does not reshard after a forward pass without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 7)
        self.inner = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Dropout(0.5))
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(torch.tanh(self.first(x))))


class Gpt(nn.Module):
    """One block of attention with a causal mask, embeddings and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.norm, self.mix, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place.weight[: ids.shape[1]]
        q, k, v = (t.view(*ids.shape, 2, 4).transpose(1, 2) for t in self.mix(self.norm(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape))
        return self.head(x).transpose(1, 2)


def task(kind: str, dtype: torch.dtype):
    """Network, loss and batches of unequal sizes."""
    torch.manual_seed(3)
    if kind == "mlp":
        net, x = Mlp().to(dtype), torch.randn(22, 3, dtype=dtype)
        return net, nn.CrossEntropyLoss(), [(x[i : i + 5], (x[i : i + 5, 0] > 0).long()) for i in range(0, 22, 5)]
    net, ids = Gpt().to(dtype), torch.randint(0, 11, (7, 7))
    target = ids[:, 1:].clone()
    target[0, 2:] = -100
    return net, nn.CrossEntropyLoss(), [(ids[i : i + 2, :-1], target[i : i + 2]) for i in range(0, 7, 2)]


def dense(net: nn.Module, loss: nn.Module, batches) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient and Hessian of the pooled data, by torch.func on the plain network."""
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    x, y = (torch.cat([b[i] for b in batches]) for i in (0, 1))

    def value(theta: Tensor) -> Tensor:
        parts = theta.split([s.numel() for s in shapes])
        named = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return loss(torch.func.functional_call(net, named, (x,)), y)

    net.eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = float(value(flat)), torch.func.grad(value)(flat), torch.autograd.functional.hessian(value, flat)
    net.train()
    return found


def whole(objective: ls.ShardedObjective, flat: Tensor) -> Tensor:
    """The complete vector of which each process has a part."""
    parameters = objective.weights.parameters
    parts = flat.split([p.to_local().numel() for p in parameters])
    out = []
    for p, part in zip(parameters, parts, strict=True):
        local = part.view(p.to_local().shape)
        d = DTensor.from_local(local, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
        out.append(d.full_tensor().flatten())
    return torch.cat(out)


def near(a: Tensor, b: Tensor, relative: float) -> None:
    error = float((a - b).norm() / b.norm())
    assert error <= relative, (error, relative)


def checked(kind: str, dtype: torch.dtype, mesh) -> dict[str, object]:
    net, loss, batches = task(kind, dtype)
    plain = task(kind, torch.float64)[0]
    data = [(x.double() if x.is_floating_point() else x, y) for x, y in batches]
    value, gradient, matrix = dense(plain, loss, data)
    layers = [net.inner, net.last] if kind == "mlp" else [net.mix, net.out]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    # What the user left: mode, gradients, weights.
    net.train()
    before = [p.to_local().clone() for p in net.parameters()]
    objective = ls.ShardedObjective(net, loss, batches, method="differences")
    fine = dtype == torch.float64
    assert objective.dim == len(gradient)
    assert abs(objective.value().value - value) < (1e-12 if fine else 1e-5)
    near(whole(objective, objective.gradient()).double(), gradient, 1e-12 if fine else 1e-4)
    # Moved weights are those that are evaluated, also the ones that the root held whole.
    far = objective.value(objective.theta * 2).value
    assert objective.value().value != far
    assert objective.value(objective.theta * 2).value == far

    v = objective.weights.random(5, "gaussian")
    tolerance = 1e-8 if fine else 2e-2
    near(whole(objective, objective.hvp(v)).double(), matrix @ whole(objective, v).double(), tolerance)
    image, error, form = objective.products.with_error(v)
    true = matrix @ whole(objective, v).double()
    actual = float((whole(objective, image).double() - true).norm())
    assert actual <= error, (kind, dtype, actual, error)
    assert error <= (1e-6 if fine else 0.05) * float(true.norm()), (error, float(true.norm()))

    plain_form = objective.weights.dots((v, objective.hvp(v)))[0]
    assert abs(form - plain_form) <= (1e-12 if fine else 1e-5) * abs(plain_form)
    error_of = error / float(true.norm())
    exact = torch.linalg.eigvalsh(matrix).flip(0)
    pairs = objective.eigenpairs(2, which="both", tol=1e-6 if fine else 5e-3)
    assert pairs.converged.all(), pairs
    for found, true_value, residual in zip(pairs.values, torch.cat((exact[:2], exact[-2:])), pairs.residuals, strict=True):
        assert abs(found - float(true_value)) <= residual + 1e-9, (found, true_value, residual)
    for v, found in zip(pairs.vectors, pairs.values, strict=True):
        u = whole(objective, v).double()
        assert abs(float(u.norm()) - 1) < 1e-5
        assert float((matrix @ u - found * u).norm()) <= (1e-5 if fine else 5e-3) * float(exact.abs().max())
    top = objective.lambda_max()
    assert abs(top.value - float(exact[0])) <= top.stderr + 1e-9

    before_trace = objective.gradients
    trace = objective.trace(probes=8)
    assert objective.gradients - before_trace == 2 * 8 + 4, "the stated cost"
    probes = [whole(objective, objective.weights.random(i, "rademacher")).double() for i in range(8)]
    forms = np.array([float(z @ matrix @ z) for z in probes])
    assert abs(trace.value - forms.mean()) <= (1e-7 if fine else 0.03) * abs(forms).max()
    assert trace.stderr >= 0.99 * forms.std(ddof=1) / 8**0.5

    # Forward passes only.
    single = ls.Objective(plain, nn.CrossEntropyLoss(), data, dtype="float64")
    from landscape.measures.perturbation.critical_sharpness import critical_sharpness

    ours, theirs = objective.critical_sharpness(), critical_sharpness(single)
    assert abs(ours.value - theirs.value) <= ours.stderr + theirs.stderr
    noise = [whole(objective, objective.weights.random(i, "gaussian")).double() for i in range(4)]
    rises = [sum(single.value(single.theta + s * 0.1 * z).value for s in (1, -1)) / 2 - value for z in noise]
    average = objective.average_sharpness(sigma=0.1, draws=4)
    assert abs(average.value - np.mean(rises)) < 1e-4 * max(map(abs, rises)) + (0 if fine else 1e-4)
    piece = objective.surface(seeds=(0, 1), grid=3, span=0.5)
    first = whole(objective, objective.weights.like_rows(objective.weights.random(0, "gaussian"), objective.theta)).double()
    corner = single.value(single.theta + 0.5 * first).value
    assert abs(piece.values["loss"][2, 1] - corner) < (1e-9 if fine else 1e-4)
    assert abs(piece.values["loss"][1, 1] - value) < (1e-12 if fine else 1e-5)
    rows = [n.reshape(p.shape).norm(dim=1) for n, p in zip(first.split([p.numel() for p in plain.parameters()]),
                                                            plain.parameters(), strict=True) if p.ndim == 2]  # fmt: skip
    for mine, p in zip(rows, (p for p in plain.parameters() if p.ndim == 2), strict=True):
        torch.testing.assert_close(mine, p.detach().norm(dim=1), rtol=1e-5, atol=1e-5)

    with Collectives() as counted:
        objective.hvp(v)
    assert all(torch.equal(a, p.to_local()) for a, p in zip(before, net.parameters(), strict=True))
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    seen = {
        "stated": error_of,
        "actual": actual / float(true.norm()),
        "value": value,
        "hvp": counted.counts,
        "modules": len(layers) + 1,
        "steps": -(-len(batches) // dist.get_world_size()),
    }
    return seen | {
        "lambda_max": top.value,
        "trace": trace.value,
        "average": average.value,
        "piece": piece.values["loss"].tolist(),
    }


def mistakes(mesh) -> None:
    net, loss, batches = task("mlp", torch.float64)
    other = sharded(mesh)
    other.set_gradient_divide_factor(1.0)
    x, y = (torch.cat([b[i] for b in batches])[:20] for i in (0, 1))
    spread = DistributedSampler(TensorDataset(x, y), dist.get_world_size(), dist.get_rank(), shuffle=False, drop_last=True)
    own = DataLoader(TensorDataset(x, y), batch_size=3, sampler=spread)  # as in training: equal counts, other samples
    cuts = [0, 5 + dist.get_rank(), 12, 20]
    resized = [(x[a:b], y[a:b]) for a, b in pairwise(cuts)]
    for model, given, pairs, kind, words in (
        (net, loss, batches, UsageError, "weights that are sharded, found none"),
        (sharded(mesh, half=True), loss, batches, UsageError, "float32 or of float64, found torch.float16"),
        (
            sharded(mesh),
            lambda o, y: F.cross_entropy(o, y),
            batches,
            UsageError,
            "PyTorch's losses, NextTokenLoss or a ModelLoss",
        ),
        (sharded(mesh), loss, batches[: 2 + dist.get_rank()], UsageError, "the same input in all"),
        (sharded(mesh), loss, own, UsageError, r"the same input in all .* with another samples"),
        (sharded(mesh), loss, resized, UsageError, r"the same input in all .* with another samples"),
        (other, loss, batches, NumericalError, "times it along the gradient"),
    ):
        with pytest.raises(kind, match=words):
            ls.ShardedObjective(model, given, pairs)


def vanishing(mesh) -> None:
    """A deep chain, whose gradient all but vanishes, is no mistake: a step that changes its loss at all is no longer small."""
    torch.manual_seed(6)
    layers = [nn.Linear(16, 16, bias=False) for _ in range(18)]
    net = nn.Sequential(*(module for layer in layers for module in (layer, nn.Tanh())), nn.Linear(16, 3, bias=False))
    x, y = torch.randn(8, 16), torch.randint(0, 3, (8,))
    fully_shard(net, mesh=mesh)
    objective = ls.ShardedObjective(net, nn.CrossEntropyLoss(), (x, y), method="differences")
    assert float(objective.weights.dots((objective.gradient(), objective.gradient()))[0]) ** 0.5 < 1e-3


def model_loss(mesh) -> None:
    """A loss of (model, batch) is that of (output, target)."""
    _, loss, batches = task("mlp", torch.float64)
    both = ls.ModelLoss(lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    a, b = (ls.ShardedObjective(sharded(mesh), kind, batches) for kind in (loss, both))
    assert abs(a.value().value - b.value().value) < 1e-14
    assert torch.allclose(a.gradient(), b.gradient(), rtol=1e-12)


class Logits(nn.Module):
    """Logits (B, T, V) as an attribute of what is returned, beside what the loss does not take: as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Gpt()

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        logits = self.net(input_ids).transpose(1, 2)
        return {"cache": logits.detach().mean(), "logits": logits}


def language_model() -> Logits:
    """The same one at each call."""
    torch.manual_seed(3)
    return Logits().double()


def padded_tokens() -> list[dict[str, Tensor]]:
    """Batches of sequences, of which two are padded."""
    torch.manual_seed(4)
    ids = torch.randint(0, 11, (7, 6))
    labels = ids.clone()
    labels[1, 3:], labels[4, 1:] = -100, -100
    return [{"input_ids": ids[i : i + 2], "labels": labels[i : i + 2]} for i in range(0, 7, 2)]


def next_token(mesh) -> None:
    """A language model with padded labels: the loss of pooled tokens, its gradient and products are those of `Objective`."""
    data = padded_tokens()
    ids, labels = (torch.cat([batch[name] for batch in data]) for name in ("input_ids", "labels"))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        single = ls.Objective(language_model(), ls.NextTokenLoss(), data, dtype="float64")
        out = language_model().eval()(ids)["logits"][:, :-1]
        pooled = F.cross_entropy(out.flatten(0, 1), labels[:, 1:].flatten())
        net = language_model()
        fully_shard(net, mesh=mesh)
        objective = ls.ShardedObjective(net, ls.NextTokenLoss(), data, method="differences")
        assert objective.counted == {"loss_per": "token"}
        assert abs(objective.value().value - float(pooled)) < 1e-12
        near(whole(objective, objective.gradient()), single.gradient(), 1e-11)
        v = objective.weights.random(5, "gaussian")
        near(whole(objective, objective.hvp(v)), single.hvp(whole(objective, v)), 1e-7)


def sharded(mesh, half: bool = False) -> nn.Module:
    net = task("mlp", torch.float16 if half else torch.float64)[0]
    fully_shard(net, mesh=mesh)
    return net


def main() -> None:
    warnings.filterwarnings("ignore", message=".*_register_pre_backward_hook.*")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {
        f"{kind} {dtype}": checked(kind, dtype, mesh) for kind in ("mlp", "gpt") for dtype in (torch.float64, torch.float32)
    }
    mistakes(mesh)
    vanishing(mesh)
    model_loss(mesh)
    next_token(mesh)
    if dist.get_rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(found, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
