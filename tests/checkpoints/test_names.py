"""Names that the file and the model spell differently: the model's own loader is asked, and nothing is loaded by half."""

import copy
import json
from pathlib import Path

import pytest
import torch
from clock import growth
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from landscape.checkpoints import CheckpointFiles, Weights, fit, read
from landscape.checkpoints.weights import strip
from landscape.errors import MismatchError
from landscape.tasks import load
from landscape.tasks.torchvision_import import torchvision  # noqa: F401  # the libraries below import it, with our care

pytestmark = pytest.mark.usefixtures("quick")
# PyTorch calls its first weight_norm deprecated; files that it wrote are not.
OLD_WEIGHT_NORM = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3))


class Inside(nn.Module):
    """A training module with the network as an attribute, and a head beside it."""

    def __init__(self, wrapper: str = "") -> None:
        super().__init__()
        holder = nn.Module()
        if wrapper:
            holder.add_module(wrapper, network())
        self.net = holder if wrapper else network()
        self.head = nn.Linear(3, 2)


class Positions(nn.Module):
    """Buffers that a constructor computes."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        for name in names:
            self.register_buffer(name, torch.arange(4.0) if name == "inv_freq" else torch.arange(4))


def filled(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Random tensors under the model's names."""
    g = torch.Generator().manual_seed(seed)
    return {k: torch.randn(t.shape, generator=g) if t.is_floating_point() else t.clone() for k, t in model.state_dict().items()}


def weights(content: dict[str, Tensor], adapter: dict[str, object] | None = None) -> Weights:
    stripped, prefix, _ = strip(content)
    return Weights(stripped, "state_dict", (), prefix, adapter)


def holds(model: nn.Module, expected: dict[str, Tensor]) -> bool:
    got = model.state_dict()
    return got.keys() == expected.keys() and all(torch.equal(got[key], item) for key, item in expected.items())


# Wrappers


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"])
def test_a_wrapper_in_the_middle_of_names(wrapper: str) -> None:
    expected = filled(Inside())
    inner = {key.replace("net.", f"net.{wrapper}."): item for key, item in expected.items()}
    model = Inside()
    notices = fit(model, weights(inner))
    assert holds(model, expected)
    assert notices == (f"6 names taken without the wrapper {wrapper}.",)
    model = Inside(wrapper)  # the other way round: the model is wrapped, the file is not
    fit(model, weights(expected))
    assert all(torch.equal(model.state_dict()[key], item) for key, item in inner.items())


def test_some_layers_wrapped_and_others_not() -> None:
    expected = filled(network())
    state = {key.replace("0.", "0._checkpoint_wrapped_module."): item for key, item in expected.items()}
    model = network()
    fit(model, weights(state))
    assert holds(model, expected)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
@pytest.mark.parametrize("which", ["0.weight", "3.bias"])
def test_a_wrapper_before_one_name_only_is_refused(wrapper: str, which: str) -> None:
    state = {(wrapper + key if key == which else key): item for key, item in filled(network()).items()}
    model, before = network(), filled(network(), 2)
    model.load_state_dict(before)
    with pytest.raises(MismatchError) as caught:
        fit(model, weights(state))
    assert caught.value.exit_code == 5
    assert holds(model, before)


def test_a_wrapper_in_the_middle_of_one_name_only_is_refused() -> None:
    state = filled(Inside())
    state["net._orig_mod.0.weight"] = state.pop("net.0.weight")
    with pytest.raises(MismatchError, match=r"net\.0\.weight: missing in the file"):
        fit(Inside(), weights(state))


# Old names


@OLD_WEIGHT_NORM
def test_weight_norm_of_both_kinds() -> None:
    old = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 3)), nn.Tanh())
    new = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh())
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for file, model in ((old, new), (new, old)):
        state = {key: item + 0.5 for key, item in filled(file).items()}
        notices = fit(model, weights(state))
        assert len(notices) == 1
        file.load_state_dict(state)
        assert torch.equal(model(x), file(x))


@OLD_WEIGHT_NORM
def test_weight_norm_in_a_series(tmp_path: Path) -> None:
    old = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 3)))
    state = filled(old)
    save_file(state, tmp_path / "a.safetensors")
    new = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    flat = CheckpointFiles(tmp_path, new)[0]
    assert torch.equal(flat, torch.cat([state[f"0.{name}"].flatten() for name in ("bias", "weight_g", "weight_v")]))


