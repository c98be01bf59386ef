"""Losses of (model, batch): the examples of docs/losses.md against dense Hessians in float64, and what is refused."""

import pytest
import torch
from pages import ROOT, blocks
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import landscape as ls
from landscape.errors import NumericalError, UsageError
from landscape.tasks import Task
from landscape.tasks.userfile import load_user_task


@pytest.fixture(scope="module")
def page():
    """The names that the Python of docs/losses.md defines."""
    found: dict[str, object] = {}
    exec("\n".join(blocks(ROOT / "docs" / "losses.md", "python")), found)
    return found


class Called(nn.Module):
    """A network at given weights, as its function sees it."""

    def __init__(self, net: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.parts = (net, weights)

    def forward(self, *args):
        return functional_call(*self.parts, args)


def doubled(batch):
    """A batch in float64."""
    if isinstance(batch, dict):
        return {k: doubled(t) for k, t in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(map(doubled, batch))
    return batch.double() if batch.is_floating_point() else batch


def dense(net: nn.Module, loss, weighted_batches):
    """Gradient and Hessian of sum w_b loss_b / sum w_b, by double backward row by row."""
    net = net.double()
    named = {n: p.detach() for n, p in net.named_parameters()}
    theta = torch.cat([p.reshape(-1) for p in named.values()]).requires_grad_()
    parts = theta.split([p.numel() for p in named.values()])
    called = Called(net, {n: t.view(p.shape) for (n, p), t in zip(named.items(), parts, strict=True)})
    total = sum(w for _, w in weighted_batches)
    value = sum(w / total * loss(called, doubled(batch)) for batch, w in weighted_batches)
    (slope,) = torch.autograd.grad(value, theta, create_graph=True)
    return (
        float(value.detach()),
        slope.detach(),
        torch.stack([torch.autograd.grad(s, theta, retain_graph=True)[0] for s in slope]),
    )


def agrees(objective, value, slope, bend):
    """Whether value, gradient and the whole Hessian are those."""
    assert objective.value().value == pytest.approx(value, rel=1e-12)
    assert torch.allclose(objective.gradient(), slope, atol=1e-11)
    assert torch.allclose(objective.hvp(torch.eye(objective.dim, dtype=torch.float64)), bend, atol=1e-10)


def test_residual_of_an_equation(page):
    points = torch.linspace(0, 3, 40)[:, None]
    agrees(page["equation"], *dense(page["net"], page["residual"], [(points, 40)]))


def test_contrastive_pairs_are_a_mean_over_the_batches_as_given(page):
    batches = [b.args[0] for b in page["pairs"]._engine.batches]
    assert [len(one) for one, _ in batches] == [8, 8, 8]
    agrees(page["pairs"], *dense(page["encoder"], page["contrast"], [(b, 8) for b in batches]))
    together = ls.Objective(page["encoder"], page["contrast"], tuple(map(torch.cat, zip(*batches, strict=True))))
    assert abs(together.value().value - page["pairs"].value().value) > 0.1  # 24 samples to tell apart instead of 8


def test_autoencoder_and_policy(page):
    x, rollout = page["x"], page["rollout"]
    agrees(page["reconstruction"], *dense(page["coder"], lambda net, x: nn.functional.mse_loss(net(x), x), [(x, 24)]))
    agrees(page["policy"], *dense(page["actor"], page["surrogate"], [(rollout, 30)]))


def test_batches_of_unequal_size_and_own_weights():
    net, x = nn.Linear(3, 2), torch.randn(7, 3)
    loss = lambda model, batch: model(batch[0]).pow(4).mean()  # noqa: E731 - what a user writes
    loader = DataLoader(TensorDataset(x), batch_size=4)
    parts = [([x[:4]], 4), ([x[4:]], 3)]
    twin = lambda net, batch: net(batch[0].double()).pow(4).mean()  # noqa: E731
    agrees(ls.Objective(net, loss, loader, dtype="float64"), *dense(net, twin, parts))
    own = ls.ModelLoss(loss, weight=lambda batch: float(len(batch[0]) == 3))
    agrees(ls.Objective(net, own, loader, dtype="float64"), *dense(net, twin, [(parts[0][0], 0.0), (parts[1][0], 1.0)]))


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("Gauss-Newton products", lambda o: o.ggnvp(o.theta)),
        ("the loss of every sample", lambda o: o.fishervp(o.theta)),
        ("targets", lambda o: o.targets),
        ("the network's outputs", lambda o: o.outputs()),
        ("activations of layers", lambda o: o.layers()),
        ("another loss", lambda o: o.with_loss(nn.MSELoss())),
    ],
)
def test_what_needs_outputs_or_targets_is_refused(page, what, asked):
    with pytest.raises(UsageError, match=rf"expected a loss of \(output, target\) for {what}, found one of \(model, batch\)"):
        asked(page["reconstruction"])


