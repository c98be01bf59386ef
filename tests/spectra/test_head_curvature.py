"""Attention heads are found in every layout of their weights, and their blocks are those of a dense Hessian."""

import json

import numpy as np
import pytest
import torch
from reference import dense_hessian
from torch import Tensor, nn
from torch.nn import functional as F

import landscape as ls
from landscape.objective import Objective
from landscape.report import figure_heads
from landscape.results import Block
from landscape.spectra.block_curvature import _refined

WIDTH, TOKENS, WORDS = 8, 5, 7


class Attend(nn.Module):
    """Self-attention with a joint projection, stored as a linear layer does or as GPT-2 does, one head after another or not."""

    def __init__(self, heads: int = 2, stored: str = "linear") -> None:
        super().__init__()
        self.heads, self.stored = heads, stored
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        if stored == "transposed":
            self.qkv.weight = nn.Parameter(self.qkv.weight.detach().T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        y = (
            torch.addmm(self.qkv.bias, x.flatten(0, 1), self.qkv.weight).unflatten(0, x.shape[:2])
            if self.stored == "transposed"
            else self.qkv(x)
        )
        if self.stored == "interleaved":
            q, k, v = y.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.stored == "by hand":
            mask = torch.full((x.shape[1],) * 2, float("-inf"), dtype=x.dtype).triu(1)
            z = (q @ k.mT / 2 + mask).softmax(-1) @ v
        else:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(z.transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Llama's: four heads of queries, two of keys and values, a norm of queries and keys, no biases."""

    def __init__(self, gqa: bool = True) -> None:
        super().__init__()
        self.gqa = gqa
        self.q, self.o = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k, self.v = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 2)).transpose(1, 2) for p in (self.q, self.k, self.v))
        if not self.gqa:
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.gqa).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """PyTorch's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 6, 0.0, "gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Net(nn.Module):
    """Embedding, the attention, head; logits (B, V, T)."""

    def __init__(self, attend: nn.Module) -> None:
        super().__init__()
        self.token, self.attend, self.head = nn.Embedding(WORDS, WIDTH), attend, nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x)
        return self.head(x + self.attend(x)).transpose(1, 2)


def objective(attend: nn.Module) -> tuple[Objective, np.ndarray]:
    """The network, on random text, and its dense Hessian."""
    torch.manual_seed(0)
    for p in attend.parameters():
        nn.init.normal_(p, std=0.5)
    model = Net(attend)
    x, y = (torch.randint(0, WORDS, (4, TOKENS)) for _ in range(2))
    return Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64"), dense_hessian(model, nn.CrossEntropyLoss(), x, y)


def rows(size: int, heads: int, part: int, number: int) -> list[int]:
    """Indices of a head's rows in part 0, 1 or 2 of a joint projection."""
    return [part * size + number * size // heads + i for i in range(size // heads)]


def expected(kind: str, h: int) -> dict[str, Tensor]:
    """Masks of the weights of head h, written down from the definitions of the layers."""
    masks, w = {}, WIDTH
    if kind == "grouped":
        for name, n, number, heads in (("q", w, h, 4), ("k", w // 2, h // 2, 2), ("v", w // 2, h // 2, 2)):
            masks[f"attend.{name}.weight"] = torch.zeros(n, w, dtype=torch.bool)
            masks[f"attend.{name}.weight"][rows(n, heads, 0, number)] = True
        masks["attend.o.weight"] = torch.zeros(w, w, dtype=torch.bool)
        masks["attend.o.weight"][:, rows(w, 4, 0, h)] = True
        return masks
    own = [i for part in range(3) for i in rows(w, 2, part, h)]
    if kind == "interleaved":
        own = list(range(h * 12, h * 12 + 12))
    names = ("layer.self_attn.in_proj_", "layer.self_attn.out_proj.") if kind == "encoder" else ("qkv.", "out.")
    joint = torch.zeros(3 * w, w, dtype=torch.bool)
    joint[own] = True
    bias = torch.zeros(3 * w, dtype=torch.bool)
    bias[own] = True
    out = torch.zeros(w, w, dtype=torch.bool)
    out[:, rows(w, 2, 0, h)] = True
    weight = joint.T if kind == "transposed" else joint
    return {f"attend.{names[0]}weight": weight, f"attend.{names[0]}bias": bias, f"attend.{names[1]}weight": out}


KINDS = {
    "linear": (Attend, 2), "transposed": (lambda: Attend(stored="transposed"), 2),
    "interleaved": (lambda: Attend(stored="interleaved"), 2), "by hand": (lambda: Attend(stored="by hand"), 2),
    "grouped": (Grouped, 4), "grouped, repeated": (lambda: Grouped(gqa=False), 4), "encoder": (Encoder, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_their_blocks(kind) -> None:
    make, count = KINDS[kind]
    found, hessian = objective(make())
    heads, unread = found.attention_heads()
    assert not unread
    assert [h.number for h in heads] == list(range(count))
    own = kind.partition(",")[0]
    for head in heads:
        masks = expected(own, head.number)
        truth = torch.cat([masks.get(e.name, torch.zeros(e.shape, dtype=torch.bool)).reshape(-1) for e in found.layout])
        assert head.weights.tolist() == truth.nonzero()[:, 0].tolist()
        assert head.shared == (2 * 2 * WIDTH if own == "grouped" else 0)
    blocks = ls.breakdown(found, heads=True, probes=100, tol=1e-8)
    assert len(blocks.heads) == count
    leading = np.linalg.eigh(hessian)[1][:, -1]
    misses = 0
    for block, head in zip(blocks.heads, heads, strict=True):
        inside = hessian[np.ix_(head.weights, head.weights)]
        assert block.lambda_max.value == pytest.approx(np.linalg.eigvalsh(inside)[-1], rel=1e-5, abs=1e-8)
        low, high = block.trace.interval(0.999)
        misses += not low <= np.trace(inside) <= high
        assert block.share == pytest.approx(float((leading[head.weights] ** 2).sum()), abs=1e-4)
        assert Block.from_json(json.loads(json.dumps(block.to_json()))) == block
    assert misses <= 1
    assert sum(b.share for b in blocks.layers) == pytest.approx(1, abs=1e-6)
    for layer in blocks.layers:
        members = [i for e in found.layout.layers[layer.layer] for i in range(e.start, e.stop)]
        assert layer.share == pytest.approx(float((leading[members] ** 2).sum()), abs=1e-4)
    assert f"head {count - 1}" in str(blocks)
    assert {r["head"] for r in blocks.records()} == {None, *range(count)}


def test_filters_and_heads_together_have_the_traces_of_each_alone() -> None:
    """One sweep serves layers, filters and heads, whose sections overlap."""
    found, _ = objective(Attend())
    both = ls.breakdown(found, filters=True, heads=True, probes=8)
    apart = ls.breakdown(found, filters=True, probes=8)
    for a, b in zip((*both.layers, *both.filters), apart, strict=True):
        assert (a.name, a.weights) == (b.name, b.weights)
        assert a.trace.value == pytest.approx(b.trace.value, rel=1e-9, abs=1e-12)


def test_weights_that_are_held_belong_to_no_head() -> None:
    found, _ = objective(Attend())
    heads = found.only("attend.out.*").attention_heads()[0]
    assert [len(h.weights) for h in heads] == [WIDTH * WIDTH // 2] * 2


class Flat(Attend):
    """Attention whose heads are folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


def test_attention_without_heads_is_told() -> None:
    found, _ = objective(Flat())
    heads, unread = found.attention_heads()
    assert not heads
    assert unread == ["attend: attention of tensors without a dimension of heads"]
    assert Objective(nn.Linear(2, 2), nn.MSELoss(), (torch.ones(3, 2), torch.ones(3, 2))).attention_heads() == ([], [])


def test_the_picture_has_all_heads_and_says_what_is_shared() -> None:
    found, _ = objective(Grouped())
    figure = figure_heads(ls.breakdown(found, heads=True, probes=2).heads)
    fields = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title("left") for ax in fields] == ["Largest eigenvalue", "Trace", "Top eigenvector's share, %"]
    assert all(ax.images[0].get_array().shape == (1, 4) and len(ax.texts) == 4 for ax in fields)
    assert f"up to {4 * WIDTH} weights" in figure._supxlabel.get_text()


@pytest.mark.parametrize("seed", range(5))
def test_sections_divided_by_heads_are_the_distinct_memberships(seed) -> None:
    """By one head at a time, as by the distinct columns of the table of all heads and weights."""
    g = torch.Generator().manual_seed(seed)
    sections = torch.randint(0, 5, (200,), generator=g)
    members = torch.rand(4, 200, generator=g) < torch.tensor([0.1, 0.5, 0.9, 1.0])[:, None]
    ids = sections.clone()
    owner, within = _refined(ids, 5, [row.nonzero()[:, 0] for row in members])
    assert len(torch.stack((sections, *members.long())).unique(dim=1)[0]) == len(ids.unique()) == len(owner)
    assert torch.equal(torch.from_numpy(owner)[ids], sections)
    for row, inside in zip(members, within, strict=True):
        assert torch.equal(torch.isin(ids, torch.from_numpy(inside)), row)


def test_heads_that_were_found_are_not_traced_again(monkeypatch) -> None:
    found, _ = objective(Grouped())
    first = ls.breakdown(found, heads=True, probes=2).heads
    heads, _ = found.attention_heads()
    monkeypatch.setattr(Objective, "attention_heads", None)
    again = ls.breakdown(found, heads=heads, probes=2).heads
    assert [(b.name, b.weights, b.trace.value) for b in again] == [(b.name, b.weights, b.trace.value) for b in first]
