"""Which losses ignore a constant that is added to all outputs of a sample."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.network.losses.ignored_constants import ignores_constants
from landscape.objective import Objective

N, C, T = 6, 4, 5


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classes(*shape: int) -> Tensor:
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(1))


def of_tokens(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), target.flatten())


def of_margins(outputs: Tensor, target: Tensor) -> Tensor:
    """Ignores a constant without a softmax."""
    return (outputs - outputs.gather(1, target[:, None])).relu().mean()


def with_z_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """The usual term that holds the logits near zero: the softmax's freedom is gone."""
    return F.cross_entropy(outputs, target) + 1e-4 * outputs.logsumexp(1).square().mean()


def of_first_sample(outputs: Tensor, target: Tensor) -> Tensor:
    """Ignores one constant for the whole batch, but not one for each sample."""
    return F.mse_loss(outputs - outputs[0], target - target[0])


LOSSES = [
    ("cross-entropy", nn.CrossEntropyLoss(), (N, C), classes(N), True),
    ("label smoothing", nn.CrossEntropyLoss(label_smoothing=0.1), (N, C), classes(N), True),
    ("class weights", nn.CrossEntropyLoss(weight=torch.rand(C).double()), (N, C), classes(N), True),
    ("soft labels", nn.CrossEntropyLoss(), (N, C), drawn(N, C).softmax(1), True),
    ("cross-entropy of places", nn.CrossEntropyLoss(), (N, C, T), classes(N, T), True),
    ("tokens", of_tokens, (N, T, C), classes(N, T), True),
    ("margins", of_margins, (N, C), classes(N), True),
    ("negative log-likelihood", nn.NLLLoss(), (N, C), classes(N), False),
    ("squared error", nn.MSELoss(), (N, C), drawn(N, C), False),
    ("binary cross-entropy", nn.BCEWithLogitsLoss(), (N, C), drawn(N, C).sigmoid(), False),
    ("z loss", with_z_loss, (N, C), classes(N), False),
    ("one constant for all samples", of_first_sample, (N, C), drawn(N, C), False),
    ("a number", nn.MSELoss(), (N,), drawn(N), False),
    ("one class", nn.CrossEntropyLoss(), (N, 1), torch.zeros(N, dtype=torch.long), False),
]


@pytest.mark.parametrize(("loss", "shape", "target", "expected"), [row[1:] for row in LOSSES], ids=[row[0] for row in LOSSES])
def test_losses(loss: nn.Module, shape: tuple[int, ...], target: Tensor, expected: bool) -> None:
    for scale in (1e-3, 1.0, 30.0):
        assert ignores_constants(loss, scale * drawn(*shape), target) is expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "expected"), [(nn.CrossEntropyLoss(weight=torch.rand(C)), True), (nn.MSELoss(), False)])
def test_an_objective_asks_in_float64(loss: nn.Module, expected: bool, dtype: str) -> None:
    target = classes(20) if expected else drawn(20, C)
    objective = Objective(nn.Linear(3, C), loss, (drawn(20, 3), target), dtype=dtype)
    assert objective.ignores_constants() is expected


def test_outputs_are_transformed_as_the_loss_sees_them() -> None:
    """Centred outputs are the same with a constant, whatever the loss."""
    objective = Objective(nn.Linear(3, C), nn.MSELoss(), (drawn(20, 3), drawn(20, C)))
    assert not objective.ignores_constants()
    assert objective.of_outputs(lambda z: z - z.mean(1, keepdim=True)).ignores_constants()
