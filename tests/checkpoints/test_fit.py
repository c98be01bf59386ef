"""Rows 24, 27 and 28: weights into a model, all or none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from landscape.checkpoints import Weights, fit
from landscape.checkpoints.weights import strip
from landscape.errors import MismatchError, UsageError


class Tied(nn.Module):
    """An embedding whose matrix is also the decoder's, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(7, 3)
        self.lm_head = nn.Linear(3, 7, bias=False)
        self.lm_head.weight = self.wte.weight


class Wrapped(nn.Module):
    """A network kept as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def state(make: Callable[[], nn.Module] = network, prefix: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        prefix + key: torch.randn(item.shape, generator=generator) if item.is_floating_point() else item + 5
        for key, item in make().state_dict().items()
    }


def weights(content: dict[str, Tensor]) -> Weights:
    stripped, prefix, _ = strip(content)
    return Weights(stripped, "state_dict", (), prefix)


def holds(model: nn.Module, expected: dict[str, Tensor]) -> bool:
    got = model.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[key], item) for key, item in expected.items())


def test_everything_is_loaded_in_place() -> None:
    model, expected = network(), state()
    parameters = list(model.parameters())
    assert fit(model, weights(expected)) == ()
    assert holds(model, expected)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module.model.", "backbone.", "encoder.", "module.backbone."]
)
def test_prefixes_of_the_file(prefix: str) -> None:
    model = network()
    fit(model, weights(state(prefix=prefix)))
    assert holds(model, state())


def test_a_prefix_that_is_the_model_s_own() -> None:
    model = Wrapped()
    fit(model, weights(state(Wrapped)))  # stripped of `model.`, which must come back
    assert holds(model, state(Wrapped))
    model = Wrapped()
    notices = fit(model, weights(state()))
    assert holds(model, state(Wrapped))
    assert "prefix model." in notices[0]
    model = Wrapped()
    fit(model, weights(state(Wrapped, prefix="module.")))
    assert holds(model, state(Wrapped))


def test_losses_and_metrics_of_a_training_module_are_left_out_with_a_notice() -> None:
    model = network()
    notices = fit(
        model, weights(state(prefix="model.") | {"criterion.weight": torch.ones(3), "train_acc.total": torch.tensor(1)})
    )
    assert holds(model, state())
    assert notices == ("left out 2 tensors outside of model.: criterion.weight, train_acc.total",)
    notices = fit(model, weights(state() | {"criterion.weight": torch.ones(3)}))
    assert notices == ("left out 1 tensors: criterion.weight",)


def test_other_tensors_beside_the_network_are_not_left_out() -> None:
    model = network()
    before = {key: item.clone() for key, item in model.state_dict().items()}
    with pytest.raises(MismatchError, match=r"head\.weight"):
        fit(model, weights(state(prefix="backbone.") | {"head.weight": torch.ones(3)}))
    assert holds(model, before)


def test_a_tied_weight_left_out_is_found_by_the_model() -> None:
    model = Tied()
    matrix = torch.randn(7, 3)
    notices = fit(model, weights({"wte.weight": matrix}))
    assert torch.equal(model.lm_head.weight, matrix)
    assert model.lm_head.weight is model.wte.weight
    assert notices == ()  # one weight, as saved: nothing was repaired
    model = Tied()
    fit(model, weights({"lm_head.weight": matrix}))
    assert torch.equal(model.wte.weight, matrix)


def test_tied_weights_that_differ_in_the_file_are_refused() -> None:
    matrix = torch.randn(7, 3)
    fit(Tied(), weights({"wte.weight": matrix, "lm_head.weight": matrix.clone()}))
    with pytest.raises(MismatchError, match=r"lm_head\.weight: differs from wte\.weight"):
        fit(Tied(), weights({"wte.weight": matrix, "lm_head.weight": matrix + 1}))


def test_a_weight_left_out_that_is_not_tied_is_missing() -> None:
    model = Tied()
    model.lm_head.weight = nn.Parameter(torch.zeros(7, 3))
    with pytest.raises(MismatchError, match=r"lm_head\.weight: missing in the file") as caught:
        fit(model, weights({"wte.weight": torch.randn(7, 3)}))
    assert caught.value.exit_code == 5


def test_missing_counters_of_batchnorm_are_fine() -> None:
    model = network()
    content = {key: item for key, item in state().items() if "num_batches" not in key}
    notices = fit(model, weights(content))
    assert notices == ("kept 1 num_batches_tracked of the model, which the file leaves out",)
    assert torch.equal(model[1].running_mean, content["1.running_mean"])


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (lambda s: s.update({"3.weight": torch.ones(10, 5)}), ("3.weight", "10×5", "3×5")),
        (lambda s: s.pop("3.bias"), ("3.bias", "missing", "3")),
        (lambda s: s.update({"9.weight": torch.ones(2)}), ("9.weight", "2", "missing")),
        (lambda s: s.pop("1.running_mean"), ("1.running_mean", "missing", "5")),
        (lambda s: s.update({"3.bias": torch.ones(3, 1)}), ("3.bias", "3×1", "3")),
        (lambda s: s.update({"3.bias": torch.ones(3, dtype=torch.int64)}), ("3.bias", "torch.int64", "torch.float32")),
    ],
)
def test_a_disagreement_loads_nothing_and_is_named(
    change: Callable[[dict[str, Tensor]], object], row: tuple[str, str, str]
) -> None:
    model, content = network(), state()
    before = {key: item.clone() for key, item in model.state_dict().items()}
    change(content)
    with pytest.raises(MismatchError) as caught:
        fit(model, weights(content))
    assert row in caught.value.table
    assert caught.value.exit_code == 5
    assert f"{row[0]}: {row[1]} in the file, {row[2]} in the model" in str(caught.value)
    assert str(caught.value).isprintable()
    assert holds(model, before)


def test_the_message_names_three_and_counts_the_rest() -> None:
    with pytest.raises(MismatchError, match=r"with \d+ disagreements: .*; and \d+ more") as caught:
        fit(network(), weights({"other.weight": torch.ones(2), "another.weight": torch.ones(2)}))
    assert len(caught.value.table) >= 9


def test_precision_that_is_lost_is_noticed() -> None:
    notices = fit(nn.Linear(2, 1), weights({"weight": torch.ones(1, 2, dtype=torch.float64), "bias": torch.ones(1)}))
    assert notices == ("1 tensors of float64 rounded to the model's precision",)
    double = nn.Linear(2, 1).double()
    assert fit(double, weights({"weight": torch.ones(1, 2, dtype=torch.float64), "bias": torch.ones(1)})) == ()


def test_a_model_without_shapes() -> None:
    with pytest.raises(UsageError, match="uninitialized"):
        fit(nn.LazyLinear(3), weights({"weight": torch.ones(3, 2), "bias": torch.ones(3)}))


def test_a_model_without_memory() -> None:
    with pytest.raises(UsageError, match="meta device"):
        fit(nn.Linear(2, 3, device="meta"), weights({"weight": torch.ones(3, 2), "bias": torch.ones(3)}))


def test_extra_state_of_the_model_stays() -> None:
    class Noted(nn.Linear):
        note = "hello"

        def get_extra_state(self) -> str:
            return self.note

        def set_extra_state(self, state: str) -> None:
            self.note = state

    model = Noted(2, 1)
    fit(model, weights({"weight": torch.ones(1, 2), "bias": torch.ones(1)}))
    assert model.note == "hello"
    assert torch.equal(model.weight, torch.ones(1, 2))


def test_two_empty_parameters_are_not_tied() -> None:
    model = nn.ParameterDict({"a": torch.zeros(0), "b": torch.zeros(0)})
    with pytest.raises(MismatchError, match="b: missing"):
        fit(model, weights({"a": torch.zeros(0)}))
