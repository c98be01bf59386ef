"""The number of multiply-adds by which a network counts as small, against the textbook's."""

import pytest
import torch
from torch import nn

from landscape.objective import Objective, work_size
from landscape.objective.work_size import is_small
from landscape.tasks import networks

LOSS = nn.CrossEntropyLoss()


def _objective(network: nn.Module, shape: tuple[int, ...], samples: int) -> Objective:
    generator = torch.Generator().manual_seed(0)
    return Objective(network, LOSS, (torch.randn(samples, *shape, generator=generator), torch.arange(samples) % 10))


@pytest.mark.parametrize(
    ("network", "shape", "each"),
    [
        ("mlp", (64,), 64 * 128 + 128 * 64 + 64 * 10),
        ("digits-cnn", (1, 8, 8), 9 * 16 * 64 + 9 * 16 * 32 * 16 + 128 * 10),
    ],
)
def test_small_is_told_by_multiply_adds(
    network: str, shape: tuple[int, ...], each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = _objective(networks.build(network), shape, 20)
    for bound, small in ((int(20.5 * each), True), (int(19.5 * each), False)):
        monkeypatch.setattr(work_size, "SMALL", bound)
        assert is_small(objective) is small


def test_samples_that_come_only_together_are_not_small() -> None:
    assert is_small(_objective(nn.Sequential(nn.Linear(4, 10)), (4,), 20))
    batch_statistics = nn.Sequential(nn.Linear(4, 10), nn.BatchNorm1d(10, track_running_stats=False))
    assert not is_small(_objective(batch_statistics, (4,), 20))
