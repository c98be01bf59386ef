"""The conditions of Zhang et al.: their statistics, what stays untouched, and reproducibility."""

import numpy as np
import pytest
import torch

from landscape.errors import UsageError
from landscape.tasks.data.corruption import CONDITIONS, corrupt

N, CLASSES = 20_000, 10


@pytest.fixture(scope="module")
def images():
    g = torch.Generator().manual_seed(1)
    x = torch.randint(256, (40, 3, 6, 5), generator=g).to(torch.uint8)
    return x, torch.randint(10, (40,), generator=g), torch.randint(256, (7, 3, 6, 5), generator=g).to(torch.uint8)


def labels() -> torch.Tensor:
    return torch.randint(CLASSES, (N,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("condition", "level"), [("labels", 0.2), ("labels", 0.4), ("labels", 1.0), ("random-labels", None)])
def test_fraction_wrong(condition, level):
    y = labels()
    out = corrupt(torch.zeros(N, 1), y, condition, classes=CLASSES, seed=5, level=level)
    p = 1.0 if level is None else level
    for mask, expected in ((out.redrawn, p), (out.wrong, 0.9 * p)):
        error = 4 * np.sqrt(expected * (1 - expected) / N)  # four standard deviations of a binomial share
        assert abs(mask.double().mean().item() - expected) <= error
    assert torch.equal(out.wrong, out.y != y)
    assert not bool((out.wrong & ~out.redrawn).any())
    # redrawn labels are uniform: chi-squared with 9 degrees of freedom, 99.99 % quantile
    counts = torch.bincount(out.y[out.redrawn], minlength=CLASSES).double()
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 33.7


def test_level_zero_and_nesting():
    y = labels()
    none, some, more = (corrupt(torch.zeros(N, 1), y, "labels", classes=CLASSES, seed=5, level=p) for p in (0.0, 0.2, 0.4))
    assert torch.equal(none.y, y)
    assert not bool((some.redrawn & ~more.redrawn).any())
    assert torch.equal(some.y[some.redrawn], more.y[some.redrawn])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_seed_decides_and_nothing_given_is_changed(condition, images):
    x, y, test_x = images
    level = 0.5 if condition == "labels" else None
    kept, state = (x.clone(), y.clone(), test_x.clone()), torch.get_rng_state()
    a, b, c = (corrupt(x, y, condition, classes=10, seed=s, level=level, test_x=test_x) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(now, then) for now, then in zip((x, y, test_x), kept, strict=True))
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y, b.y)
    same = torch.equal(a.x, c.x) and torch.equal(a.y, c.y)
    assert same == (condition == "clean")
    assert torch.equal(a.test_x, test_x) == (condition != "shuffled-pixels")
    if condition not in ("labels", "random-labels"):
        assert torch.equal(a.y, y)
        assert not bool(a.wrong.any() | a.redrawn.any())


def pixels(x: torch.Tensor) -> np.ndarray:
    return x.flatten(2).numpy()  # (N, C, HW)


def test_shuffled_pixels_is_one_permutation(images):
    x, y, test_x = images
    out = corrupt(x, y, "shuffled-pixels", classes=10, seed=0, test_x=test_x)
    # the permutation, found again from an image whose pixels are all different
    marks = torch.arange(30, dtype=torch.uint8).reshape(1, 1, 6, 5).expand(1, 3, 6, 5)
    order = pixels(corrupt(marks, y[:1], "shuffled-pixels", classes=10, seed=0).x)[0, 0]
    assert sorted(order) == list(range(30))
    np.testing.assert_array_equal(pixels(out.x), pixels(x)[:, :, order])
    np.testing.assert_array_equal(pixels(out.test_x), pixels(test_x)[:, :, order])


def test_random_pixels_is_a_permutation_an_image(images):
    x, y, _ = images
    same = x[:1].expand(20, -1, -1, -1)
    out = pixels(corrupt(same, y[:20], "random-pixels", classes=10, seed=0).x)
    assert len({o.tobytes() for o in out}) == 20
    colours = sorted(map(tuple, pixels(x)[0].T))  # the channels of a pixel stay together
    assert all(sorted(map(tuple, o.T)) == colours for o in out)


def test_gaussian_matches_each_channel():
    x = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 20.0]).reshape(
        1, 3, 1, 1
    )
    out = corrupt(x, torch.zeros(400, dtype=torch.long), "gaussian", classes=2, seed=0).x
    for c in range(3):
        assert out[:, c].mean().item() == pytest.approx(x[:, c].mean().item(), abs=0.05 * x[:, c].std().item())
        assert out[:, c].std().item() == pytest.approx(x[:, c].std().item(), rel=0.02)
    assert abs(np.corrcoef(out.flatten(), x.flatten())[0, 1]) < 0.6  # only the channels' means are shared
    assert abs(np.corrcoef(out[:, 0].flatten(), x[:, 0].flatten())[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("condition", "level", "text"),
    [
        ("noise", None, "expected a corruption .*, found 'noise'"),
        ("labels", None, "expected the level of label corruption between 0 and 1, found None"),
        ("labels", 1.5, "expected the level of label corruption between 0 and 1, found 1.5"),
        ("gaussian", 0.5, "expected no level with corruption 'gaussian', found 0.5"),
    ],
)
def test_bad_conditions(condition, level, text):
    with pytest.raises(UsageError, match=text):
        corrupt(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), condition, classes=2, seed=0, level=level)
