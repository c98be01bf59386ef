"""Transformers of Hugging Face, timm and PEFT, with random weights: which symmetries are found, and that moves keep them."""

import copy
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from landscape.network.graph import Example
from landscape.reparam import move
from landscape.symmetry import find_symmetries
from landscape.symmetry.families import Family
from landscape.tasks.torchvision_import import torchvision

assert torchvision is not None  # imported first, for timm's own import fails without its compiled operators

pytestmark = [
    pytest.mark.slow,
    # What the libraries themselves warn of.
    pytest.mark.filterwarnings("ignore"),
]

LAYERS, HEADS, WIDTH, WORDS = 2, 4, 32, 100
H = WIDTH // HEADS
PRE: tuple[Family, ...] = ("layer", "node", "pair", "rotation", "norm-out", "norm-in", "shift", "bias")


def words() -> Tensor:
    return torch.randint(WORDS, (2, 8), generator=torch.Generator().manual_seed(0))


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    """A model of Hugging Face by its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def gpt2(attention: str = "sdpa") -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "vocab_size": WORDS, "n_positions": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(**size, **ends, use_cache=False, attn_implementation=attention)
    return Logits(transformers.GPT2LMHeadModel(config))


def sizes() -> dict[str, int]:
    return {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "vocab_size": WORDS,
    }


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return Logits(transformers.BertForSequenceClassification(transformers.BertConfig(**sizes())))


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**sizes(), num_key_value_heads=2, use_cache=False, tie_word_embeddings=False)
    return Logits(transformers.LlamaForCausalLM(config))


def qwen3() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(**sizes(), num_key_value_heads=2, use_cache=False, head_dim=H, tie_word_embeddings=False)
    return Logits(transformers.Qwen3ForCausalLM(config))


def vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size = {k: v for k, v in sizes().items() if k != "vocab_size"}
    config = transformers.ViTConfig(**size, image_size=32, patch_size=8, num_labels=5)
    return Logits(transformers.ViTForImageClassification(config))


def timm_vit(**options: object) -> nn.Module:
    timm = pytest.importorskip("timm")
    size = {"img_size": 32, "patch_size": 8, "depth": LAYERS, "num_heads": HEADS, "embed_dim": WIDTH, "num_classes": 5}
    return timm.models.vision_transformer.VisionTransformer(**size, **options)


def adapted() -> nn.Module:
    """GPT-2 with an adapter of rank 4 beside the joint projection; the base is frozen."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    return Logits(peft.get_peft_model(gpt2().model, config))


@dataclass(frozen=True)
class Known:
    """A model, an input, and what is in it: families, mixings by group and size, and the place of what is not read."""

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], Example]
    families: tuple[Family, ...]
    mixings: dict[tuple[str, int], int]
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


TWO_A_HEAD = {("general", H): 2 * HEADS * LAYERS}  # queries with keys, values with output
TIED: tuple[Family, ...] = ("layer", "node", "pair", "norm-out", "shift", "bias")
POST: tuple[Family, ...] = ("layer", "node", "pair", "norm-out", "norm-in", "shift", "bias")
UNBIASED = PRE[:-1]
CENTRED = {("centred", WIDTH): 1} | TWO_A_HEAD
GROUPED = {("orthogonal", WIDTH): 1, ("general", H): 2 * LAYERS}  # two heads of keys and values a layer

MODELS = [
    Known("GPT-2", gpt2, words, TIED, TWO_A_HEAD),
    Known("GPT-2, eager", lambda: gpt2("eager"), words, TIED, TWO_A_HEAD),
    Known("BERT", bert, words, POST, TWO_A_HEAD),
    Known("Llama", llama, words, UNBIASED, GROUPED | {("rotary", H): 2 * LAYERS}),
    Known("Qwen3", qwen3, words, UNBIASED, GROUPED),
    Known("ViT", vit, images, PRE, CENTRED),
    Known("timm ViT", timm_vit, images, PRE, CENTRED),
    Known(
        "timm ViT with layer scale",
        lambda: timm_vit(init_values=1e-2, class_token=False, global_pool="avg"),
        images,
        POST,
        TWO_A_HEAD,
        ("mul in blocks.0.ls1 is between two linear maps",),
    ),
    Known("GPT-2 with LoRA", adapted, words, TIED, TWO_A_HEAD | {("general", 4): LAYERS}),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


def perturbed(model: nn.Module) -> nn.Module:
    """The model with noise on all weights, so that no gains are equal."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("known", MODELS, ids=str)
def test_what_is_found(known: Known) -> None:
    """At weights as of a trained network; where all gains are 1, as at the start, more symmetries exist, and that is said."""
    symmetries = find_symmetries(perturbed(known.build().eval()), known.example())
    assert symmetries.families == known.families
    assert Counter((m.group, m.size) for m in symmetries.mixings) == known.mixings
    assert symmetries.unread == known.unread


MOVED = [(known, family) for known in MODELS if known.name in ("GPT-2", "BERT", "Llama") for family in known.families]


@pytest.mark.parametrize(("known", "family"), MOVED, ids=str)
def test_the_function_stays(known: Known, family: Family) -> None:
    """In float64, at random weights; shifts of the outputs are taken away with their mean, as the loss does."""
    model = perturbed(known.build().double().eval())
    for module in model.modules():  # so that a scale before a normalization is taken away exactly
        for name in ("eps", "variance_epsilon"):
            if hasattr(module, name):
                setattr(module, name, 1e-30)
    x = known.example()
    symmetries = find_symmetries(model, x)
    other = move(copy.deepcopy(model), symmetries, family)
    before, after = (y - y.mean(-1, keepdim=True) for y in (model(x), other(x)))
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    rounding = 1e-5 if known.name == "Llama" else 1e-9  # its norms compute in float32
    assert (after - before).abs().max() < rounding * before.abs().max()
