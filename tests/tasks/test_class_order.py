"""The first samples of data that are sorted by class are said to be no fair share; in any other order nothing is said."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from landscape.tasks.data.class_order import sorted_by_class

X, SORTED = torch.zeros(120, 2), torch.arange(120) // 40
SHUFFLED = SORTED[torch.randperm(120, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("samples", [35, 40, 60])
def test_sorted_tensors_are_found(samples):
    assert sorted_by_class((X, SORTED), samples) == (1 + (samples > 40), 3)
    assert sorted_by_class((X, SHUFFLED), samples) is None


def test_batches_of_pairs_and_of_labels_are_read_as_one():
    pairs = [(X[i : i + 50], SORTED[i : i + 50]) for i in (0, 50, 100)]
    named = [{"input_ids": x, "labels": y} for x, y in pairs]
    assert sorted_by_class(pairs, 40) == sorted_by_class(named, 40) == (1, 3)


@pytest.mark.parametrize("samples", [81, 120])
def test_nothing_is_said_where_all_classes_are_there(samples):
    assert sorted_by_class((X, SORTED), samples) is None


@pytest.mark.parametrize(
    ("classes", "each", "samples", "seen"), [(10, 100, 100, 1), (100, 500, 100, 1), (100, 500, 1024, 3), (1000, 50, 400, 8)]
)
def test_sorted_data_of_many_classes_are_found_and_shuffled_ones_are_not(classes, each, samples, seen):
    labels = torch.arange(classes * each) // each
    assert sorted_by_class((labels, labels), samples) == (seen, classes)
    for seed in range(20):
        mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
        assert sorted_by_class((mixed, mixed), samples) is None


def test_a_rare_class_may_be_absent():
    labels = torch.cat([torch.zeros(990), torch.ones(10)]).long()
    assert sorted_by_class((labels, labels), 100) is None


def test_a_few_samples_miss_classes_in_any_order():
    many = torch.arange(1000) % 100
    assert sorted_by_class((torch.zeros(1000, 2), many), 20) is None


@pytest.mark.parametrize(
    "data",
    [
        (X, X),  # a regression
        [{"input_ids": X.long(), "labels": X.long()}],  # a label for every token
        DataLoader(TensorDataset(X, SORTED)),  # would be read for it
        X,
    ],
    ids=["regression", "tokens", "loader", "tensor"],
)
def test_other_data_are_not_looked_at(data):
    assert sorted_by_class(data, 30) is None
