"""scikit-learn's embedded digits, read from its wheel without importing it, and split once for everybody."""

import gzip
import importlib.util
from contextlib import suppress
from pathlib import Path

import numpy as np

from landscape.errors import UsageError

# Shape of the data, for a file of another version to be told.
_SAMPLES, _COLUMNS = 1797, 65
_TEST = 450


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) with values from 0 to 16, float32, and labels (1797,), int64.

    Raises:
        UsageError: scikit-learn is not installed.

    Example:
        >>> images, labels = read_digits()
        >>> images.shape, labels[:4].tolist(), float(images.max())
        ((1797, 8, 8), [0, 1, 2, 3], 16.0)
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise UsageError("expected scikit-learn, whose digits these are, found none", fix="pip install scikit-learn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows: np.ndarray = np.empty((0, 0), dtype=np.float32)
    with suppress(OSError, ValueError):
        rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.float32)
    if rows.shape != (_SAMPLES, _COLUMNS):  # kept elsewhere in this version: a second or two more to import
        from sklearn.datasets import load_digits

        raw = load_digits()
        rows = np.column_stack((raw.data, raw.target)).astype(np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def split_by_class(labels: np.ndarray, test: int = _TEST, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the test samples: every class in proportion, drawn at random, in random order.

    The same as `sklearn.model_selection.train_test_split(range(n), test_size=test, stratify=labels, random_state=seed)`: numpy
    keeps this generator's stream the same for ever, and trained networks rely on the split.

    Args:
        labels: (n,) classes.
        test: test samples; the others are for training.
        seed: of the draw.

    Returns:
        Training numbers (n - test,), test numbers (test,).
    """
    random = np.random.RandomState(seed)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    for_training = _in_proportion(counts, len(labels) - test, random)
    for_test = _in_proportion(counts - for_training, test, random)
    train_parts, test_parts = [], []
    for own, a, b in zip(members, for_training, for_test, strict=True):
        drawn = own[random.permutation(len(own))]
        train_parts.append(drawn[:a])
        test_parts.append(drawn[a : a + b])
    return random.permutation(np.concatenate(train_parts)), random.permutation(np.concatenate(test_parts))


def _in_proportion(counts: np.ndarray, wanted: int, random: np.random.RandomState) -> np.ndarray:
    """So many of each class that they are `wanted` in all: shares rounded down, the largest remainders up, ties by lot."""
    shares = counts / counts.sum() * wanted
    out = np.floor(shares)
    left, remainders = int(wanted - out.sum()), shares - out
    for value in np.unique(remainders)[::-1] if left else ():
        (tied,) = np.nonzero(remainders == value)
        some = min(len(tied), left)
        out[random.choice(tied, size=some, replace=False)] += 1
        left -= some
        if not left:
            break
    return out.astype(np.int64)
