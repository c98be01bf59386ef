"""Language models of transformers: products, values and errors against plain PyTorch in float64."""

import copy
import math

import pytest
import torch
from small_language_models import MODELS, sequences, small
from torch import Tensor, nn

import landscape as ls
from landscape.curvature.method import PLAIN
from landscape.errors import UsageError
from landscape.network.losses.mean_loss import standard_error

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers on its own arguments

CAUSAL = [name for name in MODELS if name != "bert"]


def reference(name: str) -> nn.Module:
    """The model in float64, with attention and experts written out."""
    model = small(name).double()
    model.set_attn_implementation("eager")
    if "num_experts_per_tok" in vars(model.config):
        model.set_experts_implementation("eager")
    return model


def pooled(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of all next tokens that count, over all sequences."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    following = batch["labels"][:, 1:]
    logs = torch.log_softmax(logits, -1).gather(2, following.clamp(min=0)[..., None])[..., 0]
    counted = following != -100
    return -(logs * counted).sum() / counted.sum()


def product(loss: Tensor, model: nn.Module, v: Tensor) -> Tensor:
    """H v by two backward passes."""
    weights = list(model.parameters())
    slope = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    along = torch.cat([g.reshape(-1) for g in slope]) @ v
    bent = torch.autograd.grad(along, weights, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in bent])


def direction(size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", CAUSAL)
def test_products_are_those_of_plain_pytorch(name):
    model, batch = small(name), sequences()
    before = copy.deepcopy(model.config).to_dict(), {n: p.clone() for n, p in model.named_parameters()}
    objective = ls.Objective(model, ls.NextTokenLoss(), [batch], dtype="float64").by(PLAIN)
    plain = reference(name)
    v = direction(sum(p.numel() for p in plain.parameters()))  # a tied weight once
    assert objective.dim == len(v)
    loss = pooled(plain, batch)
    expected = product(loss, plain, v)
    # RMSNorm computes in float32 whatever the dtype, and so do some softmaxes: GPT-2 alone is exact.
    tolerance = 1e-12 if name == "gpt2" else 3e-6
    assert objective.value().value == pytest.approx(float(loss), rel=tolerance)
    assert float((objective.hvp(v) - expected).norm()) <= tolerance * float(expected.norm())
    assert model.config.to_dict() == before[0]
    assert all(torch.equal(p, before[1][n]) for n, p in model.named_parameters())


def test_another_model_on_the_same_text():
    one, batch = small("gpt2"), sequences()
    other = copy.deepcopy(one)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    expected = pooled(other.double(), batch)
    other.float()
    for data in ([batch], [{k: v[:2] for k, v in batch.items()}, {k: v[2:] for k, v in batch.items()}]):
        moved = ls.Objective(one, ls.NextTokenLoss(), data, dtype="float64").with_model(other)
        assert moved.value().value == pytest.approx(float(expected), rel=1e-12)
        assert moved.dim == ls.Objective(other, ls.NextTokenLoss(), data).dim


def test_a_certificate_of_a_language_model():
    model, batch = small("llama"), sequences()
    symmetries = ls.find_symmetries(model, {"input_ids": batch["input_ids"][:2]})
    other = ls.reparam.move(model, symmetries, "pair")
    objective = ls.Objective(model, ls.NextTokenLoss(), [batch])
    found = ls.certificate(objective, other, measures=["output_curvature", "weight_curvature"], symmetry="pair")
    assert found.same_function
    assert [row.verdict for row in found.rows] == ["invariant", "invariant"]


def test_single_precision_and_the_loss_of_the_model_itself():
    model, batch = small("llama"), sequences()
    objective = ls.Objective(model, ls.NextTokenLoss(), [batch])
    plain = reference("llama")
    v = direction(objective.dim)
    expected = product(plain(**batch, use_cache=False).loss, plain, v)
    assert float((objective.hvp(v.float()).double() - expected).norm()) < 1e-5 * float(expected.norm())
    own = ls.ModelLoss(lambda model, batch: model(**batch).loss, weight=lambda batch: (batch["labels"][:, 1:] != -100).sum())
    assert ls.Objective(model, own, [batch]).value().value == pytest.approx(objective.value().value, rel=1e-6)


def test_a_sequence_classifier():
    model, ids = small("bert"), sequences(6)["input_ids"]
    mask = torch.ones_like(ids)
    mask[2:, 5:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(6) % 3}
    objective = ls.Objective(model, nn.CrossEntropyLoss(), [batch], dtype="float64").by(PLAIN)
    plain = reference("bert")
    loss = nn.functional.cross_entropy(plain(input_ids=ids, attention_mask=mask).logits, batch["labels"])
    v = direction(objective.dim)
    expected = product(loss, plain, v)
    # Of the padding token's row of the embedding PyTorch leaves out the gradient, and so do both.
    assert float((objective.hvp(v) - expected).norm()) <= 1e-9 * float(expected.norm())


def test_how_the_text_is_batched_changes_nothing():
    model, batch = small("gpt2"), sequences(7)
    parts = [{name: t[i : i + 3] for name, t in batch.items()} for i in (0, 3, 6)]
    one, three = (ls.Objective(model, ls.NextTokenLoss(), data, dtype="float64") for data in ([batch], parts))
    assert one.value().value == pytest.approx(three.value().value, rel=1e-13)
    assert one.value().stderr == pytest.approx(three.value().stderr, rel=1e-10)
    assert one.evaluate().accuracy.value == three.evaluate().accuracy.value
    again = {**batch, "labels": torch.where(batch["labels"] == -100, 5, batch["labels"])}
    assert ls.Objective(model, ls.NextTokenLoss(), [again], dtype="float64").value().value != one.value().value


def test_accuracy_is_that_of_the_next_token():
    model, batch = small("gpt2"), sequences()
    found = ls.Objective(model, ls.NextTokenLoss(), [batch]).evaluate()
    right = model(input_ids=batch["input_ids"]).logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]
    assert found.accuracy.value == pytest.approx(float(right.sum() / (batch["labels"][:, 1:] != -100).sum()))


