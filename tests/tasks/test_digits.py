"""The embedded digits, read without scikit-learn: the same numbers and the same split as with it."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from landscape.errors import UsageError
from landscape.tasks.data import digits
from landscape.tasks.data.by_name import read_data


def test_the_digits_are_those_of_the_library():
    raw = load_digits()
    images, labels = digits.read_digits()
    np.testing.assert_array_equal(images, raw.images.astype(np.float32))
    np.testing.assert_array_equal(labels, raw.target)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("test", [449, 450, 500, 901])
def test_the_split_is_that_of_the_library(seed, test):
    labels = load_digits().target
    theirs = train_test_split(np.arange(len(labels)), test_size=test, stratify=labels, random_state=seed)
    for own, other in zip(digits.split_by_class(labels, test, seed), theirs, strict=True):
        np.testing.assert_array_equal(own, other)


def test_ties_are_drawn_by_lot_as_there():
    labels = np.repeat(np.arange(8), 7)
    theirs = train_test_split(np.arange(56), test_size=18, stratify=labels, random_state=3)
    for own, other in zip(digits.split_by_class(labels, 18, 3), theirs, strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_file_that_is_elsewhere_is_found_by_the_library(monkeypatch, tmp_path):
    """The wheel's file is not where it was: the data are the same."""
    expected = digits.read_digits()
    monkeypatch.setattr(digits, "_COLUMNS", 64)
    for own, other in zip(digits.read_digits(), expected, strict=True):
        np.testing.assert_array_equal(own, other)


def test_without_the_library_one_line_says_so(monkeypatch):
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="expected scikit-learn, which contains the digits"):
        read_data("digits")


def test_the_data_set_is_what_it_was():
    data = read_data("digits")
    assert data.train_x.dtype == torch.float32
    assert data.train_y.dtype == torch.int64
    raw = load_digits()
    rows = train_test_split(np.arange(1797), test_size=450, stratify=raw.target, random_state=0)
    for x, y, own in ((data.train_x, data.train_y, rows[0]), (data.test_x, data.test_y, rows[1])):
        np.testing.assert_array_equal(x[:, 0], raw.images[own].astype(np.float32))
        np.testing.assert_array_equal(y, raw.target[own])
