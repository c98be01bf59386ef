"""Task: splits and first samples, for every form of data."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from landscape.errors import UsageError
from landscape.tasks import Task

X = torch.randn(11, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(11) % 2


def model() -> torch.nn.Module:
    net = torch.nn.Linear(3, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.arange(6).reshape(2, 3) / 4)
        net.bias.zero_()
    return net


def reference(n: int) -> float:
    """Mean cross-entropy of the first n samples, in numpy."""
    z = X[:n].numpy() @ (np.arange(6).reshape(2, 3) / 4).T
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(n), Y[:n].numpy()]))


FORMS = {
    "tensors": (X, Y),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=4),
    "list": [(X[:5], Y[:5]), (X[5:6], Y[5:6]), (X[6:], Y[6:])],
    "dictionaries": [{"input": X[:7], "labels": Y[:7]}, {"input": X[7:], "labels": Y[7:]}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("samples", [1, 4, 6, 11, None])
def test_first_samples_in_order(form, samples):
    task = Task(model(), torch.nn.CrossEntropyLoss(), train=FORMS[form])
    objective = task.objective(samples=samples, batch_size=3, dtype="float64")
    n = 11 if samples is None else samples
    assert task.size("train") == 11
    assert objective.samples == n
    assert objective.evaluate().loss.value == pytest.approx(reference(n), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (0, "expected --samples of at least 1, found 0; the train split has 11"),
        (-3, "expected --samples of at least 1, found -3"),
        (12, "expected at most 11 samples, all that the train split has, found --samples 12"),
    ],
)
def test_bad_samples(form, samples, text):
    task = Task(model(), torch.nn.CrossEntropyLoss(), train=FORMS[form])
    with pytest.raises(UsageError, match=text):
        task.objective(samples=samples)


def test_splits():
    task = Task(model(), torch.nn.CrossEntropyLoss(), train=(X, Y))
    with pytest.raises(UsageError, match="expected a test split, found a task without one"):
        task.objective("test")
    with pytest.raises(UsageError, match="expected split train or test, found 'val'"):
        task.objective("val")
    other = Task(model(), torch.nn.CrossEntropyLoss(), train=(X, Y), test=(X[:2], Y[:2]))
    assert other.objective("test", dtype="float64").samples == 2


class Noisy(TensorDataset):
    """Adds noise at every reading, as augmentation does."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.rand(3), y


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize(
    "loader", [DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True), DataLoader(Noisy(X, Y), batch_size=4)]
)
def test_data_that_change_are_refused(loader, samples):
    task = Task(model(), torch.nn.CrossEntropyLoss(), train=loader)
    with pytest.raises(UsageError, match="found a DataLoader that shuffles"):
        task.objective(samples=samples)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": torch.nn.Linear}, "expected the task's model to be a torch.nn.Module, found a class, not an instance"),
        ({"loss": "mse"}, "expected the task's loss to be callable, found an object of type str"),
        ({"metric": 3}, "expected the task's metric to be callable, found an object of type int"),
        ({"train": None}, "expected train data as .*, found an object of type NoneType"),
        (
            {"test": iter([])},
            "expected test data as .*, found an object of type list_iterator; a generator can be read only once",
        ),
    ],
)
def test_bad_fields(changes, text):
    fields = {"model": model(), "loss": torch.nn.CrossEntropyLoss(), "train": (X, Y)} | changes
    with pytest.raises(UsageError, match=text):
        Task(**fields)
