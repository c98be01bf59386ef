"""A subset of the weights: against the dense Hessian restricted to them, and the symmetries that are theirs."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

import landscape as ls
from landscape.errors import UsageError
from landscape.measures.traced_network import found_symmetries, symmetries_for
from landscape.network.given.chosen_parameters import varying
from landscape.surfaces import interpolation


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1]).double()


def data(width: int = 4, classes: int = 3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(25, width, generator=generator, dtype=torch.float64), torch.arange(25) % classes


def theta_of(net: nn.Module, names) -> torch.Tensor:
    named = dict(net.named_parameters())
    return torch.cat([named[n].detach().reshape(-1) for n in names])


def outputs(net: nn.Module, names, x):
    """theta of these weights -> outputs, the other weights as they are."""
    named = dict(net.named_parameters())
    sizes = [named[n].numel() for n in names]

    def of(theta):
        return functional_call(net, {n: t.view(named[n].shape) for n, t in zip(names, theta.split(sizes), strict=True)}, (x,))

    return of


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("2", ["2.weight", "2.bias"]),
        ("0.*, 4.weight", ["0.weight", "0.bias", "4.weight"]),
        ("!*.bias", ["0.weight", "2.weight", "4.weight"]),
        (["[02].*", "!0.bias"], ["0.weight", "2.weight", "2.bias"]),
    ],
)
def test_measures_are_those_of_the_restricted_hessian(params, names):
    net, (x, y) = mlp(4, 6, 5, 3), data()
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), dtype="float64", params=params)
    assert list(objective.layout.names) == names
    theta, of = theta_of(net, names), outputs(net, names, x)
    dense = hessian(lambda t: nn.functional.cross_entropy(of(t), y))(theta)
    assert torch.equal(objective.theta, theta)
    found = ls.sharpness(objective, ["lambda_max", "lambda_min", "trace:probes=400"])
    values = torch.linalg.eigvalsh(dense.detach())
    assert found["lambda_max"].value == pytest.approx(float(values[-1]), rel=1e-6)
    assert found["lambda_min"].value == pytest.approx(float(values[0]), abs=1e-6 * float(values[-1]))
    low, high = found["trace:probes=400"].interval(0.9999)
    assert low <= float(values.sum()) <= high
    held = 83 - len(theta)
    assert objective.varying["weights"] == len(theta)
    assert objective.varying["held_weights"] == held
    assert f"{len(theta)} of 83 weights" in str(found)
    assert found.to_json()["provenance"]["params"] == list(objective.params)


def test_a_pattern_that_matches_nothing_names_near_ones():
    model = nn.ModuleDict({"layer4": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "fc": nn.Linear(2, 1)})
    with pytest.raises(UsageError, match=r"pattern that matches a parameter, found 'layer5\.\*'; near names are layer4"):
        varying(model, ["layer5.*"])
    with pytest.raises(UsageError, match="leaves none"):
        varying(model, ["fc", "!fc.*"])


def test_lora_tied_and_frozen_weights():
    model = nn.ModuleDict({"base": nn.Linear(2, 2), "lora_A": nn.Linear(2, 1, bias=False), "out": nn.Linear(2, 2)})
    model["out"].weight = model["base"].weight
    assert list(varying(model, ["lora"])) == ["lora_A.weight"]
    assert list(varying(model, ["out.weight"])) == ["base.weight"]
    model["base"].requires_grad_(False)
    assert "base.bias" not in varying(model)
    assert list(varying(model, ["base.bias"])) == ["base.bias"]
    assert list(varying(model, ["!lora"])) == ["out.bias"]


def test_derived_objectives_keep_the_choice():
    net, (x, y) = mlp(4, 6, 3), data()
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params="2")
    for other in (objective.with_model(mlp(4, 6, 3)), objective.to("float64"), objective.subset(5)):
        assert other.layout.names == objective.layout.names
        assert other.params == ("2",)
    assert objective.only("2.bias").layout.names == ("2.bias",)


@pytest.mark.parametrize(
    "params", [None, "0", "0, 2", "2, 4", "0, 4", "!*.bias", "!0.bias", "4", "0.weight, 2.weight, 2.bias", "0, 2.weight"]
)
@pytest.mark.parametrize("zero_biases", [False, True], ids=["biases", "biases of 0"])
def test_factors_found_are_all_that_leave_the_function(params, zero_biases):
    """Their number is the dimension of the changes of the chosen weights that change no output, to first order."""
    net, x = mlp(4, 6, 5, 3, activation=nn.LeakyReLU), 30 * torch.randn(150, 4, dtype=torch.float64)  # every neuron switches
    if zero_biases:
        for name, p in net.named_parameters():
            p.data.mul_(0.0 if name.endswith("bias") else 1.0)
    objective = ls.Objective(net, nn.MSELoss(), (x, torch.zeros(len(x), 3)), dtype="float64", params=params)
    names = objective.layout.names
    slope = jacrev(outputs(net, names, x))(theta_of(net, names)).reshape(-1, objective.dim)
    values = torch.linalg.svdvals(slope)
    flat = objective.dim - int((values > 1e-10 * values[0]).sum())
    assert symmetries_for(objective).neurons == flat
    assert found_symmetries(objective).counts.get("node", 0) == flat
    assert found_symmetries(objective).across.get("node", 0) == 11 - flat


def test_a_frozen_layer_between_passes_a_factor_on():
    net, (x, y) = nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 3)), data()
    net[0].weight.data.abs_()
    objective = ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params=["0", "4"])
    assert symmetries_for(objective).neurons == 1


def test_matrices_and_constants_move_no_held_weight():
    net, (x, y) = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).double(), data()
    counts = {}
    for params in (None, "0", "1", "0.weight, 1.weight", "0.weight, 0.bias, 1.weight"):
        counts[params] = found_symmetries(ls.Objective(net, nn.MSELoss(), (x, torch.zeros(25, 3)), params=params)).counts
    assert counts[None]["pair"] == 1
    assert "pair" not in counts["0"]
    assert "pair" not in counts["1"]
    assert "bias" in counts[None]
    assert "bias" not in counts["0.weight, 0.bias, 1.weight"]
    assert found_symmetries(ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params="0")).counts == {}
    assert "shift" in found_symmetries(ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params="1")).counts


def test_a_matrix_that_a_held_weight_only_partly_fixes_is_not_known():
    net, (x, _) = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False)), data()
    narrow = ls.Objective(net, nn.MSELoss(), (x.float(), torch.zeros(25, 2)), params="0")  # reads 2 of 6 directions
    assert "part of which is held" in found_symmetries(narrow).line()
    assert "pair" in ls.sharpness(narrow, ["trace"]).measures["trace"].unknown


def test_marks_are_of_the_weights_that_vary():
    net, (x, y) = mlp(4, 6, 5, 3), data()
    marks = {}
    for params in ("0", "0, 2"):
        found = ls.sharpness(ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params=params), ["trace"])
        marks[params] = found.measures["trace"].mark
        assert any("also move weights that are held" in line for line in found.reasons())
    assert marks == {"0": "no", "0, 2": "layer, node"}


def test_a_path_needs_equal_held_weights():
    one, two, (x, y) = mlp(4, 6, 3), mlp(4, 6, 3), data()
    two[0].weight.data.add_(1.0)
    start, end = (ls.Objective(net, nn.CrossEntropyLoss(), (x, y), params="2") for net in (one, two))
    with pytest.raises(UsageError, match=r"found others that differ: 0\.weight"):
        interpolation(start, end, grid=3)
