"""Activations of layers against the network run by hand, layer by layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape.objective import Objective

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(11, 1, 6, 6, generator=G, dtype=torch.float64), torch.arange(11) % 3


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 3)
    )
    net(X.float())  # running statistics
    return net


def test_each_layer_is_that_of_the_network_run_by_hand():
    net = convolutional()
    objective = Objective(net, nn.CrossEntropyLoss(), (X.float(), Y), dtype="float64", batch_size=4)
    assert objective.layers() == {
        "0": False, "1": False, "2": True, "3": False, "4": False, "5": False, "output": True,
    }  # fmt: skip
    h = X
    with torch.no_grad():
        for i, layer in enumerate(net.eval().double()):
            h = layer(h.clone())
            # The rectifier works in place, so the norm's own output is caught before it.
            torch.testing.assert_close(objective.activations(str(i)), h.reshape(11, -1).clone(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(objective.activations("output"), objective.outputs())
    torch.testing.assert_close(objective.targets, Y)


class Shared(nn.Module):
    """One rectifier called twice, one layer that is not there for every sample, one with a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(4, 5), nn.Linear(5, 2), nn.Tanh()
        self.table = nn.Linear(4, 3)
        self.lstm = nn.LSTM(5, 5, batch_first=True)

    def forward(self, x):
        h = self.act(self.a(x))
        self.table(torch.zeros(7, 4, dtype=x.dtype))
        self.lstm(h[:, None])
        return self.act(self.b(h))


def test_calls_of_a_shared_module_have_their_own_names():
    net, x = Shared(), torch.randn(6, 4, generator=G)
    objective = Objective(net, nn.MSELoss(), (x, torch.zeros(6, 2)))
    assert objective.layers() == {"a": False, "act": True, "b": False, "act:2": True, "output": True}
    h = torch.tanh(net.a(x)).detach()
    torch.testing.assert_close(objective.activations("act"), h)
    torch.testing.assert_close(objective.activations("act:2"), torch.tanh(net.b(h)).detach())
    assert net.act._forward_hooks == {}


class Functional(nn.Module):
    """Nonlinearities that are no modules, and a sequence of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.body = nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 2))

    def forward(self, x):
        return {"logits": self.body(F.relu(self.a(x))).mean(1)}


def test_without_modules_of_nonlinearities_the_layers_with_weights_are_usual():
    net, x = Functional(), torch.randn(6, 3, 4, generator=G)
    objective = Objective(net, nn.CrossEntropyLoss(), (x, torch.arange(6) % 2))
    assert objective.layers() == {"a": True, "body.0": True, "body": False, "output": True}
    assert objective.activations("a").shape == (6, 15)
    torch.testing.assert_close(objective.activations("output"), net(x)["logits"].detach())


@pytest.mark.parametrize("layer", ["nothing", "act:3"])
def test_a_layer_that_does_not_run_is_told(layer):
    from landscape.errors import UsageError

    objective = Objective(Shared(), nn.MSELoss(), (torch.randn(6, 4, generator=G), torch.zeros(6, 2)))
    with pytest.raises(UsageError, match=f"expected layer {layer} to return"):
        objective.activations(layer)