def test_a_module_that_renames_what_it_loads() -> None:
    class Renaming(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *arguments):
            if f"{prefix}kernel" in state_dict:  # of another version, and the other way round
                state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel").T
            super()._load_from_state_dict(state_dict, prefix, *arguments)

    kernel = torch.arange(6.0).reshape(2, 3)
    model = nn.Sequential(Renaming(2, 3))
    notices = fit(model, weights({"0.kernel": kernel, "0.bias": torch.ones(3)}))
    assert notices == ("the file's names of weights are converted to the model's by the model's own load_state_dict",)
    assert torch.equal(model[0].weight, kernel.T)
    model = nn.Sequential(Renaming(2, 3))
    with pytest.raises(MismatchError, match=r"0\.bias: missing in the file"):
        fit(model, weights({"0.kernel": kernel}))


def test_gamma_and_beta() -> None:
    expected = filled(network())
    state = {key.replace("1.weight", "1.gamma").replace("1.bias", "1.beta"): item for key, item in expected.items()}
    model = network()
    notices = fit(model, weights(state))
    assert holds(model, expected)
    assert notices == ("2 names taken for newer ones, as 1.beta for 1.bias",) or "1.gamma for 1.weight" in notices[0]
    with pytest.raises(MismatchError):
        fit(network(), weights({key: item for key, item in state.items() if key != "1.beta"}))


# Buffers


@pytest.mark.parametrize("name", ["position_ids", "relative_position_index", "inv_freq", "num_batches_tracked"])
def test_buffers_that_only_one_has_are_said(name: str) -> None:
    expected = filled(Positions())
    model = Positions()
    notices = fit(model, weights(expected | {name: Positions(name).state_dict()[name]}))
    assert notices == (f"left out 1 buffers that the model does not have: {name}",)
    assert holds(model, expected)
    model = Positions(name)
    notices = fit(model, weights(expected))
    assert len(notices) == 1
    assert notices[0].startswith("kept 1 ")
    assert torch.equal(model.state_dict()[name], Positions(name).state_dict()[name])
    assert torch.equal(model.fc.weight, expected["fc.weight"])


def test_a_causal_mask_is_no_weight_but_a_bias_is() -> None:
    state = filled(Positions())
    mask = torch.tril(torch.ones(4, 4))[None, None]
    notices = fit(Positions(), weights(state | {"h.0.attn.bias": mask}))
    assert notices == ("left out 1 buffers that the model does not have: h.0.attn.bias",)
    for bias in (torch.randn(4), torch.randn(1, 1, 4, 4)):
        with pytest.raises(MismatchError, match=r"h\.0\.attn\.bias: .* in the file, missing in the model"):
            fit(Positions(), weights(state | {"h.0.attn.bias": bias}))


def test_a_parameter_is_never_left_as_it_was_made() -> None:
    model = Positions()
    model.inv_freq = nn.Parameter(torch.randn(4))  # a name of a buffer, but trained
    with pytest.raises(MismatchError, match="inv_freq: missing in the file"):
        fit(model, weights(filled(Positions())))
    with pytest.raises(MismatchError, match="running_mean: missing in the file"):
        fit(nn.BatchNorm1d(2), weights({"weight": torch.ones(2), "bias": torch.ones(2), "running_var": torch.ones(2)}))


# Many names


def test_four_thousand_roots_are_refused_in_time_in_proportion() -> None:
    def refused(n: int) -> None:
        with pytest.raises(MismatchError, match=rf"with {n // 10}\d disagreements: .*; and {n // 10}\d more"):
            fit(network(), weights({f"l{i}.w": torch.zeros(1) for i in range(n)}))

    assert growth(refused, 250, 4000) < 4  # not every root is tried on all names


def test_the_network_is_found_among_many_roots() -> None:
    expected = filled(network())
    state = {f"backbone.{key}": item for key, item in expected.items()}
    state |= {f"train_acc.m{i}": torch.zeros(1) for i in range(300)} | {"val_acc.x": torch.zeros(1)}
    model = network()
    fit(model, weights(state))
    assert holds(model, expected)


# LoRA adapters

ADAPTER = {"peft_type": "LORA", "lora_alpha": 5, "use_rslora": False, "fan_in_fan_out": False}


def adapter(rank: int = 2) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    return {
        "base_model.model.0.lora_A.weight": torch.randn(rank, 4, generator=g),
        "base_model.model.0.lora_B.weight": torch.randn(5, rank, generator=g),
        "base_model.model.3.weight": torch.randn(3, 5, generator=g),
        "base_model.model.3.bias": torch.randn(3, generator=g),
    }