def test_errors_are_over_sequences_whose_weights_are_their_tokens():
    """The sampling error of an eigenvalue, by the curvature of every sequence along it, formed one by one."""
    model, batch = small("llama"), sequences(8)
    objective = ls.Objective(model, ls.NextTokenLoss(), [batch], dtype="float64", params="model.norm").by(PLAIN)
    found = ls.sharpness(objective, ["lambda_max"])["lambda_max"]
    plain = reference("llama")
    (weight,) = (p for n, p in plain.named_parameters() if n == "model.norm.weight")
    hessians, tokens = [], []
    for i in range(8):
        one = {name: t[i : i + 1] for name, t in batch.items()}
        (slope,) = torch.autograd.grad(pooled(plain, one), weight, create_graph=True)
        hessians.append(torch.stack([torch.autograd.grad(g, weight, retain_graph=True)[0] for g in slope]))
        tokens.append(int((one["labels"][:, 1:] != -100).sum()))
    assert len(set(tokens)) > 3
    share = torch.tensor(tokens, dtype=torch.float64) / sum(tokens)
    whole = sum(s * h for s, h in zip(share, hessians, strict=True))
    values, vectors = torch.linalg.eigh(whole)
    assert found.value == pytest.approx(float(values[-1]), rel=1e-5)
    bent = torch.stack([vectors[:, -1] @ h @ vectors[:, -1] for h in hessians])
    expected = math.sqrt(8 / 7 * float((share * (bent - values[-1])).square().sum()))
    assert found.sampling.stderr == pytest.approx(expected, rel=1e-4)


def test_the_standard_error_of_the_loss_is_that_of_drawn_sequences():
    """Sequences drawn from a population: the spread of the loss over draws, and the error that each draw gives."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 60, (5000,), generator=draw).double()
    level = torch.randn(5000, generator=draw, dtype=torch.float64)  # tokens of a sequence share it: they are not independent
    losses = 3 + level + torch.randn(5000, generator=draw, dtype=torch.float64) / tokens.sqrt() - 0.02 * tokens
    means, errors = [], []
    for _ in range(600):
        rows = torch.randint(5000, (80,), generator=draw)
        means.append(float((tokens[rows] * losses[rows]).sum() / tokens[rows].sum()))
        errors.append(standard_error(losses[rows], tokens[rows]))
    assert float(torch.tensor(errors).mean()) == pytest.approx(float(torch.tensor(means).std()), rel=0.08)


def test_another_attention_is_replaced_in_the_copy_alone():
    transformers = pytest.importorskip("transformers")
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    transformers.AttentionInterface.register("of-a-kernel", sdpa_attention_forward)
    model = small("llama")
    model.config._attn_implementation = "of-a-kernel"
    assert model.config.use_cache
    objective = ls.Objective(model, ls.NextTokenLoss(), [sequences()])
    assert model.config._attn_implementation == "of-a-kernel"
    assert model.config.use_cache
    copied = objective._engine.model
    assert copied.config._attn_implementation == "sdpa"
    assert not copied.config.use_cache


def test_what_does_not_go_with_the_loss():
    model, batch = small("gpt2"), sequences()
    with pytest.raises(UsageError, match=r"expected labels \(N, T\) with T of at least 2 tokens, found shape \(N\); "):
        ls.Objective(model, ls.NextTokenLoss(), [{**batch, "labels": torch.arange(5)}])
    with pytest.raises(UsageError, match=r"expected logits \(N, T, V\) for the loss of the next token, found shape \(2, 3\)"):
        ls.Objective(small("bert"), ls.NextTokenLoss(), [batch])


class Shifted(nn.Module):
    """Logits with the classes second, without the last: what cross-entropy takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids).logits[:, :-1].transpose(1, 2)


def test_the_loss_is_told_from_cross_entropy_of_the_same_logits():
    model, batch = small("gpt2"), sequences()
    one = ls.Objective(model, ls.NextTokenLoss(), [batch])
    two = ls.Objective(Shifted(model), nn.CrossEntropyLoss(), [batch | {"labels": batch["labels"][:, 1:]}])
    assert one.value().value == two.value().value
    assert one.value().stderr == two.value().stderr
    assert one.fingerprints["data"] == two.fingerprints["data"]
    assert one.fingerprints["loss"] != two.fingerprints["loss"]
