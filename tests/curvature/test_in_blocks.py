"""Losses over a vocabulary and long attention in blocks, held to PyTorch's own double backward, and their memory."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from reference import dense_hessian
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import landscape as ls
from landscape.curvature.double_backward import in_blocks as module
from landscape.curvature.double_backward import long_attention, vocabulary, vocabulary_head
from landscape.curvature.double_backward.in_blocks import in_blocks
from landscape.curvature.double_backward.row_blocks import blocks
from landscape.curvature.footprint import Live
from landscape.errors import NumericalError
from landscape.objective import Objective

D = torch.float64
V, N = 11, 7


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    """Small inputs count as large, and are cut into several blocks."""
    monkeypatch.setattr(vocabulary, "CLASSES", V)
    monkeypatch.setattr(module, "CLASSES", V)
    monkeypatch.setattr(vocabulary_head, "TOKENS", 3)
    monkeypatch.setattr(vocabulary_head, "_BYTES", {"cpu": 4 * 3 * 8})
    monkeypatch.setattr(long_attention, "KEYS", 2)
    monkeypatch.setattr(long_attention, "_BYTES", {"cpu": 1 << 10})
    monkeypatch.setattr("landscape.curvature.double_backward.row_blocks.BYTES", 3 * V * 8)


def drawn(*shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = D) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=D).to(dtype) for s in shapes]


def nodes(value: Tensor) -> set[str]:
    """Names of the graph's operations."""
    names, seen, left = set(), set(), [value.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            left += [parent for parent, _ in node.next_functions]
    return names


def twice(
    f: Callable[..., Tensor], xs: list[Tensor], ours: bool, held: int | None = None, keep: bool = False
) -> tuple[list[Tensor], set[str]]:
    """Value, gradient and a product, with or without blocks; input `held` is not varied."""
    leaves = [x.clone().requires_grad_(i != held) for i, x in enumerate(xs)]
    free = [x for x in leaves if x.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        with in_blocks(keep) if ours else nullcontext():
            value = f(*leaves)
        slope = torch.autograd.grad(value, free, create_graph=True)
        v = drawn(*(x.shape for x in free), seed=1, dtype=xs[0].dtype)
        product = torch.autograd.grad(slope, free, v, materialize_grads=True)
    return [t.detach() for t in (value, *slope, *product)], nodes(value)


def agree(f: Callable[..., Tensor], xs: list[Tensor], node: str, tol: float = 1e-10, held: int | None = None) -> None:
    """Both give the same, with probabilities that are kept and not, and the graph has this operation."""
    truth, _ = twice(f, xs, False, held)
    for keep in (False, True):
        found, names = twice(f, xs, True, held, keep)
        assert node in names
        for a, b in zip(found, truth, strict=True):
            torch.testing.assert_close(a, b, rtol=tol, atol=tol * float(b.abs().max()))


LABELS = torch.randint(0, V, (2, N), generator=torch.Generator().manual_seed(3))
PADDED = LABELS.clone()
PADDED[0, :4] = -100
CLASS_WEIGHTS = torch.rand(V, generator=torch.Generator().manual_seed(4), dtype=D)
CLASS_WEIGHTS[2] = 0
OPTIONS = {
    "mean": {}, "sum": {"reduction": "sum"}, "smoothed": {"label_smoothing": 0.1}, "class weights": {"weight": CLASS_WEIGHTS},
}  # fmt: skip
HEADS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "(B, V, T)": (lambda h, w, b, y, **o: F.cross_entropy(F.linear(h, w, b).transpose(1, 2), y, **o), "_Head"),
    "tokens in a row": (lambda h, w, b, y, **o: F.cross_entropy(F.linear(h, w).view(-1, V), y.view(-1), **o), "_Head"),
    "shifted, a product": (
        lambda h, w, b, y, **o: F.cross_entropy((h @ w.T)[:, :-1].contiguous().reshape(-1, V), y[:, 1:].reshape(-1), **o),
        "_Head",
    ),
    "function of the loss": (lambda h, w, b, y, **o: F.cross_entropy((h @ w.mT).mT, y, **o).exp(), "_Head"),
    "tied": (lambda h, w, b, y, **o: F.cross_entropy(F.linear(h + w[LABELS], w).flatten(0, 1), y.flatten(), **o), "_Head"),
    "soft cap": (lambda h, w, b, y, **o: F.cross_entropy((F.linear(h, w, b) / 3).tanh().mT, y, **o), "_Logits"),
    "scaled": (lambda h, w, b, y, **o: F.cross_entropy(2 * F.linear(h, w, b).mT, y, **o), "_Logits"),
    "written to": (lambda h, w, b, y, **o: F.cross_entropy(F.linear(h, w, b).mul_(2).mT, y, **o), "_Logits"),
}  # fmt: skip


@pytest.mark.parametrize("labels", [LABELS, PADDED], ids=["all", "padded"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("head", HEADS)
def test_cross_entropy_and_its_head(head, options, labels) -> None:
    f, node = HEADS[head]
    xs = drawn((2, N, 5), (V, 5), (V,))
    agree(lambda h, w, b: f(h, w, b, labels, **OPTIONS[options]) + b.sin().sum(), xs, f"{node}Backward")


@pytest.mark.parametrize("held", [0, 1, 2])
def test_with_one_input_held(held) -> None:
    agree(
        lambda h, w, b: F.cross_entropy(F.linear(h, w, b).mT, PADDED),
        drawn((2, N, 5), (V, 5), (V,)),
        "_HeadBackward",
        held=held,
    )


def test_in_float32() -> None:
    agree(
        lambda h, w: F.cross_entropy((h @ w.mT).float().mT, PADDED),
        drawn((2, N, 5), (V, 5), dtype=torch.float32),
        "_HeadBackward",
        2e-5,
    )


def test_logits_that_something_else_reads_too() -> None:
    def f(h: Tensor, w: Tensor) -> Tensor:
        z = h @ w.mT
        return F.cross_entropy(z.mT, LABELS) + 1e-2 * z.logsumexp(-1).square().mean()

    agree(f, drawn((2, N, 5), (V, 5)), "_HeadBackward")


def test_logits_whose_gradient_is_changed_or_cut_are_not_followed() -> None:
    def hooked(h: Tensor, w: Tensor) -> Tensor:
        z = h @ w.mT
        z.register_hook(lambda g: 2 * g)
        return F.cross_entropy(z.mT, LABELS)

    def cut(h: Tensor, w: Tensor) -> Tensor:
        with torch.no_grad():
            z = (h @ w.mT).mT
        y = F.linear(h, w)
        with torch.no_grad():
            y = y.mT
        return F.cross_entropy(z, LABELS) + F.cross_entropy(y, LABELS) + h.sin().sum() * w.cos().sum()

    agree(hooked, drawn((2, N, 5), (V, 5)), "_LogitsBackward")
    (found, names), (truth, _) = (twice(cut, drawn((2, N, 5), (V, 5)), ours) for ours in (True, False))
    assert "_HeadBackward" not in names
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_layer_whose_tensors_are_written_to_is_not_followed(which) -> None:
    """Input, matrix or bias changes before the loss; the gradient of all else is PyTorch's."""

    def f(*xs: Tensor) -> Tensor:
        used = [x.detach().clone() if i == which else x for i, x in enumerate(xs)]
        z = F.linear(*used)
        used[which].mul_(3)
        return F.cross_entropy(z.mT, LABELS) + sum(x.sin().sum() for x in xs)

    h, w, b = (x.requires_grad_() for x in drawn((2, N, 5), (V, 5), (V,)))
    with in_blocks():
        value = f(h, w, b)
    assert "_LogitsBackward" in nodes(value)
    if which == 2:  # PyTorch saves the others, and refuses
        agree(f, [h.detach(), w.detach(), b.detach()], "_LogitsBackward")


def test_labels_that_are_written_to_after_the_loss() -> None:
    def f(h: Tensor, w: Tensor) -> Tensor:
        labels = LABELS.clone()
        loss = F.cross_entropy((h @ w.mT).mT.clone(), labels)
        reused.append(labels)
        return loss

    reused: list[Tensor] = []
    h, w = (x.requires_grad_() for x in drawn((2, N, 5), (V, 5)))
    with in_blocks():
        value = f(h, w)
    reused[0].zero_()
    (slope,) = torch.autograd.grad(value, h, create_graph=True)
    found = torch.autograd.grad(slope.sin().sum(), w)[0]
    (slope,) = torch.autograd.grad(f(h, w), h, create_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(slope.sin().sum(), w)[0], rtol=1e-9, atol=1e-12)


class Cast(nn.Module):
    """A head in autocast, with a float32 layer before it."""

    def __init__(self, loss: bool = False) -> None:
        super().__init__()
        self.first, self.head, self.loss = nn.Linear(5, 8), nn.Linear(8, V), loss

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.first(x).tanh()
        with torch.autocast("cpu", torch.bfloat16):
            z = self.head(x)
            return z if y is None else F.cross_entropy(z, y)


def test_a_head_in_autocast_has_pytorchs_derivatives() -> None:
    torch.manual_seed(0)
    model, (x,), y = Cast(), drawn((12, 5), dtype=torch.float32), torch.arange(12) % V
    found = []
    for context in (in_blocks(), nullcontext()):
        with context:
            losses = F.cross_entropy(model(x).float(), y), model(x, y)
        assert not {"_HeadBackward"} & (nodes(losses[0]) | nodes(losses[1]))
        found.append([g for loss in losses for g in torch.autograd.grad(loss, list(model.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(b.abs().max()))
    for a, b in zip(found[0][4:], found[1][4:], strict=True):
        assert torch.equal(a, b)  # inside autocast nothing is replaced
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    plain = replace(objective._engine)
    plain._small.update(map(id, plain.batches))
    v = drawn((1, objective.dim), seed=1, dtype=torch.float32)[0]
    truth = plain.hvp(objective.theta, v)
    torch.testing.assert_close(objective._engine.hvp(objective.theta, v), truth, rtol=0, atol=0.02 * float(truth.abs().max()))


def test_arguments_by_name() -> None:
    agree(
        lambda h, w: F.cross_entropy(input=F.linear(input=h, weight=w).mT, target=PADDED),
        drawn((2, N, 5), (V, 5)), "_LogitsBackward",
    )  # fmt: skip
    agree(
        lambda h, w: F.cross_entropy(input=F.linear(h, w, bias=None).mT, target=PADDED),
        drawn((2, N, 5), (V, 5)),
        "_HeadBackward",
    )


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (LABELS, {"reduction": "none"}),
        (LABELS, {"weight": CLASS_WEIGHTS, "label_smoothing": 0.1}),
        (torch.rand(2, V, N, dtype=D), {}),
        (torch.full_like(LABELS, -100), {}),
    ],
    ids=["each", "smoothed with class weights", "distributions", "all ignored"],
)
def test_what_is_left_to_pytorch(target, options) -> None:
    h, w = (x.requires_grad_() for x in drawn((2, N, 5), (V, 5)))
    with in_blocks() as replaced:
        value = F.cross_entropy((h @ w.mT).mT, target, **options)
    torch.testing.assert_close(value, F.cross_entropy((h @ w.mT).mT, target, **options), equal_nan=True)
    assert not replaced.used


def test_a_wrong_label_is_told_by_pytorch() -> None:
    h, w = (x.requires_grad_() for x in drawn((2, N, 5), (V, 5)))
    with pytest.raises(IndexError, match="out of bounds"), in_blocks():
        F.cross_entropy((h @ w.mT).mT, LABELS + V)


QKV = ((2, 4, 9, 3), (2, 4, 9, 3), (2, 4, 9, 5))
BLIND = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) > 0.4
BLIND[3] = False
PADS = torch.ones(2, 1, 1, 9, dtype=torch.bool)
PADS[0, ..., 6:] = False
MASKS = {
    "none": {}, "causal": {"is_causal": True}, "scaled": {"scale": 0.3}, "a row that sees nothing": {"attn_mask": BLIND},
    "padded keys": {"attn_mask": PADS}, "keys": {"attn_mask": PADS[0, 0, 0]},
    "added": {"attn_mask": drawn((2, 4, 9, 9), seed=5)[0]}, "added to all": {"attn_mask": drawn((1, 1, 9, 9), seed=5)[0]},
}  # fmt: skip


def bowl(y: Tensor) -> Tensor:
    """A scalar with curvature of its own in every output."""
    return (y.pow(3) / 3 + y * torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).sin()).sum()


@pytest.mark.parametrize("shared", [1, 2, 4])
@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask, shared) -> None:
    q, k, v = drawn(*QKV)
    options = MASKS[mask] | {"enable_gqa": shared > 1}
    agree(
        lambda q, k, v: bowl(F.scaled_dot_product_attention(q, k, v, **options)),
        [q, k[:, ::shared].contiguous(), v[:, ::shared].contiguous()], "_AttentionBackward",
    )  # fmt: skip


def test_attention_in_float32_and_without_gradient_of_a_value() -> None:
    q, k, v = (t.float() for t in drawn((1, 2, 300, 16), (1, 2, 300, 16), (1, 2, 300, 16)))
    attend = F.scaled_dot_product_attention
    agree(lambda q, k, v: attend(q, k, v, is_causal=True).square().sum(), [q, k, v], "_AttentionBackward", 1e-5)
    agree(lambda q, k, v: bowl(attend(q, k, v)), drawn(*QKV), "_AttentionBackward", held=2)
    agree(lambda q, k, v: bowl(attend(q, k, v)), drawn(*QKV), "_AttentionBackward", held=0)


@pytest.mark.parametrize(
    "shapes", [((4, 9, 3),) * 3, ((2, 4, 5, 3), *QKV[1:]), ((2, 4, 9, 3), (2, 4, 5, 3), (2, 4, 5, 3))], ids=str
)
def test_attention_of_other_shapes(shapes) -> None:
    agree(lambda q, k, v: bowl(F.scaled_dot_product_attention(q, k, v, is_causal=True)), drawn(*shapes), "_AttentionBackward")


def test_attention_that_is_left_to_pytorch() -> None:
    q, k, v = (t.requires_grad_() for t in drawn(*QKV))
    bias = torch.zeros(9, 9, dtype=D, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), in_blocks() as replaced:
        F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
        F.scaled_dot_product_attention(q, k, v, bias)
        F.scaled_dot_product_attention(q, k[:1], v[:1])
        with torch.autocast("cpu", torch.bfloat16):
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert y.dtype == torch.bfloat16
    assert not replaced.used


@pytest.mark.parametrize("wide", [False, True])
def test_a_mask_that_is_written_to_between_layers(wide) -> None:
    """A small mask is copied; of one that is larger than the queries, the change is told instead of a wrong derivative."""

    def f(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = drawn((2, 4, 9, 9) if wide else (2, 1, 1, 9), seed=5)[0]
        y = F.scaled_dot_product_attention(q, k, v, mask)
        mask.zero_()
        return bowl(F.scaled_dot_product_attention(y[..., :3], k, v, mask))

    if wide:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            twice(f, drawn(*QKV), True)
    else:
        agree(f, drawn(*QKV), "_AttentionBackward")


def test_more_keys_than_queries_for_grouped_heads_is_told_by_pytorch() -> None:
    q, k = (t.requires_grad_() for t in drawn((2, 2, 9, 3), (2, 4, 9, 3)))
    messages = []
    for context in (in_blocks(), nullcontext()):
        with context, pytest.raises(RuntimeError) as error:
            F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "f", [lambda h, w: F.cross_entropy((h @ w.mT).mT, LABELS), lambda h, w: bowl(F.scaled_dot_product_attention(h, h, h))]
)
def test_a_third_derivative_is_refused(f) -> None:
    h, w = (x.requires_grad_() for x in drawn((2, N, 5), (V, 5)))
    with in_blocks():
        value = f(h, w)
    (slope,) = torch.autograd.grad(value, h, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(slope.square().sum(), h, create_graph=True)


class Gpt(nn.Module):
    """Embedding, causal attention, tied head; logits (B, V, T)."""

    def __init__(self, words: int = V, tokens: int = N, width: int = 6, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token, self.position = nn.Embedding(words, width), nn.Parameter(0.5 * torch.randn(tokens, width))
        self.qkv, self.norm, self.head = nn.Linear(width, 3 * width), nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight, self.heads = self.token.weight, heads

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x) + self.position
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(self.norm(x)).transpose(1, 2)


def text(words: int = V, tokens: int = N, sequences: int = 5) -> tuple[Tensor, Tensor]:
    """Random tokens, and those that follow, some of them padding."""
    found = torch.randint(0, words, (sequences, tokens + 1), generator=torch.Generator().manual_seed(0))
    y = found[:, 1:].clone()
    y[1, 3:], y[3, 1:] = -100, -100
    return found[:, :-1], y


def test_products_of_a_language_model_are_the_dense_hessians() -> None:
    """With padded rows, and the batches' different numbers of tokens."""
    model, (x, y) = Gpt(), text()
    truth = torch.from_numpy(dense_hessian(model, nn.CrossEntropyLoss(), x, y))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=2)
    v = drawn((2, objective.dim), seed=1)[0]
    torch.testing.assert_close(objective.hvp(v), v @ truth, rtol=1e-9, atol=1e-9 * float(truth.abs().max()))
    with torch.no_grad():
        expected = ls.Objective(model, lambda z, t: F.nll_loss(z.log_softmax(1), t), [(x, y)], dtype="float64")
    torch.testing.assert_close(objective.gradient(), expected.gradient(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(objective.ggnvp(v), expected.ggnvp(v), rtol=1e-9, atol=1e-10)


def test_probabilities_are_kept_where_memory_allows(monkeypatch) -> None:
    """The same products with and without; what they take is counted to the byte, and is in the plan."""
    x, v, found = text(sequences=6)[0], None, {}
    for most in (1 << 30, 0):
        monkeypatch.setattr("landscape.curvature.footprint._PROBABILITIES", most)
        objective = Objective(Gpt(), nn.CrossEntropyLoss(), (x, x), dtype="float64", batch_size=4)
        v = drawn((2, objective.dim), seed=1)[0] if v is None else v
        found[most] = objective.hvp(v), objective._engine, objective.plan
    (kept, dense, plan), (recomputed, thin, less) = found.values()
    assert dense.probabilities
    assert not thin.probabilities
    torch.testing.assert_close(kept, recomputed, rtol=1e-10, atol=1e-12)
    assert int(dense.held.each - thin.held.each) == pytest.approx(8 * N * V, rel=1e-6)  # of every sample
    assert plan.graphs > less.graphs


@pytest.mark.slow
def test_probabilities_are_not_kept_in_a_tight_budget() -> None:
    """Of a budget in which the graphs fit, but not with so many numbers more."""
    words, (x, _) = 2000, text(2000, 32, 64)
    plan = Objective(Gpt(words, 32), nn.CrossEntropyLoss(), (x, x)).plan
    tight = Objective(Gpt(words, 32), nn.CrossEntropyLoss(), (x, x), memory=plan.fixed + plan.graphs)
    assert tight.plan.kept
    assert tight.plan.fixed + tight.plan.graphs < tight.plan.budget
    assert not tight._engine.probabilities


def test_gauss_newton_products_leave_later_passes_in_blocks(monkeypatch) -> None:
    """They end at the outputs, and must not mark a batch as one without anything large."""
    counted = []
    right = vocabulary_head._Head.apply
    monkeypatch.setattr(vocabulary_head._Head, "apply", lambda *args: counted.append(1) or right(*args))
    torch.manual_seed(0)
    x, y = drawn((6, 5))[0], torch.arange(6) % V  # no attention: only the loss is large
    objective = Objective(nn.Linear(5, V), nn.CrossEntropyLoss(), (x, y), dtype="float64")
    engine, v = objective._engine, drawn((1, objective.dim), seed=1)[0]
    engine.ggnvp(objective.theta, v)
    assert not counted
    engine.gradient(objective.theta)
    assert len(counted) == 1
    engine.hvp(objective.theta, v)
    assert len(counted) > 1
    assert not engine._small


def test_a_loss_that_the_model_computes_itself() -> None:
    model, (x, y) = Gpt(), text()

    def own(model, batch):
        z = model(batch["x"]).transpose(1, 2)
        return (
            F.cross_entropy(z[:, :-1].reshape(-1, V), batch["y"][:, :-1].reshape(-1), reduction="sum") / (batch["y"] >= 0).sum()
        )

    found = Objective(model, ls.ModelLoss(own), [{"x": x, "y": y}], dtype="float64")
    v = drawn((1, found.dim), seed=1)[0]
    product = found.hvp(v)
    assert not found._engine._small  # computed in blocks
    plain = replace(found._engine)
    plain._small.update(map(id, plain.batches))
    torch.testing.assert_close(product, plain.hvp(found.theta, v), rtol=1e-9, atol=1e-12)


def test_the_check_before_the_first_product_tests_what_is_computed_in_blocks(monkeypatch) -> None:
    right = vocabulary_head._bend

    def wrong(*args):
        to_h, to_w, to_b = right(*args)
        return 1.5 * to_h, to_w, to_b

    monkeypatch.setattr(vocabulary_head, "_bend", wrong)
    with pytest.raises(NumericalError, match=r"symmetric Hessian|finite difference"):
        Objective(Gpt(), nn.CrossEntropyLoss(), text()).preflight()


def peak(f: Callable[[], Tensor], leaves: list[Tensor]) -> int:
    """Bytes alive at once in gradient and product, by counting every tensor."""
    with Live() as live, sdpa_kernel(SDPBackend.MATH):
        with in_blocks():
            value = f()
        slope = torch.autograd.grad(value, leaves, create_graph=True)
        del value
        torch.autograd.grad(slope, leaves, [torch.ones_like(x) for x in leaves])
    return live.peak


def test_memory_of_attention_grows_with_the_sequence(monkeypatch) -> None:
    monkeypatch.undo()
    bytes_of = {}
    for length in (512, 1024, 2048):
        xs = [x.requires_grad_() for x in drawn(*((1, 2, length, 8),) * 3, dtype=torch.float32)]
        bytes_of[length] = peak(lambda xs=xs: F.scaled_dot_product_attention(*xs, is_causal=True).square().sum(), xs)
    # The blocks are as large for every length: 4 MiB a matrix, of which 2048 x 2048 scores would take 32 in all.
    assert bytes_of[2048] <= 2 * bytes_of[1024]
    assert bytes_of[2048] < 40 << 20
    xs = [x.requires_grad_() for x in drawn(*((1, 2, 2048, 8),) * 3, dtype=torch.float32)]
    with monkeypatch.context() as whole:
        whole.setattr(long_attention, "KEYS", math.inf)
        assert peak(lambda: F.scaled_dot_product_attention(*xs, is_causal=True).square().sum(), xs) > 5 * bytes_of[2048]


def test_no_graph_of_tokens_by_classes(monkeypatch) -> None:
    monkeypatch.undo()
    tokens, classes = 4096, 5000
    h, w = (x.requires_grad_() for x in drawn((tokens, 16), (classes, 16), dtype=torch.float32))
    y = torch.randint(0, classes, (tokens,), generator=torch.Generator().manual_seed(0))
    found = peak(lambda: F.cross_entropy(h @ w.mT, y), [h, w])
    with monkeypatch.context() as whole:
        whole.setattr(vocabulary, "CLASSES", math.inf)
        before = peak(lambda: F.cross_entropy(h @ w.mT, y), [h, w])
    assert found < 1.5 * 4 * tokens * classes  # the logits of the forward pass, and blocks
    assert found < 0.35 * before


def test_blocks_cover_all_rows() -> None:
    assert [(b.start, b.stop) for b in blocks(7, 10, 30)] == [(0, 3), (3, 6), (6, 7)]
    assert [(b.start, b.stop) for b in blocks(2, 1000, 30)] == [(0, 1), (1, 2)]


def test_large_samples_are_checked_on_fewer_of_them(monkeypatch) -> None:
    objective = Objective(Gpt(), nn.CrossEntropyLoss(), text(sequences=20))
    objective.preflight()
    assert objective._engine.few == 8
    monkeypatch.setattr("landscape.curvature.footprint._CHECKED", 1)
    small = Objective(Gpt(), nn.CrossEntropyLoss(), text(sequences=20))
    small.preflight()
    assert small._engine.few == 1
    torch.testing.assert_close(small.hvp(small.theta), objective.hvp(objective.theta), rtol=1e-4, atol=1e-6)
