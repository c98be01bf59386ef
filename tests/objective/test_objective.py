import copy

import numpy as np
import pytest
import torch
from cases import CASES, Case, WrongCube
from reference import dense_gauss_newton, dense_hessian, dense_loss
from torch import nn

from landscape.errors import MismatchError, NumericalError, UsageError
from landscape.objective import Objective

cases = pytest.mark.parametrize("case", CASES, ids=str)


def build(case: Case, seed: int = 0, **options) -> tuple[Objective, tuple]:
    model, loss, x, y = case.make(seed)
    return Objective(model, loss, (x, y), **({"dtype": "float64", "batch_size": 10} | options)), (model, loss, x, y)


@cases
def test_reference_hessian_agrees_with_differences_of_gradients(case):
    """The reference itself, checked by another road."""
    _, parts = build(case)
    function, theta = dense_loss(*parts)
    hessian = dense_hessian(*parts)
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradient = torch.func.grad(function)
    difference = (gradient(theta + 1e-6 * v) - gradient(theta - 1e-6 * v)) / 2e-6
    np.testing.assert_allclose(hessian @ v.numpy(), difference.numpy(), atol=1e-6 * np.abs(hessian).max() * len(theta))


@cases
def test_value_gradient_and_products_equal_the_dense_ones(case):
    objective, parts = build(case)
    assert objective.dim < 500
    function, theta = dense_loss(*parts)
    assert objective.value().value == pytest.approx(float(function(theta)), rel=1e-12)
    torch.testing.assert_close(objective.gradient(), torch.func.grad(function)(theta), rtol=1e-9, atol=1e-12)
    eye = torch.eye(objective.dim, dtype=torch.float64)
    np.testing.assert_allclose(objective.hvp(eye).numpy(), dense_hessian(*parts), atol=1e-10)
    np.testing.assert_allclose(objective.ggnvp(eye).numpy(), dense_gauss_newton(*parts), atol=1e-10)


@cases
def test_float32_products_are_near_the_dense_ones(case):
    objective, parts = build(case, dtype="float32")
    hessian = dense_hessian(*parts)
    found = objective.hvp(torch.eye(objective.dim)).numpy()
    np.testing.assert_allclose(found, hessian, atol=3e-5 * np.abs(hessian).max())


