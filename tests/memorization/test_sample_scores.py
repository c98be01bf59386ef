"""Every score of single samples against a float64 reference that shares no code with it."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ls
from landscape.checkpoints import CheckpointFiles
from landscape.checkpoints.saving import save
from landscape.errors import UsageError
from landscape.measures import gauss_newton_trace
from landscape.memorization import SCORES, samples
from landscape.results import SampleScores

N, CLASSES = 13, 4


def network(seed: int = 0, inputs: int = 5) -> nn.Module:
    """Smooth, so that finite differences and second derivatives agree."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()


def data(inputs: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(N, inputs, generator=random, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (N,), generator=random)


def objective(batch_size: int | None = None, **options) -> ls.Objective:
    return ls.Objective(network(), nn.CrossEntropyLoss(), data(), dtype="float64", batch_size=batch_size, **options)


@pytest.fixture(scope="module")
def found() -> SampleScores:
    return samples(objective(), probes=4)


def flat_loss(i: int):
    """The loss of sample i as a function of the flat weights, and these."""
    net = network()
    shapes = [p.shape for p in net.parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    x, y = data()

    def outputs(flat: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = (t.reshape(s) for t, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True))
        return w2 @ torch.tanh(w1 @ x[i] + b1) + b2

    return outputs, lambda flat: F.cross_entropy(outputs(flat)[None], y[i : i + 1]), theta


def hessian_in_the_input(i: int) -> torch.Tensor:
    net, (x, y) = network(), data()
    return torch.autograd.functional.hessian(lambda at: F.cross_entropy(net(at[None]), y[i : i + 1]), x[i])


def test_losses_and_sensitivities(found):
    net, (x, y) = network(), data()
    h = 1e-6
    for i in range(N):
        loss = F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).detach()
        assert found.scores["loss"][i] == pytest.approx(float(loss), rel=1e-12)
        slopes = []
        for k in range(5):
            e = torch.zeros(5, dtype=torch.float64)
            e[k] = h
            with torch.no_grad():
                up, down = (F.cross_entropy(net(x[i : i + 1] + s * e), y[i : i + 1]) for s in (1, -1))
            slopes.append(float(up - down) / (2 * h))
        assert found.scores["loss_sensitivity"][i] == pytest.approx(sum(map(abs, slopes)), rel=1e-6)


def test_input_curvature_is_the_trace_of_the_squared_hessian():
    """Over many signs; and for few of them every sample has an error that the number of probes explains."""
    many = samples(objective(), "input_curvature", probes=500, step=1e-5).scores["input_curvature"]
    for i in range(N):
        h = hessian_in_the_input(i)
        square = h @ h
        spread = math.sqrt(2 * float((square**2).sum() - (square.diagonal() ** 2).sum()) / 500)
        assert many[i] == pytest.approx(square.trace().item(), abs=4 * spread + 1e-4 * square.trace().item())


def test_gauss_newton_traces(found):
    for i in range(N):
        outputs, _, theta = flat_loss(i)
        j = torch.autograd.functional.jacobian(outputs, theta)
        p = torch.softmax(outputs(theta), 0)
        expected = torch.trace(j.T @ (torch.diag(p) - torch.outer(p, p)) @ j)
        assert found.scores["gauss_newton_trace"][i] == pytest.approx(float(expected), rel=1e-10)


def test_curvature_along_the_top_eigenvector(found):
    hessians = []
    for i in range(N):
        _, loss, theta = flat_loss(i)
        hessians.append(torch.autograd.functional.hessian(loss, theta))
    values, vectors = torch.linalg.eigh(sum(hessians) / N)
    v = vectors[:, -1]
    expected = [float(v @ h @ v) for h in hessians]
    assert found.scores["top_curvature"] == pytest.approx(expected, rel=1e-5, abs=1e-6 * float(values[-1]))
    assert found.scores["top_curvature"].mean() == pytest.approx(float(values[-1]), rel=1e-6)


class Branching(nn.Module):
    """A network that cannot be vectorized: its way depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) if float(x.abs().sum()) > 0 else self.body(-x)


def test_a_network_that_cannot_be_vectorized_has_the_same_traces(found):
    other = samples(ls.Objective(Branching(), nn.CrossEntropyLoss(), data(), dtype="float64"), "gauss_newton_trace").scores[
        "gauss_newton_trace"
    ]
    assert other == pytest.approx(found.scores["gauss_newton_trace"], rel=1e-12)


def test_weighted_classes_and_other_losses():
    """A sample's own loss has no weight; the squared error's A_n is 2 I / outputs."""
    x, y = data()
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    plain = samples(objective(), ["loss", "gauss_newton_trace", "loss_sensitivity"])
    weighted = samples(ls.Objective(network(), nn.CrossEntropyLoss(weight=weight), (x, y), dtype="float64"), list(plain.scores))
    for name, values in plain.scores.items():
        assert weighted.scores[name] == pytest.approx(values, rel=1e-12), name
    squared = samples(ls.Objective(network(), nn.MSELoss(), (x, F.one_hot(y, CLASSES).double()), dtype="float64"))
    for i in range(N):
        outputs, _, theta = flat_loss(i)
        j = torch.autograd.functional.jacobian(outputs, theta)
        assert squared.scores["gauss_newton_trace"][i] == pytest.approx(float((j**2).sum()) * 2 / CLASSES, rel=1e-10)
    assert squared.targets is None


def test_many_outputs_are_probed_with_an_error():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Linear(3, 130, bias=False).double()
    x = data()[0][:, :3]
    y = torch.zeros(N, 130, dtype=torch.float64)
    found = samples(ls.Objective(net, nn.MSELoss(), (x, y), dtype="float64"), "gauss_newton_trace")
    exact = 2 * (x**2).sum(1).numpy()  # 130 outputs, each with 2 / 130 x x^T
    assert found.errors["gauss_newton_trace"] > 0
    assert np.abs(found.scores["gauss_newton_trace"] - exact).max() < 5 * found.errors["gauss_newton_trace"]


def test_scores_do_not_depend_on_the_batches_and_leave_no_trace():
    net, before = network().train(), torch.random.get_rng_state()
    weights = {name: t.clone() for name, t in net.state_dict().items()}
    made = [
        samples(ls.Objective(net, nn.CrossEntropyLoss(), data(), dtype="float64", batch_size=size), probes=3).scores
        for size in (None, 4, 1)
    ]
    for other in made[1:]:
        for name, values in made[0].items():
            assert other[name] == pytest.approx(values, rel=1e-6, abs=1e-9), name
    assert net.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(t, weights[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_generator_decides_the_signs():
    one, two, other = (
        samples(objective(), "input_curvature", generator=torch.Generator().manual_seed(s)).scores["input_curvature"]
        for s in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


# --- training ---


def trained_points(steps: int = 6) -> list[nn.Module]:
    """Networks of one input at the points of a short training."""
    net, (x, y) = network(inputs=1), data(1)
    out = []
    for _ in range(steps):
        twin = network(inputs=1)
        twin.load_state_dict(net.state_dict())
        out.append(twin)
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 2.0 * p.grad
    return out


def test_scores_over_training_are_those_of_a_plain_loop():
    """With one input E ||H z||^2 is H^2 for either sign z."""
    nets, (x, y) = trained_points(), data(1)
    flats = [torch.cat([p.detach().reshape(-1) for p in net.parameters()]) for net in nets]
    target = ls.Objective(nets[-1], nn.CrossEntropyLoss(), (x, y), dtype="float64")
    found = samples(target, trajectory=flats, probes=2, step=1e-6)
    losses = np.array([F.cross_entropy(net(x), y, reduction="none").detach().numpy() for net in nets])
    right = np.array([(net(x).argmax(1) == y).numpy() for net in nets])
    assert found.checkpoints == len(nets)
    assert found.by == "cumulative_loss"
    assert found.scores["cumulative_loss"] == pytest.approx(losses.sum(0), rel=1e-12)
    events = [
        sum(a and not b for a, b in zip(right[:-1, i], right[1:, i], strict=True)) if right[:, i].any() else len(nets)
        for i in range(N)
    ]
    assert found.scores["forgetting"].tolist() == events
    assert len(set(events)) > 1, "the training is one in which something happens"
    slopes, curvatures = np.zeros(N), np.zeros(N)
    for net in nets:
        at = x.clone().requires_grad_()
        slopes += torch.autograd.grad(F.cross_entropy(net(at), y, reduction="sum"), at)[0].abs().sum(1).numpy()
        for i in range(N):
            h = torch.autograd.functional.hessian(lambda a, net=net, i=i: F.cross_entropy(net(a[None]), y[i : i + 1]), x[i])
            curvatures[i] += float((h @ h).trace())
    assert found.scores["mean_loss_sensitivity"] == pytest.approx(slopes / len(nets), rel=1e-9)
    assert found.scores["mean_input_curvature"] == pytest.approx(curvatures / len(nets), rel=1e-4)


def test_a_trajectory_of_files_has_its_batchnorm_statistics(tmp_path):
    """Weights alone would be evaluated with the statistics of the last epoch."""
    x, y = data()
    nets = []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, CLASSES)).double()
            net(3 * torch.randn(40, 5, dtype=torch.float64))
        save(tmp_path / f"epoch-{seed}.safetensors", net.state_dict(), recipe={})
        nets.append(net.eval())
    target = ls.Objective(nets[-1], nn.CrossEntropyLoss(), (x, y), dtype="float64")
    files = CheckpointFiles(tmp_path, nets[-1])
    found = samples(target, ["cumulative_loss", "mean_loss_sensitivity"], trajectory=files.points())
    losses = sum(F.cross_entropy(net(x), y, reduction="none").detach() for net in nets)
    assert found.scores["cumulative_loss"] == pytest.approx(losses.numpy(), rel=1e-12)
    slopes = torch.zeros(N, dtype=torch.float64)
    for net in nets:
        at = x.clone().requires_grad_()
        slopes += torch.autograd.grad(F.cross_entropy(net(at), y, reduction="sum"), at)[0].abs().sum(1)
    assert found.scores["mean_loss_sensitivity"] == pytest.approx((slopes / 3).numpy(), rel=1e-9)
    with pytest.raises(UsageError, match="expected the running statistics of BatchNorm with every point"):
        samples(target, "cumulative_loss", trajectory=list(files))


# --- what is not defined ---


def test_inputs_that_are_no_real_numbers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, CLASSES))
    tokens = torch.randint(0, 7, (N, 2), generator=torch.Generator().manual_seed(0))
    target = ls.Objective(net, nn.CrossEntropyLoss(), (tokens, data()[1]))
    found = samples(target)
    assert set(found.scores) == {"loss", "gauss_newton_trace", "top_curvature"}
    assert set(found.missing) == {"loss_sensitivity", "input_curvature"}
    assert "one tensor of real numbers" in found.missing["input_curvature"]
    assert "input_curvature: not defined" in str(found)
    assert found.by == "loss"
    with pytest.raises(UsageError, match="expected to rank by input_curvature, found that it is not defined"):
        samples(target, by="input_curvature")


def test_samples_that_mix_have_no_scores_of_their_inputs():
    def whole(output, target):
        return F.cross_entropy(output, target).sqrt()

    with pytest.raises(UsageError, match="a loss that is a mean over samples"):
        samples(ls.Objective(network(), whole, data(), dtype="float64"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scores": "curvature"}, "expected a score, found 'curvature'; choose among loss,"),
        ({"scores": "forgetting"}, "expected the checkpoints of training for forgetting, found none"),
        ({"scores": []}, "expected at least one score"),
        ({"scores": "loss", "by": "input_curvature"}, "expected to rank by one of the scores, found 'input_curvature'"),
        ({"probes": 0}, "expected at least 1 probe, found 0"),
        ({"step": 0.0}, "expected a positive step, found 0"),
        ({"top": 0}, "expected at least 1 sample to show"),
        ({"wrong": torch.zeros(3, dtype=torch.bool)}, "expected a mask of 13 samples, found 3 values"),
        ({"trajectory": []}, "expected at least 2 checkpoints of training, found 0"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UsageError) as error:
        samples(objective(), **options)
    assert text in str(error.value)


# --- the result ---


def test_a_result_prints_ranks_and_is_kept_as_json():
    wrong = torch.zeros(N, dtype=torch.bool)
    wrong[[1, 4, 5]] = True
    found = samples(objective(), ["loss", "gauss_newton_trace"], wrong=wrong, top=3, names=("a", "b", "c", "d"))
    order = sorted(range(N), key=lambda i: -found.scores["loss"][i])
    assert found.ranking().tolist() == order
    assert [row[1] for row in found.rows()] == [str(i) for i in order[:3]]
    assert found.inputs == pytest.approx(data()[0][order[:3]].numpy())
    text = str(found)
    assert "loss *" in text
    assert "AUROC for 3 wrong samples among 13" in text
    again = SampleScores.from_json(json.loads(json.dumps(found.to_json())))
    assert str(again) == text
    assert again.to_json() == found.to_json()
    assert again.detection == found.detection


def test_every_score_has_a_name_a_unit_and_a_line(found):
    assert list(found.scores) == [name for name, kind in SCORES.items() if not kind.follows]
    for name, kind in SCORES.items():
        assert kind.summary.endswith("."), name
        assert kind.unit, name


class TooLargeTogether(nn.Linear):
    """A network that has memory for one sample, not for several under vmap."""

    def forward(self, x):
        if torch._C._functorch.is_batchedtensor(x):
            raise MemoryError("no memory for all samples together")
        return super().forward(x)


def test_a_lack_of_memory_is_not_taken_for_a_network_without_vmap():
    data = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    objective = ls.Objective(TooLargeTogether(3, 2), nn.CrossEntropyLoss(), data, dtype="float64")
    with pytest.raises(MemoryError):
        samples(objective, ["gauss_newton_trace"], by="gauss_newton_trace")


@pytest.mark.parametrize("kind", ["plain", "class weights", "ignored", "tokens"])
def test_shares_are_those_of_the_trace_that_the_samples_weights_make(kind):
    """The weighted mean of the samples' traces is the trace, and the shares are its parts."""
    x, y = data()
    net, loss = network(), nn.CrossEntropyLoss()
    if kind == "class weights":
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 10.0, 0.1, 2.0], dtype=torch.float64))
    if kind == "ignored":
        y = torch.where(torch.arange(N) < 4, -100, y)
    if kind == "tokens":
        x, y = x[:12].reshape(4, 3, 5), y[:12].reshape(4, 3).clone()
        y[0, 1:] = -100
        net = nn.Sequential(net, Transposed())
    own = ls.Objective(net, loss, (x, y), dtype="float64")
    found = samples(own, scores=["gauss_newton_trace"])
    traces, weights = found.scores["gauss_newton_trace"], 1.0 if found.weights is None else found.weights
    assert (found.weights is None) is (kind == "plain")
    parts = traces * weights
    whole = parts.sum() / (len(traces) if found.weights is None else found.weights.sum())
    assert whole == pytest.approx(gauss_newton_trace(own, exact=True).value, rel=1e-9)
    np.testing.assert_allclose(found.shares(), np.sort(parts)[::-1] / parts.sum(), rtol=1e-12)
    again = SampleScores.from_json(found.to_json())
    np.testing.assert_allclose(again.shares(), found.shares(), rtol=1e-12)


class Transposed(nn.Module):
    """Classes before tokens, as the cross-entropy takes them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)
