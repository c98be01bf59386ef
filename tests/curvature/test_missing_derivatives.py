"""Operations whose second derivative PyTorch lacks or has wrong, held to the values and dense Hessians of plain loops."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.curvature.double_backward import LACKING, twice_differentiable, written_out
from landscape.curvature.method import Method
from landscape.objective import Objective

IDS = torch.tensor([[0, 1, 3], [2, 2, 1]])
FLAT, OFFSETS = torch.tensor([0, 1, 3, 2, 2, 1]), torch.tensor([0, 2, 2])
TARGET = torch.tensor([0, 2, 1, 0, 2])
MANY = torch.tensor([[0, 2, -1], [1, -1, 0], [-1, 0, 1], [2, 1, 0], [2, 2, -1]])
SHARE = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


def distances(x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """Row by row; what coincides has distance 0 and no derivative."""
    rows = []
    for a in x:
        for b in y:
            gap = (a - b).abs()
            if not bool(gap.any()):
                rows.append(gap.sum() * 0)
            else:
                rows.append(gap.max() if p == math.inf else sum(g**p for g in gap if g > 0) ** (1 / p))
    return torch.stack(rows).view(len(x), len(y))


def margins(x: Tensor, p: int, margin: float, weight: Tensor) -> Tensor:
    rows = []
    for row, y in zip(x, TARGET.tolist(), strict=True):
        total = sum((margin - row[y] + row[j]).clamp_min(0) ** p for j in range(3) if j != y)
        rows.append(weight[y] * total / 3)
    return torch.stack(rows)


def many_margins(x: Tensor) -> Tensor:
    total = x.new_zeros(())
    for row, targets in zip(x, MANY.tolist(), strict=True):
        own = targets[: targets.index(-1)] if -1 in targets else targets
        for y in own:
            for j in range(3):
                if j not in own:
                    total = total + (1 - row[y] + row[j]).clamp_min(0) / 3
    return total


def normed(v: Tensor, g: Tensor, dim: int) -> Tensor:
    """w = g v / |v|, index by index."""
    parts = []
    for v_i, g_i in zip(v.unbind(dim), g.unbind(dim), strict=True):
        parts.append(g_i * v_i / sum(e**2 for e in v_i.reshape(-1)) ** 0.5)
    return torch.stack(parts, dim)


def bags(w: Tensor, rows: list[list[int]], mode: str) -> Tensor:
    out = []
    for bag in rows:
        picked = torch.stack([w[i] for i in bag]) if bag else w.new_zeros(1, w.shape[1])
        out.append({"sum": picked.sum(0), "mean": picked.mean(0), "max": picked.amax(0)}[mode])
    return torch.stack(out)


# Operation, the same thing in loops, and the shapes of the inputs.
Case = tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[tuple[int, ...], ...]]
OPERATIONS: dict[str, Case] = {
    "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), lambda x: (x / 2 + 0.5).clamp(0, 1), ((5, 3),)),
    "hardsigmoid in place": (
        lambda x: F.hardsigmoid(3 * x, inplace=True) * x,
        lambda x: (x / 2 + 0.5).clamp(0, 1) * x,
        ((5, 3),),
    ),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), lambda v, g: normed(v, g, 0), ((4, 2, 3), (4, 1, 1))),
    "weight_norm of the last": (lambda v, g: torch._weight_norm(v, g, 1), lambda v, g: normed(v, g, 1), ((4, 3), (1, 3))),
    "weight_norm of the middle": (
        lambda v, g: torch._weight_norm(v, g, 1),
        lambda v, g: normed(v, g, 1),
        ((4, 2, 3), (1, 2, 1)),
    ),
    "weight_norm of all": (
        lambda v, g: torch._weight_norm(v, g, -1),
        lambda v, g: normed(v[None], g[None], 0)[0],
        ((4, 3), ()),
    ),
    "cdist": (torch.cdist, distances, ((5, 3), (4, 3))),
    "cdist of many": (torch.cdist, distances, ((27, 2), (3, 2))),
    "cdist in a batch": (
        torch.cdist,
        lambda x, y: torch.stack([distances(a, y) for a in x]),
        ((2, 5, 3), (4, 3)),
    ),
    "cdist to itself": (lambda x: torch.cdist(x, x), lambda x: distances(x, x), ((5, 3),)),
    "cdist, coinciding": (
        lambda x, y: torch.cdist(torch.cat([x, y[:1]]), y),
        lambda x, y: distances(torch.cat([x, y[:1]]), y),
        ((3, 2), (4, 2)),
    ),
    "cdist far from zero": (
        lambda x, y: torch.cdist(x + 1e4, y + 1e4),
        lambda x, y: distances(x + 1e4, y + 1e4),
        ((5, 3), (4, 3)),
    ),
    "cdist, p = 1": (lambda x, y: torch.cdist(x, y, 1.0), lambda x, y: distances(x, y, 1.0), ((5, 3), (4, 3))),
    "cdist, p = 3": (lambda x: torch.cdist(x, x, 3.0), lambda x: distances(x, x, 3.0), ((5, 3),)),
    "cdist, maximum": (
        lambda x, y: torch.cdist(x, y, math.inf),
        lambda x, y: distances(x, y, math.inf),
        ((5, 3), (4, 3)),
    ),
    "pdist": (F.pdist, lambda x: distances(x, x)[torch.ones(5, 5).triu(1) > 0], ((5, 3),)),
    "embedding, by frequency": (
        lambda w: F.embedding(IDS, w, scale_grad_by_freq=True),
        lambda w: torch.stack([torch.stack([w[i] for i in row]) for row in IDS.tolist()]),
        ((4, 3),),
    ),
    "embedding, sparse": (lambda w: F.embedding(IDS, w, sparse=True), lambda w: w[IDS], ((4, 3),)),
    "embedding_bag": (lambda w: F.embedding_bag(IDS, w), lambda w: bags(w, IDS.tolist(), "mean"), ((4, 3),)),
    "embedding_bag, offsets": (
        lambda w: F.embedding_bag(FLAT, w, OFFSETS, mode="sum"),
        lambda w: bags(w, [[0, 1], [], [3, 2, 2, 1]], "sum"),
        ((4, 3),),
    ),
    "embedding_bag, maximum": (
        lambda w: F.embedding_bag(IDS, w, mode="max"),
        lambda w: bags(w, IDS.tolist(), "max"),
        ((4, 3),),
    ),
    "embedding_bag, weighted": (
        lambda w, s: F.embedding_bag(IDS, w, mode="sum", per_sample_weights=s),
        lambda w, s: (w[IDS] * s[..., None]).sum(1),
        ((4, 3), (2, 3)),
    ),
    "multi_margin": (
        lambda x: F.multi_margin_loss(x, TARGET, reduction="none"),
        lambda x: margins(x, 1, 1.0, torch.ones(3, dtype=x.dtype)),
        ((5, 3),),
    ),
    "multi_margin, squared": (
        lambda x: F.multi_margin_loss(x, TARGET, p=2, margin=0.7, weight=SHARE),
        lambda x: margins(x, 2, 0.7, SHARE).mean(),
        ((5, 3),),
    ),
    "multilabel_margin": (lambda x: F.multilabel_margin_loss(x, MANY, reduction="sum"), many_margins, ((5, 3),)),
}  # fmt: skip


def drawn(shapes: tuple[tuple[int, ...], ...], seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]


def bowl(y: Tensor) -> Tensor:
    """A scalar with curvature of its own, a different one for every output."""
    return (y.pow(3) / 3 + y * torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).sin()).sum()


def hessian(value: Tensor, xs: list[Tensor], together: bool = False) -> tuple[Tensor, Tensor]:
    """Gradient and dense Hessian by reverse over reverse, row by row or all at once."""
    slope = torch.cat([t.reshape(-1) for t in torch.autograd.grad(value, xs, create_graph=True)])
    if together:
        eye = torch.eye(len(slope), dtype=slope.dtype)
        parts = torch.autograd.grad(slope, xs, eye, is_grads_batched=True, materialize_grads=True)
        return slope.detach(), torch.cat([t.reshape(len(eye), -1) for t in parts], 1)
    rows = [torch.autograd.grad(s, xs, retain_graph=True, materialize_grads=True) for s in slope]
    return slope.detach(), torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_value_gradient_and_hessian_are_those_of_plain_loops(name: str, together: bool) -> None:
    operation, loops, shapes = OPERATIONS[name]
    xs = drawn(shapes, 0)
    with torch.no_grad():
        torch.testing.assert_close(operation(*xs), loops(*xs), rtol=1e-6, atol=1e-6)  # cdist of many loses half the digits
    with twice_differentiable():
        found = operation(*xs)
    wanted = loops(*xs)
    far = 1e-6 if "far" in name else 1e-10
    torch.testing.assert_close(found, wanted, rtol=far, atol=far)
    for ours, theirs in zip(hessian(bowl(found), xs, together), hessian(bowl(wanted), xs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=far, atol=far)


def test_every_replacement_is_used_by_some_operation_here(monkeypatch) -> None:
    called = set()
    for func, ours in LACKING.items():

        def noted(*args, ours=ours, func=func, **kwargs):
            found = ours(*args, **kwargs)
            if found is not NotImplemented:
                called.add(func)
            return found

        monkeypatch.setitem(LACKING, func, noted)
    for operation, _, shapes in OPERATIONS.values():
        with twice_differentiable():
            operation(*drawn(shapes, 0))
    assert called == set(LACKING)


ACTIVATIONS = [n for n in nn.modules.activation.__all__ if n != "MultiheadAttention"]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_pytorch_against_differences_of_gradients(name: str, both: bool) -> None:
    options = {"Threshold": (0.1, 0.0)}.get(name, (-1,) if name in ("Softmax", "LogSoftmax", "Softmin", "GLU") else ())
    layer = getattr(nn, name)(*options).double().eval()
    (x,), (v,) = drawn(((2, 3, 4, 2),), 0), drawn(((2, 3, 4, 2),), 1)
    x = (2.5 * x.detach()).requires_grad_()

    def slope(at: Tensor) -> Tensor:
        with twice_differentiable(), written_out(0 if both else 10**9):
            value = bowl(layer(at))
        return torch.autograd.grad(value, at, create_graph=True)[0]

    (product,) = torch.autograd.grad(slope(x), x, v)
    step = 1e-6
    ends = [slope((x + h * v).detach().requires_grad_()).detach() for h in (step, -step)]
    torch.testing.assert_close(product, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-5)


def test_what_a_replacement_does_not_know_is_pytorchs_own() -> None:
    (x, w) = (t.detach() for t in drawn(((5, 3), (4, 3)), 0))
    calls: list[Callable[[], Tensor]] = [
        lambda: torch.cdist(x, w, 0.0),
        lambda: torch.cdist(x[:0], w),
        lambda: F.embedding_bag(IDS, w, padding_idx=1),
        lambda: F.embedding_bag(FLAT, w, torch.tensor([0, 2, 4]), include_last_offset=True),
        lambda: F.multi_margin_loss(x[0], TARGET[0]),
        lambda: F.multilabel_margin_loss(x[0], MANY[0]),
    ]
    for call in calls:
        with twice_differentiable():
            found = call()
        torch.testing.assert_close(found, call(), equal_nan=True)


class Prototypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l, self.p = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.l(x), self.p)


class Explicit(nn.Module):
    """A linear layer of norm g along v, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.v, self.b = (nn.Parameter(torch.empty(s)) for s in ((5, 1), (5, 4), 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.g * self.v / self.v.square().sum(1, keepdim=True).sqrt()).T + self.b


def by_hand(kind: str) -> tuple[nn.Module, nn.Module, list[str]]:
    """A network, the same one in elementary operations, and the first one's names in the other's order."""
    if kind == "hardsigmoid":
        net = nn.Sequential(nn.Linear(4, 5), nn.Hardsigmoid(inplace=True), nn.Linear(5, 3))
        return (
            net,
            nn.Sequential(net[0], nn.Hardtanh(-3, 3), Affine(1 / 6, 0.5), net[2]),
            [n for n, _ in net.named_parameters()],
        )
    if kind == "cdist":
        net = Prototypes()
        return net, Loops(net), ["l.weight", "l.bias", "p"]
    old = kind == "old weight_norm"
    wrap = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    net = nn.Sequential(wrap(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    plain = Explicit()
    names = ["weight_g", "weight_v"] if old else [f"parametrizations.weight.original{i}" for i in (0, 1)]
    values = dict(net[0].named_parameters())
    plain.g, plain.v, plain.b = (values[n] for n in (*names, "bias"))
    return net, nn.Sequential(plain, nn.Tanh(), net[2]), [*(f"0.{n}" for n in (*names, "bias")), "2.weight", "2.bias"]


class Affine(nn.Module):
    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x + self.b


class Loops(nn.Module):
    def __init__(self, net: Prototypes) -> None:
        super().__init__()
        self.l, self.p = net.l, net.p

    def forward(self, x: Tensor) -> Tensor:
        return -distances(self.l(x), self.p)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("way", ["chosen", "together", "written out"])
@pytest.mark.parametrize("kind", ["hardsigmoid", "cdist", "old weight_norm", "new weight_norm"])
def test_products_of_an_objective_are_those_of_elementary_operations(kind: str, way: str) -> None:
    torch.manual_seed(0)
    net, plain, names = by_hand(kind)
    net, plain = net.double(), plain.double()  # one set of parameters
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.randint(3, (12,))
    held = dict(net.named_parameters())
    _, wanted = hessian(F.cross_entropy(plain(x), y), [held[n] for n in names])
    objective = Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=7)
    objective.preflight()
    if way != "chosen":
        objective = objective.by(Method(together=way == "together", written_out=way == "written out", smallest=0))
    found = objective.hvp(torch.eye(objective.dim, dtype=torch.float64))
    entries = {e.name: range(e.start, e.stop) for e in objective.layout}
    order = torch.tensor([i for n in names for i in entries[n]])
    torch.testing.assert_close(found[order][:, order], wanted, rtol=1e-10, atol=1e-10)


def test_a_hinge_loss_can_be_differentiated() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.randint(3, (12,))
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def plain(out: Tensor) -> Tensor:
        each = [sum((1 - row[k] + row[j]).clamp_min(0) ** 2 for j in range(3) if j != k) / 3 for row, k in zip(out, y)]  # noqa: B905 - of one length
        return torch.stack(each).mean()

    _, wanted = hessian(plain(net(x)), list(net.parameters()))
    objective = Objective(net, nn.MultiMarginLoss(p=2), (x, y), dtype="float64")
    torch.testing.assert_close(objective.hvp(torch.eye(objective.dim, dtype=torch.float64)), wanted, rtol=1e-10, atol=1e-10)