@cases
def test_batch_split_changes_nothing(case):
    """A ragged last batch counts for what it is."""
    whole, _ = build(case, batch_size=23)
    v = torch.randn(2, whole.dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for size in (1, 7, 22):
        split, _ = build(case, batch_size=size)
        assert split.value().value == pytest.approx(whole.value().value, rel=1e-13)
        assert split.value().stderr == pytest.approx(whole.value().stderr, rel=1e-9)
        torch.testing.assert_close(split.hvp(v), whole.hvp(v), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(split.gradient(), whole.gradient(), rtol=1e-10, atol=1e-12)


@cases
def test_sample_curvatures_average_to_the_quadratic_form(case):
    objective, _ = build(case)
    v = torch.randn(objective.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    each = objective.sample_curvatures(v)
    assert each.shape == (objective.samples,)
    w = objective.sample_weights
    assert float((w * each).sum() / w.sum()) == pytest.approx(float(v @ objective.hvp(v)), rel=1e-9)
    if bool((w == 1).all()):
        assert objective.standard_error(each) == pytest.approx(float(each.std() / len(each) ** 0.5), rel=1e-10)


def test_loss_times_c_gives_products_times_c():
    model, _, x, y = CASES[0].make(0)
    cross_entropy = nn.CrossEntropyLoss()
    one = Objective(model, cross_entropy, (x, y), dtype="float64")
    three = Objective(model, lambda z, t: 3 * cross_entropy(z, t), (x, y), dtype="float64")
    v = torch.ones(one.dim)
    torch.testing.assert_close(three.hvp(v), 3 * one.hvp(v))
    assert three.value().stderr == pytest.approx(3 * one.value().stderr, rel=1e-6)


def test_standard_error_is_that_of_the_sample_losses():
    model, _, x, y = CASES[0].make(0)
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=4)
    each = nn.functional.cross_entropy(copy.deepcopy(model).double()(x.double()), y, reduction="none").detach()
    assert objective.value().stderr == pytest.approx(float(each.std() / len(each) ** 0.5), rel=1e-10)
    right = objective.evaluate().accuracy
    p = right.value
    assert right.stderr == pytest.approx((p * (1 - p) / (right.n - 1)) ** 0.5, rel=1e-10)


def test_tokens_that_are_ignored_count_for_nothing():
    """A language model: cross-entropy over (B, C, T) with padding of very uneven length."""
    torch.manual_seed(0)
    table = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = table

        def forward(self, tokens):
            return self.net(tokens).transpose(1, 2)

    tokens = torch.randint(0, 7, (6, 4))
    target = torch.randint(0, 7, (6, 4))
    target[0, 1:] = -100
    target[3] = -100
    objective = Objective(Language(), nn.CrossEntropyLoss(), (tokens, target), dtype="float64", batch_size=2)
    function, theta = dense_loss(Language(), nn.CrossEntropyLoss(), tokens, target)
    assert objective.value().value == pytest.approx(float(function(theta)), rel=1e-12)
    hessian = dense_hessian(Language(), nn.CrossEntropyLoss(), tokens, target)
    np.testing.assert_allclose(objective.hvp(torch.eye(objective.dim)).numpy(), hessian, atol=1e-11)
    kept = target != -100
    right = Language().double()(tokens).argmax(1)[kept] == target[kept]
    assert objective.evaluate().accuracy.value == pytest.approx(float(right.double().mean()))


def test_the_model_is_left_as_found():
    model, loss, x, y = CASES[3].make(0)
    model.train()
    model[0].weight.requires_grad_(False)
    model[7].weight.grad = torch.ones_like(model[7].weight)
    calls = []
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    before = copy.deepcopy(model.state_dict())
    precision, flags = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    objective = Objective(model, loss, (x, y))
    objective.evaluate(), objective.hvp(torch.ones(objective.dim)), objective.gradient()
    assert model.training
    assert not model[0].weight.requires_grad
    assert model[1].weight.requires_grad
    assert torch.equal(model[7].weight.grad, torch.ones_like(model[7].weight))
    assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items())
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cudnn.deterministic == flags
    assert "0.weight" not in objective.layout.names, "a frozen weight does not vary"
    assert len(model[0]._forward_hooks) == 1
    handle.remove()


def test_theta_cannot_be_changed_from_outside():
    objective, _ = build(CASES[0])
    before = objective.value().value
    objective.theta.zero_()
    assert objective.value().value == before


def test_a_model_that_changes_later_does_not_matter():
    model, loss, x, y = CASES[0].make(0)
    objective = Objective(model, loss, (x, y))
    before = objective.value().value
    with torch.no_grad():
        model[0].weight.zero_()
    with pytest.warns(UserWarning, match="the model has changed since this Objective was made"):
        assert objective.value().value == before
    assert objective.value().value == before, "and says so once"


def test_only_is_the_block_of_the_hessian():
    objective, parts = build(CASES[3])
    hessian = dense_hessian(*parts)
    block = objective.only("4.*", "7.bias")
    index = np.flatnonzero([e in ("4.weight", "4.bias", "7.bias") for e in _owner(objective)])
    np.testing.assert_allclose(block.hvp(torch.eye(block.dim)).numpy(), hessian[np.ix_(index, index)], atol=1e-11)
    assert block.value().value == objective.value().value
    with pytest.raises(UsageError, match="expected a pattern that matches a parameter, found 'nothing'"):
        objective.only("nothing")


def _owner(objective):
    return [e.name for e in objective.layout for _ in range(e.size)]


def test_subset_is_those_samples():
    objective, (model, loss, x, y) = build(CASES[0])
    generator = torch.Generator().manual_seed(5)
    rows = torch.randperm(23, generator=torch.Generator().manual_seed(5))[:9].sort().values
    chosen = Objective(model, loss, (x[rows], y[rows]), dtype="float64")
    assert objective.subset(9, generator).value().value == pytest.approx(chosen.value().value, rel=1e-13)
    first = Objective(model, loss, (x[:9], y[:9]), dtype="float64")
    assert objective.subset(9).value().value == pytest.approx(first.value().value, rel=1e-13)
    with pytest.raises(UsageError, match="expected between 1 and 23 samples, found 24"):
        objective.subset(24)


def test_with_model_takes_weights_and_buffers():
    objective, (_, loss, x, y) = build(CASES[3])
    other, *_ = CASES[3].make(1)
    expected = Objective(other, loss, (x, y), dtype="float64", batch_size=10)
    assert objective.with_model(other).value().value == expected.value().value


def test_dictionaries_loaders_and_lists_are_the_same_data():
    model, loss, x, y = CASES[0].make(0)

    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, *, features):
            return self.net(features)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=6)
    expected = Objective(model, loss, (x, y)).value().value
    assert Objective(model, loss, loader).value().value == pytest.approx(expected, rel=1e-6)
    assert Objective(model, loss, [(x[:20], y[:20]), (x[20:], y[20:])]).value().value == pytest.approx(expected, rel=1e-6)
    assert Objective(Keyword(), loss, [{"features": x, "labels": y}]).value().value == pytest.approx(expected, rel=1e-6)


