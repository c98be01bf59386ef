"""How a network is run for its values: equal to the plain network in float64, whatever the memory format, the cut, the fold."""

import copy

import numpy as np
import pytest
import torch
from cases import CASES
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.network.batches import Batch
from landscape.network.losses.mean_loss import MeanLoss, accuracy
from landscape.objective import Objective
from landscape.values import inference
from landscape.values.evaluation import evaluated
from landscape.values.inference import inference_network
from landscape.values.scores import losses_and_hits


def objective_of(index: int, **options) -> Objective:
    model, loss, x, y = CASES[index].make(0)
    return Objective(model, loss, (x, y), **options)


def by_hand(index: int) -> float:
    """The loss of the module as it is, in float64."""
    model, loss, x, y = CASES[index].make(0)
    with torch.no_grad():
        target = y.double() if y.is_floating_point() else y
        return float(copy.deepcopy(loss).double()(copy.deepcopy(model).double()(x.double()), target))


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: CASES[i].name)
def test_a_loss_is_that_of_the_plain_module(index, batch_size):
    assert objective_of(index, dtype="float64", batch_size=batch_size).value().value == pytest.approx(by_hand(index), rel=1e-13)
    assert objective_of(index, batch_size=batch_size).value().value == pytest.approx(by_hand(index), rel=3e-6)


@pytest.mark.parametrize("index", [3, 4], ids=["cnn", "residual"])
def test_images_are_cut_and_turned_and_nothing_changes_but_rounding(monkeypatch, index):
    whole = objective_of(index)
    assert [len(b) for b in inference_network(whole._engine).batches] == [23]
    monkeypatch.setattr(inference, "_CACHE", 1)
    monkeypatch.setattr(inference, "_SMALLEST", 4)
    monkeypatch.setattr(inference, "_JOINED", 0)
    cut = objective_of(index)
    assert [len(b) for b in inference_network(cut._engine).batches] == [4, 4, 4, 4, 4, 3]
    assert all(b.args[0].is_contiguous(memory_format=torch.channels_last) for b in inference_network(cut._engine).batches)
    for name, values in whole.evaluate().each.items():
        assert cut.evaluate().each[name] == pytest.approx(values, rel=1e-5, abs=1e-6)
    assert cut.batch_sizes == [23], "what is cut here is cut nowhere else"


class Viewing(nn.Sequential):
    """A convolution and a view, which wants channels first."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 1), nn.Linear(36, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[1](self[0](x)).view(len(x), -1))


def test_a_network_that_wants_channels_first_has_them():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x, y = Viewing(), torch.randn(9, 2, 5, 5), torch.randint(0, 3, (9,))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    assert objective.arithmetic == "float32"
    with torch.no_grad():
        assert objective.value().value == pytest.approx(float(F.cross_entropy(model(x), y)), rel=1e-6)
    assert objective.values_in("bfloat16").value().value == pytest.approx(objective.value().value, rel=0.02)


def test_a_batch_that_its_loss_or_its_normalization_needs_whole_is_not_cut(monkeypatch):
    monkeypatch.setattr(inference, "_CACHE", 1)
    monkeypatch.setattr(inference, "_SMALLEST", 4)
    model, _, x, y = CASES[4].make(0)
    spread = Objective(model, lambda output, target: output.var() + 0 * target.sum(), (x, y))
    assert [len(b) for b in inference_network(spread._engine).batches] == [23]
    normalized = objective_of(4).batch_normalized()
    assert [len(b) for b in inference_network(normalized._engine).batches] == [23]


class Remembering(nn.Module):
    """A network that keeps a table from its first pass, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(5, 3), None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 5)
        return self.fc(x * self.table)


def test_what_a_network_keeps_from_an_evaluation_can_be_differentiated_later():
    _, loss, x, y = CASES[0].make(0)
    objective = Objective(Remembering(), loss, (x, y))
    objective.evaluate()
    assert bool(objective.gradient().abs().sum() > 0)
    assert bool(objective.hvp(objective.theta).isfinite().all())
    found = objective.losses()
    assert found is not None
    assert not found.is_inference()


LOSSES = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 0.0])),
    nn.CrossEntropyLoss(ignore_index=1),
    nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0]), ignore_index=0),
    nn.CrossEntropyLoss(label_smoothing=0.1),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_hits_are_those_of_pytorch(loss, dtype):
    g = torch.Generator().manual_seed(0)
    output = (5 * torch.randn(200, 3, generator=g, dtype=torch.float64)).to(dtype)
    output[:40] = output[:40].round()  # ties: the first of equal logits counts
    output[0], output[1] = torch.tensor([100.0, 0.0, 0.0]), torch.tensor([1e30, -1e30, 0.0])
    output[2] = torch.tensor([-torch.inf, 0.0, 1.0])
    target = torch.randint(0, 3, (200,), generator=g)
    mean = MeanLoss(copy.deepcopy(loss).to(dtype))
    each, hits = losses_and_hits(mean, output, Batch((), {}, target, mean.sample_weights(target)))
    torch.testing.assert_close(each, mean.per_sample(output, target), rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=1e-7)
    torch.testing.assert_close(hits, accuracy(output, target, mean.ignore_index), rtol=0, atol=0, equal_nan=True)


def test_logits_that_are_no_numbers_stay_so():
    loss, target = MeanLoss(nn.CrossEntropyLoss()), torch.tensor([0, 0, 1])
    output = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, -torch.inf]])
    each, _ = losses_and_hits(loss, output, Batch((), {}, target))
    assert torch.equal(each.isnan(), loss.per_sample(output, target).isnan())


def test_a_loss_that_inherits_is_asked_itself():
    class Doubled(nn.CrossEntropyLoss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return 2 * super().forward(output, target)

    model, _, x, y = CASES[0].make(0)
    twice, once = (Objective(model, loss, (x, y)).value().value for loss in (Doubled(), nn.CrossEntropyLoss()))
    assert twice == pytest.approx(2 * once)


def test_the_prepared_network_goes_with_its_engine():
    import gc
    import weakref

    objective = objective_of(3)
    objective.evaluate()
    gone = weakref.ref(inference_network(objective._engine))
    assert gone() is inference_network(objective._engine)
    del objective
    gc.collect()
    assert gone() is None


def test_one_wait_for_the_device(monkeypatch):
    """All samples' values are fetched at once: on a GPU every fetch stops the queue."""
    objective = objective_of(0, batch_size=4)
    objective.evaluate()
    fetched = []
    real = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda t: (fetched.append(t.shape), real(t))[1])
    monkeypatch.setattr(Tensor, "item", lambda t: pytest.fail("waits"))
    monkeypatch.setattr(Tensor, "__float__", lambda t: pytest.fail("waits"))
    evaluated(objective._engine, objective.layout.unflatten(objective.theta), None)
    assert fetched == [torch.Size([46])]
    assert np.isfinite(fetched[0][0])