def test_measures_that_need_them_are_not_defined_and_marks_not_known(page):
    found = ls.sharpness(page["reconstruction"], ["trace", "gauss_newton_trace", "empirical_fisher_trace", "logit_norm"])
    assert [m.defined for m in found.measures.values()] == [True, False, False, False]
    assert found.measures["trace"].mark == "not known"
    assert found.accuracy is None


@pytest.mark.parametrize(
    ("loss", "kind", "words"),
    [
        (lambda model, batch: model(batch).square().mean(1), UsageError, "return a scalar tensor, found shape"),
        (lambda model, batch: model(batch["x"]).mean(), UsageError, r"a loss of \(model, batch\) that runs, found"),
        (lambda model, batch: model(batch).mean() * torch.rand(()), NumericalError, "expected the same loss twice"),
        (lambda model, batch: model(batch).mean() / 0, NumericalError, "expected a finite loss"),
    ],
)
def test_mistakes_get_one_line(loss, kind, words):
    with pytest.raises(kind, match=words):
        ls.Objective(nn.Linear(3, 2), loss, torch.randn(5, 3))


def test_a_model_from_outside_is_noticed():
    net = nn.Linear(3, 2)
    with pytest.raises(UsageError, match="uses its argument, found one that uses the model's weight from outside"):
        ls.Objective(net, lambda model, batch: net(batch).square().mean(), torch.randn(5, 3))


def test_a_metric_is_refused():
    with pytest.raises(UsageError, match="for a metric"):
        ls.Objective(nn.Linear(3, 2), lambda model, batch: model(batch).mean(), torch.randn(5, 3), metric=lambda o, y: o[:, 0])


def test_the_callers_batch_and_model_are_left_as_they_were(page):
    points, net = torch.linspace(0, 1, 9)[:, None], nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    before = [p.clone() for p in net.parameters()]
    ls.Objective(net, page["residual"], points).hvp(torch.ones(13))
    assert not points.requires_grad
    assert all(torch.equal(a, b) and b.requires_grad and b.grad is None for a, b in zip(before, net.parameters(), strict=True))


def test_tasks_take_them(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(
        "import torch\nfrom landscape import Task\n\ndef pairs():\n    x = torch.ones(6, 2)\n"
        "    return Task(model=torch.nn.Linear(2, 2), loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),\n"
        "                train=(x, 2 * x, x), test={'a': x})\n"
    )
    task = load_user_task(f"{path}:pairs")
    assert isinstance(task, Task)
    assert (task.size("train"), task.size("test")) == (6, 6)
    assert task.objective(samples=4).samples == 4
    with pytest.raises(UsageError, match="expected at most 6 samples"):
        task.objective(samples=7)


def test_data_of_other_forms():
    x, y, net = torch.randn(6, 4), torch.arange(6) % 3, nn.Linear(4, 3)
    wanted = ls.Objective(net, nn.CrossEntropyLoss(), (x, y)).value().value
    for data in ((x.numpy(), y.numpy()), TensorDataset(x, y)):
        assert ls.Objective(net, nn.CrossEntropyLoss(), data).value().value == pytest.approx(wanted, rel=1e-6)
        assert Task(net, nn.CrossEntropyLoss(), train=data).objective(samples=3).samples == 3


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return {"out": self.one(x), "aux": self.two(x)}


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 5), nn.Linear(5, 9)

    def forward(self, tokens):
        return self.head(self.table(tokens))


def test_outputs_of_other_forms():
    x, y, net = torch.randn(6, 4), torch.arange(6) % 3, Segmenting()
    alone = ls.Objective(net.one, nn.CrossEntropyLoss(), (x, y)).value().value
    assert ls.Objective(net, nn.CrossEntropyLoss(), (x, y)).value().value == pytest.approx(alone)
    tokens = torch.arange(20).view(4, 5) % 9
    with pytest.raises(UsageError, match=r"found \(N, 5, 9\) for .*; to predict the next token pass landscape\.NextTokenLoss"):
        ls.Objective(Language(), nn.CrossEntropyLoss(), (tokens, tokens))


def test_a_loss_of_model_and_batch_by_other_names_is_told_the_rule():
    def pairs(net_, b):
        first, second, same = b
        return ((net_(first) - net_(second)).square().sum(1) * same).mean()

    net = nn.Sequential(nn.Linear(4, 3))
    data = (torch.rand(5, 4), torch.rand(5, 4), torch.ones(5))
    rule = r"call its arguments model and batch, or pass landscape.ModelLoss\(loss\)"
    with pytest.raises(UsageError, match=r"with arguments net_ and b, was read as one of outputs and targets: .*" + rule):
        ls.Objective(net, pairs, data)
    with pytest.raises(UsageError, match=rule):  # two tensors: the model runs, the loss calls its output
        ls.Objective(net, lambda net_, b: net_(b).square().mean(), data[:2])
    found = ls.Objective(net, ls.ModelLoss(pairs), data).value().value
    assert found == pytest.approx(float(pairs(net, data).detach()), rel=1e-6)