def test_wrappers_are_taken_off():
    model, loss, x, y = CASES[0].make(0)
    wrapped = Objective(nn.DataParallel(model), loss, (x, y))
    assert wrapped.layout.names == Objective(model, loss, (x, y)).layout.names


BAD_DATA = [
    ((torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)), UsageError, "expected data, found no samples"),
    ((torch.zeros(3, 5), torch.tensor([0, 1, 3])), UsageError, "expected labels from 0 to 2, found 3 in batch 0"),
    ((torch.zeros(3, 5), torch.tensor([0, -1, 1])), UsageError, "expected labels from 0 to 2, found -1"),
    ((torch.full((3, 5), torch.nan), torch.tensor([0, 1, 2])), NumericalError, "found NaN or infinity in batch 0"),
    ((torch.zeros(3, 4), torch.tensor([0, 1, 2])), UsageError, "expected a model that runs on its data"),
    ((torch.zeros(3, 5), torch.tensor([0, 1])), UsageError, "found 3 inputs and 2 targets"),
    ([torch.zeros(3, 5)], UsageError, "expected batch 0 to be"),
    (iter([]), UsageError, "expected a DataLoader, a list of batches or two tensors"),
]


@pytest.mark.parametrize(("data", "kind", "message"), BAD_DATA, ids=[m for _, _, m in BAD_DATA])
def test_bad_data_are_told_before_any_work(data, kind, message):
    model, loss, _, _ = CASES[0].make(0)
    with pytest.raises(kind, match=message):
        Objective(model, loss, data)


def test_a_loader_that_shuffles_or_augments_is_refused():
    model, loss, x, y = CASES[0].make(0)
    data = torch.utils.data.TensorDataset(x, y)
    with pytest.raises(UsageError, match="found a DataLoader that shuffles"):
        Objective(model, loss, torch.utils.data.DataLoader(data, batch_size=5, shuffle=True))

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return x[i] + torch.randn(5), y[i]

    with pytest.raises(UsageError, match="shuffles or augments"):
        Objective(model, loss, torch.utils.data.DataLoader(Noisy(), batch_size=5))


def test_nan_weights_are_named():
    model, loss, x, y = CASES[0].make(0)
    with torch.no_grad():
        model[2].bias[1] = torch.nan
    with pytest.raises(NumericalError, match=r"found NaN or infinity in 2\.bias"):
        Objective(model, loss, (x, y))


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


BAD_MODELS = [
    (Dropping(), "expected the same output twice, found that the output of 1 varies"),
    (nn.BatchNorm1d(6, track_running_stats=False), "found that 1 mixes the batch"),
    (WrongCube(), "expected Hv to agree with a finite difference|expected a symmetric Hessian"),
]


@pytest.mark.parametrize(("layer", "message"), BAD_MODELS, ids=["dropout", "batch statistics", "wrong second derivative"])
def test_preflight_names_the_culprit(layer, message):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), layer, nn.Linear(6, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(12, 5), torch.randint(0, 3, (12,))))
    for _ in range(2):  # and again: a check that failed is not forgotten
        with pytest.raises(NumericalError, match=message):
            objective.hvp(torch.ones(objective.dim))


def test_a_loss_without_gradient_is_told():
    model, _, x, y = CASES[0].make(0)
    objective = Objective(model, lambda z, t: (z.argmax(1) == t).float().mean(), (x, y))
    with pytest.raises(NumericalError, match="does not depend on the weights through autograd"):
        objective.gradient()


def test_a_summing_loss_is_refused():
    model, _, x, y = CASES[0].make(0)
    with pytest.raises(UsageError, match="expected a loss that averages over samples, found reduction='sum'"):
        Objective(model, nn.CrossEntropyLoss(reduction="sum"), (x, y))
    with pytest.raises(UsageError, match=r"expected a loss that averages over samples, found .* for two samples with losses"):
        Objective(model, lambda z, t: nn.functional.cross_entropy(z, t, reduction="sum"), (x, y))


