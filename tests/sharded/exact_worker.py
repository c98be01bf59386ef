"""One of several gloo processes: exact products of sharded networks, held against dense Hessians in float64.

Started by test_exact_products.py under torchrun. Every process checks its own part; an error ends all of them.
"""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sharded_worker import Collectives, Gpt, dense, language_model, near, padded_tokens, task, whole
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import landscape as ls
from landscape.errors import NumericalError, UsageError

TIGHT = 1e-10


class Block(nn.Module):
    """Two tensors in, a tuple out, one of them whole numbers; a mask by keyword."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 5), nn.Linear(5, width, bias=False)

    def forward(self, x: Tensor, other: Tensor, *, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x + self.second(torch.tanh(self.first(x) * scale)) * other, {"rows": torch.arange(len(x)), "other": other}


class Stack(nn.Module):
    """Two wrapped blocks, one of them called twice, and a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = Block(7), Block(7), nn.LayerNorm(7)
        self.b.second.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.full((5,), 1.5, dtype=x.dtype)
        x, told = self.a(x, x.sin(), scale=scale)
        x, told = self.b(x, told["other"], scale=scale)
        assert told["rows"].tolist() == list(range(len(x)))
        return self.a(self.norm(x), x, scale=scale)[0]


class Nested(nn.Module):
    """A wrapped stack of wrapped blocks; an embedding that is the head, too; frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.stack, self.head = nn.Embedding(11, 7), Stack(), nn.Linear(7, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.stack(self.embed(ids))).transpose(1, 2)


def network(kind: str):
    """Network, loss, batches and the modules that are wrapped apart."""
    if kind == "nested":
        torch.manual_seed(3)
        net, ids = Nested().double(), torch.randint(0, 11, (5, 4))
        return (
            net,
            nn.CrossEntropyLoss(),
            [(ids[i : i + 2], ids[i : i + 2].flip(1)) for i in (0, 2, 4)],
            [net.stack.a, net.stack.b, net.stack],
        )
    net, loss, batches = task(kind, torch.float64)
    return net, loss, batches, [net.inner, net.last] if kind == "mlp" else [net.mix, net.out]


def sharded(kind: str, mesh, **options):
    net, loss, batches, layers = network(kind)
    for layer in layers:
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(net, mesh=mesh, **options)
    return net, loss, batches


def varying(net: nn.Module) -> Tensor:
    """Which entries of the vector of all weights vary."""
    return torch.cat([torch.full((p.numel(),), p.requires_grad) for p in net.parameters()])


def checked(kind: str, mesh) -> dict[str, object]:
    plain, loss, batches, layers = network(kind)
    keep = varying(plain)
    _, gradient, matrix = dense(plain, loss, batches)
    gradient, matrix = gradient[keep], matrix[keep][:, keep]
    net, loss, batches = sharded(kind, mesh)
    if kind == "nested":
        assert net.head.weight is net.embed.weight
    hooks = [(dict(m._forward_pre_hooks), dict(m._forward_hooks)) for m in net.modules()]
    stored = [dict(m._parameters) for m in net.modules()]
    objective = ls.ShardedObjective(net, loss, batches)
    assert objective.products.name == "exact"
    v = objective.weights.random(5, "gaussian")
    with Collectives() as counted:
        image = objective.hvp(v)
    near(whole(objective, image), matrix @ whole(objective, v), TIGHT)
    near(whole(objective, objective.exact_products().gradient_and_product(v)[0]), gradient, TIGHT)
    assert objective.products.collectives == sum(counted.counts.values()), "the result counts its collectives"
    near(whole(objective, objective.products.with_error(v).vector), matrix @ whole(objective, v), TIGHT)
    (two,) = {len(objective.products(torch.stack((v, image))))}
    assert two == 2

    true = torch.linalg.eigvalsh(matrix).flip(0).numpy()
    pairs = objective.eigenpairs(2, which="both", tol=1e-8, max_matvecs=400)
    assert pairs.converged.all()
    assert pairs.products == "exact"
    assert "exact" in pairs.estimate(0).reason
    np.testing.assert_allclose(pairs.values, [*true[:2], *true[-2:]], rtol=0, atol=TIGHT * abs(true).max())
    for u, value in zip(pairs.vectors, pairs.values, strict=True):
        w = whole(objective, u)
        assert float((matrix @ w - value * w).norm()) <= 2e-8 * abs(true).max()
    trace = objective.trace(probes=8)
    forms = np.array(
        [float(z @ matrix @ z) for z in (whole(objective, objective.weights.random(i, "rademacher")) for i in range(8))]
    )
    assert abs(trace.value - forms.mean()) <= TIGHT * abs(forms).max()
    assert trace.stderr == pytest.approx(forms.std(ddof=1) / 8**0.5, rel=1e-9)
    assert trace.reason == "products: exact"

    # One batch for each process: the graph of the gradient is kept, and the product is the same.
    few = [tuple(torch.cat([b[i] for b in batches[:2]]) for i in (0, 1)), *batches[2:]][: dist.get_world_size()]
    kept = ls.ShardedObjective(net, loss, few, method="exact")
    one, _, small = (m for m in dense(network(kind)[0], loss, few))
    assert np.isfinite(one)
    small = small[keep][:, keep]
    for seed in (5, 6):
        v = kept.weights.random(seed, "gaussian")
        with Collectives() as again:
            image = kept.hvp(v)
        near(whole(kept, image), small @ whole(kept, v), TIGHT)
    # What the user left: hooks, weights in their places.
    assert hooks == [(dict(m._forward_pre_hooks), dict(m._forward_hooks)) for m in net.modules()]
    assert all(
        a is b
        for m, s in zip(net.modules(), stored, strict=True)
        for a, b in zip(m._parameters.values(), s.values(), strict=True)
    )
    assert not any("forward" in vars(m) for m in net.modules())
    calls, outer = (3, 2) if kind == "nested" else (len(layers), 1)  # layers that run in a pass; wrapped around others
    return {
        "hvp": counted.counts, "kept": again.counts, "calls": calls, "outer": outer,
        "steps": -(-len(batches) // dist.get_world_size()), "lambda_max": pairs.values[0], "trace": trace.value,
    }  # fmt: skip


class Beside(nn.Module):
    """A layer that reads a tensor which is no argument of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(5, 5), None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.seen


