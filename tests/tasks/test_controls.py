"""SAM, label smoothing and mixup: their steps against float64 formulas written out, and what must not change."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats
from small_runs import SMALL, same, state
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.tasks import Recipe, build, train
from landscape.tasks.data.by_name import read_data
from landscape.tasks.seeds import stream
from landscape.tasks.training import by_recipe
from landscape.tasks.training.mixup import Mix
from landscape.tasks.training.sam_ascent import ascended
from landscape.tasks.training.snapshot import snapshot_path, write_snapshot

pytestmark = pytest.mark.usefixtures("one_thread")

Weights = dict[str, Tensor]
ONE_STEP = Recipe(network_options={"widths": [5]}, batch_size="full", samples=200, lr=0.3, epochs=1, dtype="float64")


def start(recipe: Recipe) -> Weights:
    return {k: p.double() for k, p in build("mlp", seed=recipe.seed, **recipe.network_options).state_dict().items()}


def samples() -> tuple[Tensor, Tensor]:
    data = read_data("digits")
    return data.train_x[:200].double().flatten(1) / 16, data.train_y[:200]


def log_probabilities(w: Weights, x: Tensor) -> Tensor:
    hidden = (x @ w["fc1.weight"].T + w["fc1.bias"]).clamp(min=0)
    logits = hidden @ w["fc2.weight"].T + w["fc2.bias"]
    return logits - logits.logsumexp(1, keepdim=True)


def cross_entropy(w: Weights, x: Tensor, y: Tensor) -> Tensor:
    return -log_probabilities(w, x)[torch.arange(len(y)), y].mean()


def gradient(loss: Callable[[Weights], Tensor], w: Weights) -> Weights:
    leaves = {k: p.clone().requires_grad_() for k, p in w.items()}
    return dict(zip(w, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def trained(recipe: Recipe, folder: Path, name: str = "a") -> Weights:
    return state(train(recipe, out=folder / f"{name}.safetensors").path)


def test_sam_steps_with_momentum_and_weight_decay(tmp_path):
    """Three steps of w' = w - lr b, b = 0.9 b + g(w + rho g / |g|) + 0.1 w."""
    recipe = replace(ONE_STEP, optimizer="sam", rho=0.4, momentum=0.9, weight_decay=0.1, epochs=3)
    x, y = samples()
    w = start(recipe)
    b = {k: torch.zeros_like(p) for k, p in w.items()}
    for _ in range(3):
        g = gradient(lambda v: cross_entropy(v, x, y), w)
        norm = sum(float((p**2).sum()) for p in g.values()) ** 0.5
        above = gradient(lambda v: cross_entropy(v, x, y), {k: w[k] + 0.4 * g[k] / norm for k in w})
        b = {k: 0.9 * b[k] + above[k] + 0.1 * w[k] for k in w}
        w = {k: w[k] - 0.3 * b[k] for k in w}
    found = trained(recipe, tmp_path)
    for name, p in w.items():
        torch.testing.assert_close(found[name], p, rtol=1e-10, atol=1e-12)


def test_sam_has_the_published_radius_by_default(tmp_path):
    default, other = (replace(ONE_STEP, optimizer="sam", rho=rho) for rho in (0.05, 0.06))
    found = trained(replace(ONE_STEP, optimizer="sam"), tmp_path)
    assert same(found, trained(default, tmp_path, "b"))
    assert not same(found, trained(other, tmp_path, "c"))


def test_sam_updates_batchnorm_statistics_in_its_first_pass_only(tmp_path):
    recipe = replace(ONE_STEP, network_options={"widths": [5], "batchnorm": True}, optimizer="sam", rho=5.0)
    found = trained(recipe, tmp_path)
    w, (x, _) = start(recipe), samples()
    z = x @ w["fc1.weight"].T + w["fc1.bias"]
    torch.testing.assert_close(found["bn1.running_mean"], 0.1 * z.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found["bn1.running_var"], 0.9 + 0.1 * z.var(0), rtol=1e-12, atol=1e-12)
    assert int(found["bn1.num_batches_tracked"]) == 1


def test_both_passes_of_sam_have_the_same_dropout(tmp_path):
    """With a radius of almost nothing SAM is SGD, step by step, if its second gradient is of the same random function."""
    sgd = replace(ONE_STEP, dropout=0.5, epochs=4)
    one, two = trained(sgd, tmp_path), trained(replace(sgd, optimizer="sam", rho=1e-9), tmp_path, "b")
    for name, p in one.items():
        torch.testing.assert_close(two[name], p, rtol=1e-6, atol=1e-8)


