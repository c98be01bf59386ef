"""What is found in a network, and what is said where there is nothing to find."""

import numpy as np
import pytest
import torch
from rescalable import BY_NAME, NETS, WITHOUT, Net
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import UsageError
from landscape.reparam import find_symmetries


@pytest.mark.parametrize("net", NETS, ids=str)
def test_finds_these_units_and_no_others(net: Net) -> None:
    model, x = net.make()
    symmetries = find_symmetries(model, x)
    names = tuple(unit.name for unit in symmetries)
    large = {"resnet20", "resnet20-padding", "vgg9", "keskar-c1"}
    assert (names[: len(net.units)] if net.name in large else names) == net.units
    assert symmetries.neurons == net.neurons == sum(len(unit.neurons) for unit in symmetries)


def true_dimension(model: nn.Module, x: Tensor, points: int = 12) -> int:
    """Dimension of {d : f does not move along theta * exp(t d), whatever theta}: null space of Jacobians times diag(theta)."""
    generator, stacked = torch.Generator().manual_seed(9), []
    for _ in range(points):
        named = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in model.named_parameters()}
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(named)
        stacked.append(torch.cat([(j * named[n]).reshape(-1, named[n].numel()) for n, j in jacobian.items()], 1))
    rows = torch.cat(stacked).numpy()
    assert rows.shape[0] > 2 * rows.shape[1]
    singular = np.linalg.svd(rows / np.linalg.norm(rows, axis=0), compute_uv=False)
    return int((singular < 1e-9).sum())


# What is not looked for: in "half-tied" the shared weight times r, with biases times 1, r, r^2 ...; in "pre-norm" queries
# against keys, for each of 4 channels in 2 heads.
@pytest.mark.parametrize(
    ("name", "overlooked"), [("mlp", 0), ("functional", 0), ("twice", 0), ("half-tied", 1), ("gated", 0), ("pre-norm", 8)]
)
def test_finds_all_there_are(name: str, overlooked: int) -> None:
    """Against the rank of dense Jacobians: no symmetry is missed, and none is invented."""
    model, x = BY_NAME[name].make(n=60)
    assert true_dimension(model, x) == find_symmetries(model, x).neurons + overlooked


@pytest.mark.parametrize("name", WITHOUT)
def test_says_so_where_there_is_none(name: str) -> None:
    symmetries = find_symmetries(WITHOUT[name], torch.randn(2, 4))
    assert len(symmetries) == 0
    assert str(symmetries).startswith("no scaling symmetry\ncannot be scaled\n")
    operation = {"relu6": "hardtanh", "tied": "encoder.weight has one set of values"}.get(name, name)
    with pytest.raises(UsageError, match=rf"expected a scaling symmetry, found none \(.*{operation}.*only rectified networks"):
        symmetries.require()


def test_a_unit_says_what_it_moves() -> None:
    model, x = BY_NAME["cnn"].make()
    symmetries = find_symmetries(model, x)
    first, second = symmetries["0"], symmetries["1"]
    assert (first.multiplied, first.divided, first.buffers) == (("0.weight", "0.bias"), (), ("1.running_mean", "1.running_var"))
    assert (second.multiplied, second.divided, second.buffers) == (("1.weight", "1.bias"), ("4.weight",), ())
    assert symmetries.default is second
    assert "  0 (4 neurons):  × 0.weight, 0.bias  taken up by 1.running_mean, 1.running_var\n" in str(symmetries)


def test_a_residual_stream_answers_to_each_of_its_layers() -> None:
    model, x = BY_NAME["resnet20"].make()
    symmetries = find_symmetries(model, x)
    stream = symmetries["layer1.1.bn2"]
    assert stream is symmetries["bn1"] is symmetries[stream.name]
    assert stream.divided[-1] == "layer2.0.shortcut.0.weight"
    assert "bn1 + layer1.0.bn2 + layer1.1.bn2 + layer1.2.bn2 (4 neurons):" in str(symmetries)


def test_reasons_name_the_operation_and_the_place() -> None:
    model, x = BY_NAME["gated"].make()
    pinned = {p.layer: str(p) for p in find_symmetries(model, x).pinned}
    assert pinned["excite"] == "excite: sigmoid in the network's own forward is not positively homogeneous"
    assert pinned["mix"] == "mix (6 of 12 outputs): tanh in the network's own forward is not positively homogeneous"
    assert pinned["fc"] == "fc: it is an output of the network"
    with pytest.raises(UsageError, match=r"found excite: sigmoid in .*; choose from: conv, squeeze, mix"):
        find_symmetries(model, x)["excite"]


def scaled(model: nn.Module, x: Tensor) -> set[str]:
    """Names of all layers with a symmetry."""
    return {name for unit in find_symmetries(model, x) for name in unit.producers}