def test_targets_that_would_broadcast_are_refused():
    model, _, x, _ = CASES[0].make(0)
    with pytest.raises(UsageError, match="expected targets of the output's shape"):
        Objective(model, nn.MSELoss(), (x, torch.zeros(len(x))))


def trained(dtype: str) -> tuple[Objective, torch.Tensor]:
    """A network at a minimum, where the smallest eigenvalue is small beside the largest; and its dense Hessian."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5))
    x, y = torch.randn(120, 8), torch.randint(0, 5, (120,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    loss = nn.CrossEntropyLoss()
    return Objective(model, loss, (x, y), dtype=dtype), torch.from_numpy(dense_hessian(model, loss, x, y))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-3)])
def test_both_ends_of_a_trained_network_s_spectrum(dtype, tolerance):
    from landscape import eigenpairs

    objective, hessian = trained(dtype)
    truth = torch.linalg.eigvalsh(hessian).flip(0).numpy()
    for k in (1, 4):
        pairs = eigenpairs(objective, k, "both")
        expected = np.r_[truth[:k], truth[-k:]]
        assert pairs.converged.all()
        np.testing.assert_allclose(pairs.values, expected, rtol=tolerance)


def test_wrong_length_and_dtype_are_refused():
    objective, _ = build(CASES[0])
    with pytest.raises(UsageError, match="expected a vector of"):
        objective.hvp(torch.ones(3))
    model, loss, x, y = CASES[0].make(0)
    with pytest.raises(UsageError, match="expected dtype float32 or float64"):
        Objective(model, loss, (x, y), dtype="float16")
    with pytest.raises(MismatchError, match="expected a vector of"):
        objective.layout.unflatten(torch.ones(3))


def test_model_that_insists_on_float32_still_passes_preflight():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)

        def forward(self, x):
            return self.fc(x.float())

    torch.manual_seed(0)
    objective = Objective(Stubborn(), nn.CrossEntropyLoss(), (torch.randn(9, 5), torch.randint(0, 3, (9,))))
    assert torch.isfinite(objective.hvp(torch.ones(objective.dim))).all()


@pytest.mark.gpu
def test_products_on_cuda_equal_the_cpu_in_float64():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for case in CASES:
        here, _ = build(case)
        there, _ = build(case, device="cuda")
        v = torch.randn(2, here.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(there.hvp(v).cpu(), here.hvp(v), rtol=1e-9, atol=1e-11)


def test_accuracy_wherever_the_classes_stand():
    """A language model's own loss may have them on the last axis; outputs that fit no targets have no accuracy."""
    torch.manual_seed(0)
    model, x = nn.Embedding(7, 7), torch.randint(0, 7, (5, 4))
    y = torch.where(torch.rand(5, 4) < 0.5, x, (x + 1) % 7)
    with torch.no_grad():
        model.weight.copy_(torch.eye(7))

    def flat(output, target):
        return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

    assert Objective(model, flat, (x, y)).evaluate().accuracy.value == pytest.approx(float((x == y).float().mean()))
    odd = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 6), nn.Unflatten(1, (2, 3)))
    assert Objective(odd, lambda o, t: o.square().mean(), (x, y[:, :1])).evaluate().accuracy is None


@cases
def test_at_another_point_everything_is_that_point_s(case):
    """Against an Objective of a network that holds those weights: values, products, blocks, outputs, the plain model."""
    objective, (model, loss, x, y) = build(case)
    random = torch.Generator().manual_seed(4)
    theta = objective.theta + 0.3 * torch.randn(objective.dim, generator=random, dtype=torch.float64)
    buffers = {n: b + 0.5 for n, b in objective.buffers.items()}
    there = copy.deepcopy(model).double()
    there.load_state_dict(objective.layout.unflatten(theta) | buffers, strict=False)
    expected = Objective(there, loss, (x, y), dtype="float64", batch_size=10)
    before, own = objective.value().value, objective.buffers
    found = objective.at(theta, buffers)
    assert torch.equal(found.theta, theta)
    assert found.value().value == expected.value().value == objective.evaluate(theta, buffers).loss.value
    v = torch.randn(2, objective.dim, generator=random, dtype=torch.float64)
    torch.testing.assert_close(found.hvp(v), expected.hvp(v), rtol=1e-10, atol=1e-12)
    name = objective.layout.names[-1]
    block, reference = found.only(name), expected.only(name)
    torch.testing.assert_close(block.hvp(v[:, : block.dim]), reference.hvp(v[:, : block.dim]), rtol=1e-10, atol=1e-12)
    assert torch.equal(found.outputs(), expected.outputs())
    assert all(torch.equal(p, q) for p, q in zip(found.plain()[0].parameters(), there.parameters(), strict=True))
    assert objective.value().value == before
    assert all(torch.equal(b, own[n]) for n, b in objective.buffers.items())
    keeps = objective.at(theta)
    assert all(torch.equal(b, own[n]) for n, b in keeps.buffers.items())
    assert keeps.value().value == objective.value(theta).value


