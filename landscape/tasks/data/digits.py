"""scikit-learn's digits, read from its package without importing it, with a fixed split."""

import gzip
import importlib.util
from contextlib import suppress
from pathlib import Path

import numpy as np

from landscape.errors import UsageError

# Shape of the data, to detect a file of another version.
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
        raise UsageError("expected scikit-learn, which contains the digits, found none", fix="pip install scikit-learn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows: np.ndarray = np.empty((0, 0), dtype=np.float32)
    with suppress(OSError, ValueError):
        rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.float32)
    if rows.shape != (_SAMPLES, _COLUMNS):  # another place in this version: import scikit-learn, which takes a second or two
        from sklearn.datasets import load_digits

        raw = load_digits()
        rows = np.column_stack((raw.data, raw.target)).astype(np.float32)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def split_by_class(labels: np.ndarray, test: int = _TEST, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and test samples of a random split, stratified by class, in random order.

    The same as `sklearn.model_selection.train_test_split(range(n), test_size=test, stratify=labels, random_state=seed)`. numpy
    guarantees that the stream of this generator does not change, and trained networks depend on the split.

    Args:
        labels: (n,) classes.
        test: number of test samples; the others are for training.
        seed: seed of the split.

    Returns:
        Training indices (n - test,), test indices (test,).
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
    """Numbers per class with total `wanted`: shares rounded down, largest remainders rounded up, ties broken at random."""
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
