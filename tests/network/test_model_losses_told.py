"""A loss of (model, batch) that is not given as `ModelLoss` is told from one with wrong targets, by what it does."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import landscape as ls
from landscape.errors import UsageError


def called(net, data):
    """Calls its first argument."""
    return cross_entropy(net(data[0]), data[1])


def asked(net, data):
    """Asks its first argument for a part of a model."""
    return cross_entropy(data[0] @ net.weight.T, data[1])


@pytest.mark.parametrize("loss", [called, asked])
def test_a_loss_of_model_and_batch_by_other_names(loss):
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    with pytest.raises(UsageError, match=r"found one that uses an argument as no tensor can be used.*ModelLoss\(loss\)"):
        ls.Objective(torch.nn.Linear(3, 2), loss, (x, y)).gradient()


def test_a_slip_of_ones_own_is_left_as_it_is():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        ls.Objective(torch.nn.Linear(3, 2), lambda output, target: output.nope, (x, y)).gradient()


def test_as_a_model_loss_it_is_taken():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    net = torch.nn.Linear(3, 2)
    found = ls.Objective(net, ls.ModelLoss(called), [(x, y)]).gradient()
    plain = ls.Objective(net, torch.nn.CrossEntropyLoss(), (x, y)).gradient()
    torch.testing.assert_close(found, plain)
