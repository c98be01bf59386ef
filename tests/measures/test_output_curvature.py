"""The curvature of the loss in the outputs against closed forms, for classes, tokens and numbers."""

import math

import pytest
import torch
from paired_networks import CLASSES, WIDTH, classified, made, moved
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.measures import output_curvature
from landscape.measures.registry import NotDefined
from landscape.objective import Objective


def of_classes(logits: Tensor) -> Tensor:
    """sum_c p_c (1 - p_c) over the last axis."""
    p = logits.double().softmax(-1)
    return (p * (1 - p)).sum(-1)


def test_classes() -> None:
    objective = classified(made())
    each = of_classes(objective.outputs())
    found = output_curvature(objective)
    assert found.value == pytest.approx(float(each.mean()), rel=1e-12)
    assert found.stderr == pytest.approx(float(each.std()) / len(each) ** 0.5, rel=1e-12)
    assert (found.kind, found.n) == ("samples", len(each))


def test_class_weights_and_ignored_targets() -> None:
    torch.manual_seed(0)
    net, x, y = nn.Linear(4, 3), torch.randn(9, 4), torch.tensor([0, 1, 2, 0, 1, 2, -100, 0, 0])
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]))
    weight = torch.where(y >= 0, loss.weight[y.clamp(min=0)], 0.0).double()
    objective = Objective(net, loss, (x, y), dtype="float64", batch_size=4)
    truth = float((weight * of_classes(objective.outputs())).sum() / weight.sum())
    assert output_curvature(objective).value == pytest.approx(truth, rel=1e-12)


class TokenLoss(nn.Module):
    """The mean over tokens of outputs (B, T, C), as language models compute it."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("batch", [None, 4])
def test_tokens(batch: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(n, (10, 5), generator=generator) for n in (6, CLASSES))
    objective = Objective(made(tokens=6, per_token=True), TokenLoss(), (x, y), dtype="float64", batch_size=batch)
    truth = of_classes(objective.outputs()).mean(1)
    found = output_curvature(objective)
    assert found.value == pytest.approx(float(truth.mean()), rel=1e-12)
    assert found.stderr == pytest.approx(float(truth.std()) / 10**0.5, rel=1e-12)


def test_many_outputs_are_probed() -> None:
    """More than 512 outputs: unbiased over seeds, whatever the batches, with an error that covers the truth."""
    torch.manual_seed(0)
    net, x, y = nn.Linear(3, 600), 3 * torch.randn(8, 3), torch.randint(600, (8,))
    whole, parts = (Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", batch_size=b) for b in (None, 3))
    truth = of_classes(whole.outputs())
    found = [output_curvature(whole, probes=8, generator=torch.Generator().manual_seed(1000 * s)).value for s in range(40)]
    mean, error = sum(found) / 40, float(torch.tensor(found).std()) / 40**0.5
    assert error > 0
    assert abs(mean - float(truth.mean())) < 4 * error
    assert output_curvature(parts, probes=8).value == pytest.approx(output_curvature(whole, probes=8).value, rel=1e-12)
    assert output_curvature(whole).value == pytest.approx(float(truth.mean()), rel=0.02)


def test_squares_and_absolute_values() -> None:
    net, data = nn.Linear(2, 4), (torch.rand(5, 2), torch.rand(5, 4))
    assert output_curvature(Objective(net, nn.MSELoss(), data)).value == pytest.approx(2.0)
    assert output_curvature(Objective(net, nn.L1Loss(), data)).value == 0.0


@pytest.mark.parametrize("orbit", ["pair", "node", "both"])
def test_nothing_that_keeps_the_function_moves_it(orbit: str) -> None:
    model = made()
    before, after = (output_curvature(classified(net)).value for net in (model, moved(model)[orbit]))
    assert after == pytest.approx(before, rel=1e-10)


def test_a_constant_on_all_logits_does_not_move_it_and_their_size_does() -> None:
    objective = classified(made())
    before = output_curvature(objective).value
    assert output_curvature(objective.of_outputs(lambda y: y + 7.0)).value == pytest.approx(before, rel=1e-10)
    assert abs(output_curvature(objective.of_outputs(lambda y: 3.0 * y)).value - before) > 0.1 * before


def test_a_loss_that_is_no_mean_over_samples_has_none() -> None:
    def root(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean().sqrt()

    objective = Objective(nn.Linear(WIDTH, 1), root, (torch.rand(6, WIDTH), torch.rand(6, 1)))
    with pytest.raises(NotDefined, match="a mean over samples"):
        output_curvature(objective)
    assert math.isfinite(objective.value().value)
