"""The number of multiply-adds by which a network counts as small, against the textbook's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


class Functional(nn.Module):
    """A convolution whose weight is a parameter of its own, of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.head = nn.Parameter(0.1 * torch.randn(8, 1, 3, 3)), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.conv2d(x, self.kernel).relu().mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent network, which multiplies once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])


class Attending(nn.Module):
    """Attention of tokens to one another, with linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.head = nn.Linear(4, 24), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inputs(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))


@pytest.mark.parametrize(("network", "shape"), [(Functional, (1, 8, 8)), (Recurrent, (6, 4)), (Attending, (6, 4))])
def test_arithmetic_beside_the_layers_is_not_taken_for_nothing(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    assert not is_small(_objective(network(), shape, 20))


def test_a_transposed_convolution_multiplies_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    up = nn.ConvTranspose2d(6, 2, 3, stride=2)
    objective = _objective(nn.Sequential(up, nn.Flatten(), nn.Linear(2 * 9 * 9, 10)), (6, 4, 4), 20)
    each = 6 * 4 * 4 * 2 * 9 + 2 * 9 * 9 * 10
    for bound, small in ((int(20.5 * each), True), (int(19.5 * each), False)):
        monkeypatch.setattr(work_size, "SMALL", bound)
        assert is_small(objective) is small