class Around(nn.Module):
    """Some operation between two linear layers."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.a, self.b, self.operation = nn.Linear(4, 4), nn.Linear(4, 3), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.operation(self.a(x)))


HOMOGENEOUS = {
    "abs": torch.abs,
    "neg": lambda h: -h,
    "maxout": lambda h: torch.maximum(h, -2 * h),
    "clamp": lambda h: h.clamp(max=0),
    "times": lambda h: 3 * h / 7,
    "plus zero": lambda h: h + 0,
    "zeros": lambda h: h + torch.zeros(4),
    "flip": lambda h: h.flip(1),
    "stack": lambda h: torch.stack([h, 2 * h]).sum(0),
    "written in place": lambda h: h.clone().mul_(2),
    "split": lambda h: torch.cat(h.split(2, 1)[::-1], 1),
    "fixed gain": lambda h: h * torch.arange(4.0),
    "gate": lambda h: h * torch.ones(4).sigmoid(),
    "double and back": lambda h: h.double().to(h.dtype),
    "no-grad": lambda h: h.detach(),
    "sign, which takes it away": lambda h: h.sign(),
    "by comparison": lambda h: torch.where(h > 0, h, 0.0) - h * (h < 0),
    "slot": lambda h: torch.cat([h[:, :1] * 2, h[:, 1:]], 1),
    "cumsum of copies": lambda h: h[:, None].cumsum(1)[:, 0],
}
NOT_HOMOGENEOUS = {
    "plus one": lambda h: h + 1,
    "square": lambda h: h * h,
    "softplus": F.softplus,
    "clamp at one": lambda h: h.clamp(max=1),
    "softmax": lambda h: h.softmax(1),
    "power": lambda h: h**2,
    "round": lambda h: h.round(),
    "elu": F.elu,
    "normalize": lambda h: F.normalize(h),
    "reciprocal": lambda h: 1 / (1 + h.abs()),
    "compare": lambda h: torch.where(h > 0.5, h, 0 * h),
    "floor division": lambda h: torch.div(h, 2, rounding_mode="floor"),
    "set one": lambda h: torch.cat([h[:, :3], torch.ones(len(h), 1)], 1) + h.exp(),
    "to integers": lambda h: h.to(torch.int64).to(h.dtype),
    "random dropout": lambda h: F.dropout(h, 0.5, training=True),
}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous_operations_let_a_scale_through(name: str) -> None:
    assert scaled(Around(HOMOGENEOUS[name]), torch.randn(2, 4)) == {"a"}


@pytest.mark.parametrize("name", NOT_HOMOGENEOUS)
def test_other_operations_do_not(name: str) -> None:
    assert scaled(Around(NOT_HOMOGENEOUS[name]), torch.randn(2, 4)) == set()


class Poked(nn.Module):
    """Writes a constant into one feature in place: that feature's reader cannot be rescaled, the others can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, 0] += 1
        return self.b(h)


def test_a_write_into_a_view_is_seen() -> None:
    symmetries = find_symmetries(Poked(), torch.randn(2, 4))
    assert [len(unit.neurons) for unit in symmetries] == [3]
    assert str(symmetries.pinned[0]).startswith("a (1 of 4 outputs): add in the network's own forward adds a constant")


def test_running_statistics_of_the_batch_itself_fix_the_scale() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU(), nn.Linear(4, 2)).eval()
    assert scaled(model, torch.randn(3, 4)) == {"1"}


class Folded(nn.Module):
    """Reads a running variance a second time, as a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.bn(self.a(x)) * self.bn.running_var)


def test_a_statistic_with_a_second_reader_takes_nothing_up() -> None:
    assert scaled(Folded().eval(), torch.randn(3, 4)) == {"bn"}


def test_weights_that_are_computed_fix_both_sides() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2)
    )
    assert scaled(model, torch.randn(3, 4)) == set()


def test_integer_inputs_named_inputs_and_an_embedding() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            return self.fc((self.table(tokens) * mask[..., None]).mean(1))

    example = {"tokens": torch.randint(0, 10, (2, 5)), "mask": torch.ones(2, 5)}
    symmetries = find_symmetries(Bag(), example)
    assert str(symmetries.units[0]) == "table (4 neurons):  × table.weight  ÷ fc.weight"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile imports parts of torch that raise them
def test_wrappers() -> None:
    inner = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert [unit.name for unit in find_symmetries(torch.compile(inner), torch.randn(2, 4))] == ["0"]
    assert [unit.name for unit in find_symmetries(nn.DataParallel(inner), torch.randn(2, 4))] == ["module.0"]


def test_needs_an_example_unless_a_linear_layer_comes_first() -> None:
    assert len(find_symmetries(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))) == 1
    with pytest.raises(UsageError, match="expected an example input, found a network that begins with Conv2d; pass example=x"):
        find_symmetries(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))


def test_a_network_that_cannot_be_traced_is_a_usage_error() -> None:
    class Jumps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if x.sum() > 0 else self.fc(self.fc(x))

    with pytest.raises(UsageError, match=r"expected a network that torch.export can trace, found .*; pass an example input"):
        find_symmetries(Jumps())
    with pytest.raises(UsageError, match=r"expected a network that torch.export can trace, found RuntimeError: .*dim"):
        find_symmetries(nn.Linear(4, 3), torch.randn(2, 5))