class Reads(nn.Module):
    """The network around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, 5), Beside(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        self.layer.seen = x
        return self.last(self.layer(x))


class Once(torch.autograd.Function):
    """A square whose backward is not differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.x * g.detach()


class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Once.apply(self.first(x)))


def refused(mesh) -> None:
    """What cannot be exact falls back with a line that says why, or is an error if exact products were asked for."""
    _, loss, batches = task("mlp", torch.float64)

    def reading() -> nn.Module:
        net = Reads().double()
        fully_shard(net.layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
        return net

    def squaring() -> nn.Module:
        net = Squares().double()
        fully_shard(net, mesh=mesh)
        return net

    def rounding() -> nn.Module:
        return sharded("mlp", mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.float32))[0]

    def compiled() -> nn.Module:
        net = sharded("mlp", mesh)[0]
        net.inner._compiled_call_impl = net.inner._call_impl
        return net

    for build, why in (
        (reading, "their gradient is .* from that of backward"),
        (squaring, "not symmetric|from differences of gradients"),
        (compiled, "inner is compiled"),
    ):
        if dist.get_rank() == 0:
            with pytest.warns(UserWarning, match=f"finite differences of gradients, exact .* had: .*({why})"):
                products = ls.ShardedObjective(build(), loss, batches).products
        else:
            products = ls.ShardedObjective(build(), loss, batches).products
        assert products.name == "finite differences"
        with pytest.raises(NumericalError, match=why):
            ls.ShardedObjective(build(), loss, batches, method="exact").products  # noqa: B018  # a property that does work
    from landscape.sharded.exact_products import obstacle

    assert "computes in another precision" in obstacle(rounding(), ls.ShardedObjective(*sharded("mlp", mesh)).weights)
    assert ls.ShardedObjective(*sharded("mlp", mesh), method="differences").products.name == "finite differences"
    assert ls.ShardedObjective(*sharded("mlp", mesh), step=1e-3).products.step == 1e-3
    for options in ({"method": "exact", "step": 0.1}, {"method": "other"}):
        with pytest.raises(UsageError, match='expected method="exact", "differences" or "auto"'):
            ls.ShardedObjective(*sharded("mlp", mesh), **options)


def next_token(mesh) -> None:
    """Products of a language model are those of `Objective`."""
    data, single, net = padded_tokens(), *(language_model() for _ in range(2))
    single = ls.Objective(single, ls.NextTokenLoss(), data, dtype="float64")
    assert isinstance(net.net, Gpt)
    fully_shard(net.net.mix, mesh=mesh)
    fully_shard(net, mesh=mesh)
    objective = ls.ShardedObjective(net, ls.NextTokenLoss(), data, method="exact")
    v = objective.weights.random(5, "gaussian")
    near(whole(objective, objective.hvp(v)), single.hvp(whole(objective, v)), TIGHT)


def main() -> None:
    warnings.filterwarnings("ignore", message=".*_register_pre_backward_hook.*")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {kind: checked(kind, mesh) for kind in ("mlp", "gpt", "nested")}
    refused(mesh)
    next_token(mesh)
    if dist.get_rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(found, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
