"""A rescaled network is another point with the same function."""

import copy
import functools

import pytest
import torch
from rescalable import BY_NAME, NETS, WITHOUT, Net
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError
from landscape.reparam import Symmetries, apply, find_symmetries, rescale, scales_for, smallest_scales


def difference(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Largest difference of outputs, relative to the largest output."""
    with torch.no_grad():
        before, after = model(x), other(x)
    return float((before - after).abs().max() / before.abs().max())


def moved(model: nn.Module, other: nn.Module) -> set[str]:
    """Names of the parameters that changed."""
    return {n for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True) if not torch.equal(p, q)}


@functools.cache
def found_in(net: Net) -> Symmetries:
    """Found once for all tests, at the weights of seed 0; they hold at any weights."""
    return find_symmetries(*net.make())


@pytest.mark.parametrize("net", NETS, ids=str)
def test_every_unit_alone_keeps_the_function(net: Net) -> None:
    model, x = net.make()
    symmetries = found_in(net)
    for i, unit in enumerate(symmetries):
        other = apply(model, symmetries, symmetries.layerwise({unit.name: (7.3, 0.4)[i % 2]}))
        assert difference(model, other, x) < 1e-12
        assert moved(model, other) == {*unit.multiplied, *unit.divided}


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_neuron_with_a_factor_of_its_own_keeps_the_function(net: Net, seed: int) -> None:
    model, x = net.make(seed)
    symmetries = found_in(net)
    scales = scales_for(model, symmetries, 5.0, node=True, generator=torch.Generator().manual_seed(seed))
    other = apply(model, symmetries, scales, example=x)
    assert difference(model, other, x) < 1e-12
    assert moved(model, other)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_there_and_back(net: Net) -> None:
    model, _ = net.make()
    symmetries = found_in(net)
    scales = scales_for(model, symmetries, 4.0, node=True)
    back = apply(apply(model, symmetries, scales), symmetries, 1 / scales)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("name", ["mlp", "gated", "decoder", "pre-norm"])
def test_powers_of_two_are_exact_in_float32(name: str) -> None:
    model, x = BY_NAME[name].make()
    model, x = model.float(), x.float()
    symmetries = find_symmetries(model, x)
    for alpha in (2.0, 1024.0, 0.125):
        other = apply(model, symmetries, symmetries.layerwise({unit.name: alpha for unit in symmetries}))
        with torch.no_grad():
            assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("alpha", [1e4, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_factors(alpha: float, dtype: torch.dtype) -> None:
    model, x = BY_NAME["mlp"].make()
    model, x = model.to(dtype), x.to(dtype)
    other = rescale(model, alpha, example=x)
    assert difference(model, other, x) < 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(other[0].weight, alpha * model[0].weight)
    torch.testing.assert_close(other[3].weight, model[3].weight / alpha)


def test_large_factors_before_batchnorm() -> None:
    model, x = BY_NAME["cnn"].make()
    assert difference(model, rescale(model, layers={"0": 1e4, "8": 1e4}, example=x), x) < 1e-12


def test_default_is_dinh_on_the_first_two_layers() -> None:
    model, x = BY_NAME["mlp"].make()
    other = rescale(model)
    torch.testing.assert_close(other[0].weight, 5 * model[0].weight)
    torch.testing.assert_close(other[0].bias, 5 * model[0].bias)
    torch.testing.assert_close(other[3].weight, model[3].weight / 5)
    assert moved(model, other) == {"0.weight", "0.bias", "3.weight"}
    model, x = BY_NAME["cnn"].make()
    assert moved(model, rescale(model, example=x)) == {"1.weight", "1.bias", "4.weight"}


def test_layers_by_name_by_factor_and_by_neuron() -> None:
    model, x = BY_NAME["mlp"].make()
    assert moved(model, rescale(model, 3.0, layers=["3"])) == {"3.weight", "3.bias", "5.weight"}
    assert moved(model, rescale(model, 3.0, layers="3")) == {"3.weight", "3.bias", "5.weight"}
    factors = torch.linspace(0.5, 2, 8)
    other = rescale(model, layers={"0": factors, "3": 2.0})
    torch.testing.assert_close(other[0].weight, factors.double()[:, None] * model[0].weight)
    torch.testing.assert_close(other[3].weight, 2 * model[3].weight / factors.double())
    other = rescale(model, layers={"3": 9.0}, node=True)
    ratio = (other[3].bias / model[3].bias).detach()
    assert len(ratio.unique()) == 6
    assert bool(((ratio > 1 / 9) & (ratio < 9)).all())
    assert difference(model, other, x) < 1e-12


def test_node_draws_are_log_uniform_and_seeded() -> None:
    model = nn.Sequential(nn.Linear(1, 4000), nn.ReLU(), nn.Linear(4000, 1)).double()
    symmetries = find_symmetries(model)
    logs = scales_for(model, symmetries, 4.0, node=True)[1:].log() / torch.tensor(4.0).log()
    assert abs(float(logs.mean())) < 0.05
    assert float(logs.std()) == pytest.approx(3**-0.5, abs=0.03)
    assert float(logs.abs().max()) <= 1
    a, b = (scales_for(model, symmetries, 4.0, node=True, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(a, scales_for(model, symmetries, 4.0, node=True))
    assert not torch.equal(a, b)


def test_the_model_is_left_as_it_was() -> None:
    model, x = BY_NAME["cnn"].make()
    model.train()
    calls = []
    model[4].register_forward_hook(lambda *args: calls.append(1))
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = copy.deepcopy(model.state_dict())
    grad_enabled, rng = torch.is_grad_enabled(), torch.random.get_rng_state()
    other = rescale(model, node=True, example=x)
    assert model.training
    assert all(m.training for m in model.modules())
    assert other.training
    assert not other[0].weight.requires_grad
    assert other[4].weight.requires_grad
    assert bool((model[4].weight.grad == 1).all())
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert len(model[4]._forward_hooks) == 1
    assert torch.is_grad_enabled() == grad_enabled
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert {t.data_ptr() for t in other.state_dict().values()}.isdisjoint(t.data_ptr() for t in model.state_dict().values())


def test_a_tied_weight_stays_tied() -> None:
    model, x = BY_NAME["half-tied"].make()
    other = rescale(model, example=x, node=True)
    assert other.c.weight is other.b.weight
    assert difference(model, other, x) < 1e-12


def test_a_running_variance_never_turns_negative() -> None:
    model, x = BY_NAME["cnn"].make()
    with torch.no_grad():
        model[1].running_var[2] = 3e-5  # (3e-5 + 1e-5) s^2 >= 1e-5 needs s >= 1/2
    with pytest.raises(
        UsageError, match=r"expected a factor of at least 0\.5 for 1\.running_var, found 0\.4, which would make this"
    ):
        rescale(model, layers={"0": 0.4}, example=x)
    symmetries = find_symmetries(model, x)
    assert float(smallest_scales(model, symmetries)[symmetries["0"].neurons].max()) == pytest.approx(0.5)
    for seed in range(5):  # random factors stop at what the variance can take up
        generator = torch.Generator().manual_seed(seed)
        other = apply(model, symmetries, scales_for(model, symmetries, 1e3, node=True, layers=["0"], generator=generator))
        assert bool((other[1].running_var >= 0).all())
        assert difference(model, other, x) < 1e-10


def test_half_precision_overflow_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).half()
    with pytest.raises(NumericalError, match=r"found overflow in 0\.weight; use a factor closer to 1"):
        rescale(model, 1e6, example=torch.randn(2, 4).half())


def test_a_change_of_the_function_is_caught() -> None:
    """A hook that tracing runs once but whose effect depends on the weights' size cannot slip through."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()

    class Sneaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            return (
                self.net(x) * (2.0 if self.net[0].weight.detach().numpy().max() > 5 else 1.0)
                if not torch.compiler.is_exporting()
                else self.net(x)
            )

    with pytest.raises(NumericalError, match="expected outputs to change by at most 1e-10 of the largest, found"):
        rescale(Sneaky(), 100.0, example=torch.randn(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [0.0, -2.0, float("nan"), float("inf")])
def test_factors_must_be_positive_and_finite(alpha: float) -> None:
    model, _ = BY_NAME["mlp"].make()
    with pytest.raises(UsageError, match="expected alpha to be a finite number above 0, found"):
        rescale(model, alpha)
    with pytest.raises(UsageError, match="expected finite factors above 0 for 3, found"):
        rescale(model, layers={"3": alpha})


def test_requests_that_make_no_sense() -> None:
    model, _ = BY_NAME["mlp"].make()
    with pytest.raises(UsageError, match="found 5: it is an output of the network; choose from: 0, 3"):
        rescale(model, layers=["5"])
    with pytest.raises(UsageError, match="found nonsense; choose from: 0, 3"):
        rescale(model, layers=["nonsense"])
    with pytest.raises(UsageError, match=r"expected 1 or 8 factors for 0, found shape \(5,\)"):
        rescale(model, layers={"0": torch.ones(5)})
    with pytest.raises(UsageError, match="expected at least one layer to rescale, found none"):
        rescale(model, layers=[])
    with pytest.raises(UsageError, match="expected one bound for 0 with node=True, found 8 factors"):
        rescale(model, layers={"0": torch.ones(8)}, node=True)
    with pytest.raises(UsageError, match="expected a scaling symmetry, found none"):
        rescale(WITHOUT["gelu"])
    model, x = BY_NAME["twice"].make()
    with pytest.raises(UsageError, match="expected one factor for enter \\+ shared, found two, as enter and as shared"):
        rescale(model, layers={"enter": 2.0, "shared": 3.0}, example=x)


def test_torchvision_resnet18() -> None:
    from landscape.tasks.torchvision_import import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=10).double().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = rescale(model, node=True, example=x)
    assert difference(model, other, x) < 1e-12
    # Biases of BatchNorm start at 0 and stay there.
    assert moved(model, other) == {n for n, _ in model.named_parameters() if n.endswith("weight")}