def test_label_smoothing_is_torchs_and_its_formula(tmp_path):
    recipe = replace(ONE_STEP, label_smoothing=0.2)
    x, y = samples()

    def smoothed(w: Weights) -> Tensor:
        return 0.8 * cross_entropy(w, x, y) - 0.2 * log_probabilities(w, x).mean(1).mean()

    w = start(recipe)
    torchs = torch.nn.functional.cross_entropy(log_probabilities(w, x), y, label_smoothing=0.2)
    torch.testing.assert_close(smoothed(w), torchs, rtol=1e-12, atol=1e-12)
    found, g = trained(recipe, tmp_path), gradient(smoothed, w)
    for name, p in w.items():
        torch.testing.assert_close(found[name], p - 0.3 * g[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixup_is_its_formula(tmp_path, smoothing):
    recipe = replace(ONE_STEP, mixup=1.0, label_smoothing=smoothing)
    (mix,) = Mix.make([200], 1.0, stream(recipe.seed, "mixup"), torch.device("cpu"))
    x, y = samples()
    targets = torch.eye(10, dtype=torch.float64)[y] * (1 - smoothing) + smoothing / 10
    blended, soft = (mix.share * t + (1 - mix.share) * t[mix.partners] for t in (x, targets))
    w = start(recipe)
    g = gradient(lambda v: -(soft * log_probabilities(v, blended)).sum(1).mean(), w)
    found = trained(recipe, tmp_path)
    assert 0.05 < mix.share < 0.95
    for name, p in w.items():
        torch.testing.assert_close(found[name], p - 0.3 * g[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_of_mixup_are_beta_distributed_and_partners_permutations(alpha):
    drawn = Mix.make([3] * 3000, alpha, stream(0, "mixup"), torch.device("cpu"))
    assert stats.kstest([mix.share for mix in drawn], stats.beta(alpha, alpha).cdf).pvalue > 0.01
    orders = torch.stack([mix.partners for mix in drawn])
    assert torch.equal(orders.sort(1).values, torch.arange(3).expand(3000, 3))
    assert (orders == torch.arange(3)).double().mean() == pytest.approx(1 / 3, abs=0.03)


def test_the_history_has_the_plain_loss(tmp_path):
    """Before any learning (a rate of almost nothing) a smoothed, mixed run evaluates as a plain one does."""
    plain = replace(SMALL, lr=1e-12, epochs=1)
    rows = [
        train(recipe, out=tmp_path / f"{i}.safetensors").record["history"][0]
        for i, recipe in enumerate((plain, replace(plain, label_smoothing=0.4, mixup=2.0)))
    ]
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-6)


def test_mixup_draws_from_its_own_stream(tmp_path, monkeypatch):
    """With and without it a run has its samples in the same order; another alpha changes the shares only."""
    drawn: list[Tensor] = []
    monkeypatch.setattr(by_recipe, "write_snapshot", lambda out, content: drawn.append(content["order"]))
    recipes = [replace(SMALL, epochs=2, mixup=alpha) for alpha in (None, 0.5)]
    for i, recipe in enumerate(recipes):
        train(recipe, out=tmp_path / f"{i}.safetensors", save_every=0.0)
    half = len(drawn) // 2
    assert half == 2 * 11
    assert torch.equal(torch.stack(drawn[:half]), torch.stack(drawn[half:]))
    first, second = (Mix.make([8, 8], alpha, stream(0, "mixup"), torch.device("cpu")) for alpha in (0.5, 0.6))
    assert all(torch.equal(a.partners, b.partners) and a.share != b.share for a, b in zip(first, second, strict=True))


def test_a_run_begun_by_a_version_without_mixup_goes_on(tmp_path, monkeypatch):
    whole = trained(SMALL, tmp_path, "whole")

    def older(out: Path, content: dict[str, object]) -> None:
        write_snapshot(out, {key: value for key, value in content.items() if key != "mixup"})
        if content["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(by_recipe, "write_snapshot", older)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, out=tmp_path / "a.safetensors", save_every=0.0)
    assert "mixup" not in torch.load(snapshot_path(tmp_path / "a.safetensors"), weights_only=True)
    assert same(whole, trained(SMALL, tmp_path))


def test_every_control_at_once_has_the_same_bits_twice(tmp_path):
    recipe = replace(SMALL, epochs=2, optimizer="sam", rho=0.1, label_smoothing=0.1, mixup=0.4)
    assert same(trained(recipe, tmp_path), trained(recipe, tmp_path, "b"))
    with pytest.raises(UsageError, match=r"found another one: rho 0\.2, there 0\.1"):
        train(replace(recipe, rho=0.2), out=tmp_path / "a.safetensors")


@pytest.mark.parametrize("rho", [0.05, 1e3])
@pytest.mark.parametrize("slope", [0.0, 1e-30, 1.0])
def test_the_step_of_sam_is_finite_and_as_long_as_rho_unless_the_gradient_vanishes(rho, slope):
    model = nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[3.0, 0.0, 4.0]]) * slope
    with ascended(model, rho):
        moved = float((model.weight.detach() - before).norm())
    assert moved == pytest.approx(rho if slope == 1.0 else 0.0 if slope == 0 else moved, rel=1e-3)
    assert math.isfinite(moved)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)
