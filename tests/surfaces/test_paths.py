"""The line between two minima: its ends, its barrier with its error, and BatchNorm on the way."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn

from landscape.errors import MismatchError, UsageError
from landscape.objective import Objective
from landscape.results import DONE, FAILED, NOT_FINITE, Barrier, Slice
from landscape.surfaces import interpolation


def pair(index: int = 3, **options) -> tuple[Objective, Objective, Objective]:
    """Two networks of one architecture on one data set, and test data."""
    model, loss, x, y = CASES[index].make(0)
    other = CASES[index].make(5)[0]
    _, _, u, v = CASES[index].make(9)
    made = [
        Objective(m, loss, data, dtype="float64", **options) for m, data in ((model, (x, y)), (other, (x, y)), (model, (u, v)))
    ]
    return made[0], made[1], made[2]


@pytest.mark.parametrize("batchnorm", ["recalibrate", "interpolate", "eval"])
def test_both_ends_have_their_own_weights_and_statistics_to_the_bit(batchnorm):
    """Where statistics are re-estimated those of the ends are, too."""
    start, end, test = pair()
    result = interpolation(start, end, grid=5, test=test, batchnorm=batchnorm)
    buffers = [o.recalibrated() if batchnorm == "recalibrate" else o.buffers for o in (start, end)]
    for place, network, held in zip((0, -1), (start, end), buffers, strict=True):
        assert result.values["loss"][place] == start.evaluate(network.theta, held).loss.value
        assert result.values["test_loss"][place] == test.evaluate(network.theta, held).loss.value
    assert set(result.values) == {"loss", "accuracy", "test_loss", "test_accuracy"}


def test_statistics_on_the_way_are_what_the_title_says():
    start, end, test = pair()
    middle = torch.lerp(start.theta, end.theta, 0.5)
    expected = {
        "recalibrate": start.recalibrated(middle),
        "interpolate": {n: (b + end.buffers[n]) / 2 for n, b in start.buffers.items()},
        "eval": start.buffers,
    }
    seen = {}
    for how, buffers in expected.items():
        result = interpolation(start, end, grid=3, test=test, batchnorm=how)
        seen[how] = result.values["loss"][1]
        assert seen[how] == pytest.approx(start.evaluate(middle, buffers).loss.value, rel=1e-12)
        assert result.values["test_loss"][1] == pytest.approx(test.evaluate(middle, buffers).loss.value, rel=1e-12)
        assert "BatchNorm" in result.title
        assert result.provenance["batchnorm"]
    assert len(set(seen.values())) == 3
    assert interpolation(start, end, grid=3).provenance["loss_of_ends_as_stored"] == [start.value().value, end.value().value]


def stale(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that is trained on its data, and whose stored statistics are those from before the training."""
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(120, 6, generator=g), torch.randint(0, 3, (120,), generator=g)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24, momentum=1e-4), nn.ReLU(), nn.Linear(24, 3))
    adam = torch.optim.Adam(net.parameters(), 2e-2)
    for _ in range(120):
        adam.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
    return net.eval(), x, y


