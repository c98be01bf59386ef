"""Rows 25 to 32: which weights a file holds, under which names, as which numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import safetensors.torch
import torch
from torch import Tensor

from landscape import checkpoints
from landscape.checkpoints.weights import dead_filters
from landscape.errors import LandscapeError, MalformedError, MismatchError, NumericalError, UsageError

pytestmark = pytest.mark.usefixtures("quick")
Place = Callable[..., Path]
Refuse = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., checkpoints.Checkpoint]:
    """Save a value with torch.save and read it again."""

    def roundtrip(value: Any, **options: Any) -> checkpoints.Checkpoint:
        path = tmp_path / "ckpt.pt"
        path.write_bytes(hostile.saved(value, **options))
        return checkpoints.read(path, budget=1 << 28)

    return roundtrip


def fails(kind: type[LandscapeError], words: str, found: checkpoints.Checkpoint, name: str | None = None) -> LandscapeError:
    """`weights` must fail in one printable line."""
    with pytest.raises(kind, match=words) as caught:
        found.weights(name)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ({}, "the file holds nothing"),
        ({"state_dict": {}}, "the file holds state_dict"),
        (
            {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}, "epoch": 3},
            "holds optimizer, epoch",
        ),
        ({"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}, "holds state, param_groups"),
        ({"epoch": 3, "loss": torch.tensor(0.5)}, "holds epoch, loss"),
        ([1, 2], "a single list"),
        (torch.zeros(3), "a single tensor"),
        ("hello", "a single str"),
        (None, "a single NoneType"),
    ],
)
def test_no_weights(place: Place, refuse: Refuse, value: Any, held: str) -> None:
    refuse(place(hostile.saved(value)), 4, f"no weights; .*{held}")


def test_the_top_level_itself(load: Callable[..., Any]) -> None:
    state = hostile.network()
    found = load(state)
    assert list(found.candidates) == ["(top level)"]
    assert found.meta == {}
    assert all(torch.equal(found.weights().state[key], item) for key, item in state.items())


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "network", "module", "weights", "params", "my_net"]
)
def test_usual_and_unusual_keys(load: Callable[..., Any], key: str) -> None:
    found = load({key: hostile.network(), "optimizer": {"state": {}, "param_groups": []}, "epoch": 7, "acc": torch.tensor(0.5)})
    assert list(found.candidates) == [key]
    assert found.meta["epoch"] == 7
    assert found.meta["acc"] == 0.5
    assert found.weights().name == key


def test_one_place_inside_another(load: Callable[..., Any]) -> None:
    assert list(load({"model": {"state_dict": hostile.network(), "epoch": 3}}).candidates) == ["model.state_dict"]


@pytest.mark.parametrize(
    "pair", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("generator", "discriminator"), ("net", "ema")]
)
def test_several_candidates_need_a_choice(load: Callable[..., Any], pair: tuple[str, str]) -> None:
    first, second = hostile.network(), {key: item + 1 for key, item in hostile.network().items()}
    found = load({pair[0]: first, pair[1]: second, "epoch": 1})
    error = fails(UsageError, f"found 2: .*{pair[1]}", found)
    assert error.exit_code == 2
    assert f"--weights {pair[0]}" in str(error.fix)
    assert torch.equal(found.weights(pair[1]).state["fc1.bias"], second["fc1.bias"])
    fails(UsageError, "--weights to be one of", found, "other")


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "model.",
        "net.",
        "model._orig_mod.module.",
    ],
)
def test_prefixes_that_all_names_carry_are_stripped(load: Callable[..., Any], prefix: str) -> None:
    weights = load({"state_dict": {prefix + key: item for key, item in hostile.network().items()}}).weights()
    assert list(weights.state) == list(hostile.network())
    assert weights.prefix == prefix


def test_wrappers_in_mixed_order_are_stripped(load: Callable[..., Any]) -> None:
    found = load({"module._orig_mod.a": torch.ones(2), "_orig_mod.module.b": torch.ones(2)})
    assert list(found.weights().state) == ["a", "b"]


def test_a_prefix_that_only_some_names_carry_stays(load: Callable[..., Any]) -> None:
    assert list(load({"module.a": torch.ones(2), "b": torch.ones(2)}).weights().state) == ["module.a", "b"]


@pytest.mark.parametrize(
    "names",
    [
        ("module.a", "a"),
        ("module.a", "_orig_mod.a"),
        ("module._orig_mod.a", "_orig_mod.a", "module.b"),
        ("_orig_mod.module.a", "module._orig_mod.a"),
    ],
)
def test_names_that_collide_once_stripped(load: Callable[..., Any], names: tuple[str, ...]) -> None:
    error = fails(MismatchError, "expected one tensor for 'a'", load({name: torch.ones(2) for name in names}))
    assert error.exit_code == 5


def test_an_averaged_model(load: Callable[..., Any]) -> None:
    model = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 3))
    weights = load({"model_ema": model.state_dict()}).weights()
    assert list(weights.state) == ["weight", "bias"]
    assert any("n_averaged" in notice for notice in weights.notices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_half_precision_becomes_float32_with_a_notice(tmp_path: Path, dtype: torch.dtype, ending: str) -> None:
    state = {key: item.to(dtype) for key, item in hostile.network().items()} | {"bn.num_batches_tracked": torch.tensor(3)}
    path = tmp_path / f"a{ending}"
    if ending == ".pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    weights = checkpoints.read(path).weights()
    assert weights.state["bn.num_batches_tracked"].dtype is torch.int64
    for key, item in hostile.network().items():
        assert weights.state[key].dtype is torch.float32
        assert torch.equal(weights.state[key], item.to(dtype).float())
    assert f"4 tensors of {str(dtype)[6:]} upcast to float32" in weights.notices


def test_float64_and_integer_buffers_stay(load: Callable[..., Any]) -> None:
    state = {"w": torch.ones(2, 2, dtype=torch.float64), "index": torch.arange(3), "mask": torch.ones(2, dtype=torch.bool)}
    state["causal"] = torch.ones(2, 2, dtype=torch.uint8).tril()
    got = load(state).weights().state
    assert {key: item.dtype for key, item in got.items()} == {key: item.dtype for key, item in state.items()}


def quantized() -> Tensor:
    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.ones(4, dtype=torch.int8), "int8"),
        (lambda: torch.full((4,), 17, dtype=torch.uint8), "uint8"),
        (lambda: torch.ones(4).to(torch.float8_e4m3fn), "float8"),
        (lambda: torch.ones(4).to(torch.float8_e5m2), "float8"),
        (lambda: torch.ones(4, dtype=torch.complex64), "complex64"),
        (lambda: torch.ones(4, 4).to_sparse(), "sparse"),
        (lambda: torch.ones(4, device="meta"), "meta device"),
        (quantized, "quantized"),
    ],
)
def test_numbers_that_are_no_weights(load: Callable[..., Any], make: Callable[[], Tensor], words: str) -> None:
    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore")
        found = load({"state_dict": {"good": torch.ones(3), "bad": make()}, "epoch": 1})
    error = fails(MalformedError, f"'bad' .*{words}", found)
    assert error.exit_code == 4
    assert checkpoints.describe(found).candidates[0].problem == str(error)


def test_complex_in_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"bad": torch.ones(2, dtype=torch.complex64)}, tmp_path / "a.safetensors")
    fails(MalformedError, "'bad' of torch.complex64", checkpoints.read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(load: Callable[..., Any], value: float) -> None:
    state = hostile.network()
    state["fc2.bias"][1] = value
    assert fails(NumericalError, "1 tensors: fc2.bias", load(state)).exit_code == 6


def test_all_zero_filters_are_named(load: Callable[..., Any]) -> None:
    state = hostile.network()
    state["fc1.weight"][1:3] = 0
    found = load(state).weights()
    assert "2 all-zero filters in fc1.weight" in dead_filters(found.state)[0]
    assert not found.notices  # it matters to a surface alone


def test_saved_on_cuda(place: Place) -> None:
    data = hostile.dumps({"w": hostile.Rebuilt(hostile.Stored(4, location="cuda:3"), 0, (4,), (1,))})
    found = checkpoints.read(place(hostile.archive(data, {"0": torch.arange(4.0).numpy().tobytes()})))
    assert torch.equal(found.weights().state["w"], torch.arange(4.0))
    assert found.weights().state["w"].device.type == "cpu"


def test_names_that_attack_the_terminal(load: Callable[..., Any]) -> None:
    names = [
        "<script>alert(1)</script>",
        "\x1b]0;pwned\x07",
        "[bold]x[/bold]",
        "a\nb\r\nc",
        "=cmd()",
        "\u202eevil",
        "w" * 10**6,
        "\ud800",
    ]
    found = load({name: torch.ones(2, dtype=torch.int8) for name in names})
    assert list(found.candidates["(top level)"]) == names
    message = str(fails(MalformedError, "int8", found))
    assert len(message) < 1000
    for name in names:
        with pytest.raises(MismatchError) as caught:
            checkpoints.fit(torch.nn.Linear(2, 2), load({name: torch.ones(2)}).weights())
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500


def test_entries_that_are_no_tensors_are_noticed(load: Callable[..., Any]) -> None:
    found = load({"state_dict": {**hostile.network(), "head._extra_state": {"a": 1}}})
    assert len(found.weights().state) == 4
    assert any("head._extra_state" in notice for notice in found.notices)


def test_numpy_arrays_are_weights_too(load: Callable[..., Any]) -> None:
    found = load({"model": {key: item.numpy() for key, item in hostile.network().items()}})
    assert all(torch.equal(found.weights().state[key], item) for key, item in hostile.network().items())