def test_at_takes_nothing_that_does_not_fit():
    objective, _ = build(CASES[3])
    theta = objective.theta
    with pytest.raises(UsageError, match="expected a vector of"):
        objective.at(theta[1:])
    with pytest.raises(MismatchError, match=r"expected a network with 1\.mean of shape \(3,\), found none of that name"):
        objective.at(theta, {"1.mean": torch.zeros(3)})
    with pytest.raises(MismatchError, match=r"with 1\.running_mean of shape \(4,\), found shape \(3,\)"):
        objective.at(theta, {"1.running_mean": torch.zeros(4)})
    theta[-1] = torch.inf
    with pytest.raises(NumericalError, match=r"found NaN or infinity in 7\.bias"):
        objective.at(theta)


@cases
def test_batch_normalized_leaves_the_original_and_differentiates_through_the_batch(case):
    """Against PyTorch's own train mode on one batch; dropout there is none."""
    objective, (model, loss, x, y) = build(case, batch_size=23)
    before, buffers = objective.value().value, objective.buffers
    found = objective.batch_normalized()
    twin = copy.deepcopy(model).double().train()
    criterion = copy.deepcopy(loss).double()
    value = criterion(twin(x.double()), y if not y.is_floating_point() else y.double())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(twin.parameters()))])
    at, slope = found.value_and_gradient()
    assert at == pytest.approx(float(value.detach()), rel=1e-12)
    torch.testing.assert_close(slope, gradient, rtol=1e-9, atol=1e-12)
    assert objective.value().value == before
    assert all(torch.equal(b, buffers[n]) for n, b in objective.buffers.items())
    if not buffers:
        assert found.value().value == before
    else:
        assert at != pytest.approx(before, rel=1e-3)


def test_batch_normalized_checks_the_network_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), Dropping(), nn.Linear(6, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(12, 5), torch.randint(0, 3, (12,))))
    with pytest.raises(NumericalError, match="found that the output of 2 varies"):
        objective.batch_normalized()


def test_minibatches_are_an_epoch_of_whole_ones():
    """Every sample once, but for those left over; whatever the micro-batch, a mini-batch is one batch."""
    objective, _ = build(CASES[0], batch_size=4)
    alone = [c.value().value for c in objective.chunks(1)]
    seen = []
    for part in objective.minibatches(5, torch.Generator().manual_seed(3)):
        assert part.samples == 5
        assert len(part._engine.batches) == 1
        seen += part.losses().tolist()
    assert len(seen) == 20
    which = {next(i for i in range(23) if seen_value == pytest.approx(alone[i], rel=1e-12)) for seen_value in seen}
    assert len(which) == 20
    (whole,) = objective.minibatches(99, torch.Generator().manual_seed(3))
    assert whole.samples == 23
    again = [p.value().value for p in objective.minibatches(5, torch.Generator().manual_seed(3))]
    assert again == [p.value().value for p in objective.minibatches(5, torch.Generator().manual_seed(3))]


class Cut(nn.Module):
    """Detached from its weights once the bias is large: right at some weights, wrong at others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(x)
        return h if self.layer.bias.sum() < 5 else h.detach() + self.layer.bias


def test_a_verdict_in_float64_is_not_that_of_other_weights():
    torch.manual_seed(0)
    objective = Objective(Cut(), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.randint(0, 3, (8,))))
    objective.preflight()
    objective.to("float64").preflight()
    theta = objective.theta.clone()
    theta[-3:] += 4
    with pytest.raises(NumericalError, match="gradient"):
        objective.at(theta).to("float64").preflight()