@pytest.mark.parametrize(("rslora", "scale"), [(False, 5 / 2), (True, 5 / 2**0.5)])
def test_an_adapter_is_added_to_its_base(rslora: bool, scale: float) -> None:
    model, base = network(), filled(network(), 2)
    model.load_state_dict(base)
    file = adapter()
    notices = fit(model, weights(file, ADAPTER | {"use_rslora": rslora}))
    a, b = (file[f"base_model.model.0.lora_{k}.weight"].double().numpy() for k in "AB")
    wanted = base["0.weight"].double().numpy() + scale * (b @ a)
    assert abs(model[0].weight.detach().numpy() - wanted).max() < 1e-6
    assert torch.equal(model[3].weight, file["base_model.model.3.weight"])
    assert torch.equal(model[1].weight, base["1.weight"])
    assert "1 of the model's own weights; 2 more are the adapter's, 3 are those of the base, as the task made it" in notices[0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (None, "no adapter_config.json beside it"),
        ({"peft_type": "IA3"}, "one of type IA3"),
        ({"use_dora": True}, "one with use_dora"),
        ({"rank_pattern": {"0": 4}}, "one with rank_pattern"),
        ({"lora_alpha": "x"}, "no number for lora_alpha"),
        ({"fan_in_fan_out": True}, r"'0.weight' of \(4, 5\), in the model \(5, 4\)"),
    ],
)
def test_an_adapter_that_cannot_be_added(change: dict[str, object] | None, found: str) -> None:
    model, base = network(), filled(network(), 2)
    model.load_state_dict(base)
    with pytest.raises(MismatchError, match=f"found {found}"):
        fit(model, weights(adapter(), None if change is None else ADAPTER | change))
    assert holds(model, base)


def test_an_adapter_s_configuration_is_read_beside_it(tmp_path: Path) -> None:
    save_file(adapter(), tmp_path / "adapter_model.safetensors")
    with pytest.raises(MismatchError, match=r"no adapter_config\.json"):
        fit(network(), read(tmp_path).weights())
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    fit(network(), read(tmp_path).weights())
    with pytest.raises(MismatchError, match="found an adapter, whose base would be random"):
        load(tmp_path, model="mlp", data="digits")


# The real libraries


def test_transformers_of_version_5_under_the_names_of_version_4(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5")
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**settings, image_size=8, patch_size=4, num_channels=1, num_labels=3)
    first, second = (transformers.ViTForImageClassification(config).eval() for _ in range(2))
    first.save_pretrained(tmp_path)
    notices = fit(second, read(tmp_path).weights())
    assert notices == ("the file's names of weights are converted to the model's by the loader of transformers",)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(first(x).logits, second(x).logits)
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    with pytest.raises(MismatchError, match=r"classifier\.weight: missing in the file"):
        fit(transformers.ViTForImageClassification(config), weights(state))


def test_peft_on_both_sides(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = network()
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["0"], modules_to_save=["3"])
    first, second = (peft.get_peft_model(copy.deepcopy(base), config).eval() for _ in range(2))
    for parameter in first.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    first.save_pretrained(tmp_path)
    x = torch.randn(5, 4)
    notices = fit(second, read(tmp_path).weights())
    assert torch.equal(first(x), second(x))
    assert notices == ("the adapter's weights are those of the file, its base is as the task made it",)
    fit(base, read(tmp_path).weights())
    torch.testing.assert_close(first(x), base(x))
    half = load_file(tmp_path / "adapter_model.safetensors")
    del half["base_model.model.0.lora_B.weight"]
    with pytest.raises(MismatchError, match=r"lora_B\.default\.weight: missing in the file|disagreements"):
        fit(second, weights(half))


def test_timm_knows_its_authors_names() -> None:
    timm = pytest.importorskip("timm")
    options = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1), "num_classes": 3}
    first, second = (timm.models.swin_transformer.SwinTransformer(**options).eval() for _ in range(2))
    state = filled(first)
    first.load_state_dict(state)
    authors = {  # Swin's authors number the downsampling by the stage before it, and name the head otherwise
        key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head."): item
        for key, item in state.items()
    } | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64)}
    notices = fit(second, weights(authors))
    assert notices == ("the file's names of weights are converted to the model's by timm's filter for this model",)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(first(x), second(x))
    small, large = (timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3, img_size=n) for n in (32, 64))
    with pytest.raises(MismatchError, match=r"pos_embed: .* in the file"):  # interpolated positions are another network
        fit(small, weights(filled(large)))