def test_a_barrier_between_networks_with_stale_statistics_is_there():
    """With stale ends beside re-estimated points between them, the barrier would be as much lower as the ends are too high."""
    (one, x, y), (other, *_) = stale(1), stale(2)
    start, end = (Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64") for net in (one, other))
    found = interpolation(start, end, grid=5)

    def at(t: float) -> float:
        """By hand: all samples in one batch, whose variance is divided by n - 1."""
        (w, b), (scale, shift), (v, c) = (
            [torch.lerp(p.double(), q.double(), t) for p, q in zip(one[i].parameters(), other[i].parameters(), strict=True)]
            for i in (0, 1, 3)
        )
        h = x.double() @ w.T + b
        h = (h - h.mean(0)) / (h.var(0) + one[1].eps).sqrt() * scale + shift
        return float(nn.functional.cross_entropy(h.relu() @ v.T + c, y))

    with torch.no_grad():
        truth = [at(t) for t in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(found.values["loss"], truth, rtol=1e-9)
    barrier = found.barriers["loss"]
    assert barrier.height == pytest.approx(max(truth) - (truth[0] + truth[-1]) / 2)
    assert barrier.height > 0.5
    assert start.value().value > truth[0] + 0.5, "as stored, the ends are far too high"
    assert found.check.passed
    assert found.check.own_ends == (start.value().value, end.value().value)


def test_a_network_without_batchnorm_takes_no_notice():
    start, end, _ = pair(0)
    lines = [interpolation(start, end, grid=5, batchnorm=how) for how in ("recalibrate", "interpolate", "eval")]
    assert all(np.array_equal(piece.values["loss"], lines[0].values["loss"]) for piece in lines)
    assert "batchnorm" not in lines[0].provenance
    assert "BatchNorm" not in lines[0].title


@pytest.mark.parametrize("batchnorm", ["recalibrate", "interpolate"])
def test_the_batch_size_changes_nothing(batchnorm):
    one, other = (interpolation(*pair(batch_size=b)[:2], grid=4, batchnorm=batchnorm) for b in (6, 23))
    np.testing.assert_allclose(one.values["loss"], other.values["loss"], rtol=1e-10)


def test_beyond_the_ends_no_variance_is_negative():
    start, end, _ = pair()
    for how in ("recalibrate", "interpolate", "eval"):
        assert np.isfinite(interpolation(start, end, span=(-3, 4), grid=8, batchnorm=how).values["loss"]).all()


def test_barrier_and_its_error_are_those_of_the_samples_differences():
    """From every sample's own loss at the top and at both ends, by hand."""
    start, end, test = pair(0)
    result = interpolation(start, end, grid=9, test=test)
    model, _, x, y = CASES[0].make(0)
    _, _, u, v = CASES[0].make(9)
    twin = model.double()

    def each(a: float, inputs, target):
        theta = start.layout.unflatten(torch.lerp(start.theta, end.theta, a))
        logits = torch.func.functional_call(twin, theta, (inputs.double(),))
        return nn.functional.cross_entropy(logits, target, reduction="none"), (logits.argmax(1) == target).double()

    for prefix, data in (("", (x, y)), ("test_", (u, v))):
        for part, sign in ((0, 1), (1, -1)):
            quantity = prefix + ("loss", "accuracy")[part]
            curves = [each(a, *data)[part] for a in np.linspace(0, 1, 9)]
            heights = [sign * float((c - (curves[0] + curves[-1]) / 2).mean()) for c in curves]
            top = int(np.argmax(heights))
            found = result.barriers[quantity]
            assert found.height == pytest.approx(heights[top], abs=1e-12)
            assert found.at == pytest.approx(top / 8)
            difference = curves[top] - (curves[0] + curves[-1]) / 2
            assert found.stderr == pytest.approx(float(difference.std() / len(difference) ** 0.5))


@pytest.mark.slow
def test_the_error_covers_the_barrier_of_other_samples():
    """A network and itself with its units in another order, on noisy targets of its own: a hill between two equal ends."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2))
        with torch.no_grad():
            one[2].weight *= 6
        x = torch.randn(6000, 5)
        y = one(x).detach() + 0.5 * torch.randn(6000, 2)
    other = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 2))
    order = torch.arange(11, -1, -1)
    other.load_state_dict(
        {
            "0.weight": one[0].weight[order], "0.bias": one[0].bias[order],
            "2.weight": one[2].weight[:, order], "2.bias": one[2].bias,
        }
    )  # fmt: skip

    ends = [Objective(model, nn.MSELoss(), (x, y)) for model in (one, other)]
    truth = interpolation(*ends, grid=3).barriers["loss"]
    assert truth.at == 0.5
    samples = zip(*(end.chunks(60) for end in ends), strict=True)
    found = [interpolation(*sample, grid=3).barriers["loss"] for sample in samples]
    assert all(b.at == 0.5 for b in found)
    covered = np.mean([abs(b.height - truth.height) <= 1.96 * b.stderr for b in found])
    assert 0.87 <= covered <= 1.0
    apart = np.mean([b.stderr for b in found]) / np.std([b.height for b in found])
    assert 0.7 < apart < 1.4, "and it is no wider than it must be"


def test_no_barrier_where_an_end_is_not_on_the_grid():
    start, end, _ = pair(0)
    assert interpolation(start, end, span=(0.1, 1.0), grid=5).barriers == {}
    wide = interpolation(start, end, span=(-1.0, 2.0), grid=7)
    inside = interpolation(start, end, grid=3)
    assert wide.barriers["loss"].height == pytest.approx(inside.barriers["loss"].height)


def test_a_line_that_leaves_the_finite_has_an_infinite_barrier():
    start = pair(1)[0]
    far = start.with_model(CASES[1].make(5)[0])
    far._theta = torch.full_like(far._theta, 1e200)
    found = interpolation(start, far, grid=3).barriers["loss"]
    assert found.height == np.inf
    assert found.text() == "infinite"
    assert found.reason == ""


class FailsBetween(nn.Module):
    """One weight; its forward pass fails where it lies between 0.4 and 0.6, as a model of somebody's own may do."""

    def __init__(self, weight: float, low: float = 0.4) -> None:
        super().__init__()
        self.weight, self.low = nn.Parameter(torch.tensor([weight])), low

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.low < float(self.weight) < 0.6:
            raise ValueError("no such network")
        return x * self.weight


def test_points_that_failed_make_no_infinite_barrier():
    """The top may lie where nothing could be computed: the barrier is not known, and that is said."""
    data = (torch.ones(4, 1), torch.tensor([[0.0], [1.0], [0.5], [0.2]]))
    start, end = (Objective(FailsBetween(w), nn.MSELoss(), data, dtype="float64") for w in (0.0, 1.0))
    found = interpolation(start, end, grid=5)
    assert found.status["loss"].tolist() == [DONE, DONE, FAILED, DONE, DONE]
    barrier = found.barriers["loss"]
    assert np.isnan(barrier.height)
    assert barrier.stderr is None
    assert barrier.reason == "1 of 5 points failed"
    assert barrier.text() == "unknown (1 of 5 points failed)"
    assert barrier.words("loss") == "barrier unknown: 1 of 5 points failed"
    assert barrier.ends == pytest.approx((start.value().value + end.value().value) / 2)
    back = Barrier.from_json(json.loads(json.dumps(barrier.to_json(), allow_nan=False)))
    assert np.isnan(back.height)
    assert back.reason == barrier.reason
    assert found.check.exact == (True, True)
    assert found.check.passed


def test_an_error_beside_a_value_that_is_not_finite_is_none():
    """One sample's logits overflow: the mean is no number, and the other samples' differences are no error of it."""
    x, y = torch.tensor([[1.0], [2.0], [1e200]], dtype=torch.float64), torch.tensor([0, 1, 0])

    def made(weight: float) -> Objective:
        model = nn.Linear(1, 2, bias=False).double()
        nn.init.constant_(model.weight, weight)
        return Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")

    start, end = made(1.0), made(1e200)
    assert np.isnan(end.losses().numpy()).tolist() == [False, False, True]
    found = interpolation(start, end, grid=2)
    assert found.status["loss"].tolist() == [DONE, NOT_FINITE]
    assert np.isnan(found.paired["loss"][1])
    assert found.paired["loss"][0] == 0


def test_it_survives_json():
    start, end, test = pair()
    result = interpolation(start, end, grid=5, test=test)
    back = Slice.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
    assert back.barriers == result.barriers
    assert "barriers" not in replace(result, barriers={}).to_json()


def test_bad_requests():
    start, end, _ = pair()
    with pytest.raises(UsageError, match="expected batchnorm recalibrate, interpolate or eval, found 'train'"):
        interpolation(start, end, batchnorm="train")
    with pytest.raises(MismatchError, match="expected two networks of one architecture"):
        interpolation(start, pair(0)[0])
