"""What `landscape inspect` is told."""

import json
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest
import torch
from torch import nn

from landscape import checkpoints
from landscape.checkpoints.architecture import guess
from landscape.tasks.torchvision_import import torchvision

pytestmark = pytest.mark.usefixtures("quick")


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(item.shape) for key, item in model.state_dict().items()}


def test_a_description_is_json(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    state = {f"module.{key}": item for key, item in hostile.network().items()}
    path.write_bytes(
        hostile.saved(
            {"state_dict": state, "ema": {"\x1b[31m": torch.ones(2, dtype=torch.int8)}, "epoch": 3, "x": float("inf")}
        )
    )
    found = checkpoints.describe(checkpoints.read(path))
    text = json.dumps(found.to_json(), allow_nan=False)
    back = json.loads(text)
    first, second = back["candidates"]
    assert text.isprintable()
    assert back["format"] == "torch zip"
    assert back["size"] == path.stat().st_size
    assert back["meta"] == {"epoch": 3, "x": "inf"}
    assert (first["name"], first["tensors"], first["weights"], first["prefix"]) == ("state_dict", 4, 43, "module.")
    assert first["architecture"] == "MLP 4-5-3"
    assert first["rows"][0] == {"key": "module.fc1.weight", "shape": [5, 4], "dtype": "float32", "unusable": None}
    assert first["problem"] is None
    assert "int8" in second["problem"]


def test_one_of_ours(tmp_path: Path) -> None:
    checkpoints.save(
        tmp_path / "a.safetensors",
        hostile.network(),
        recipe={"task": "digits"},
        extras={"mask": torch.ones(9, dtype=torch.bool)},
    )
    found = checkpoints.describe(checkpoints.read(tmp_path / "a.safetensors"))
    assert found.recipe == {"task": "digits"}
    assert found.extras[0].key == "mask"
    assert found.extras[0].shape == (9,)


def test_tied_weights_count_once(tmp_path: Path) -> None:
    tensor = torch.ones(5, 2)
    (tmp_path / "a.pt").write_bytes(hostile.saved({"a": tensor, "b": tensor}))
    assert checkpoints.describe(checkpoints.read(tmp_path / "a.pt")).candidates[0].weights == 10


def stage(blocks: int, kernels: tuple[int, ...], width: int, number: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one stage of a ResNet."""
    made = {}
    for block in range(blocks):
        for index, kernel in enumerate(kernels, 1):
            made[f"layer{number}.{block}.conv{index}.weight"] = (width, inputs if index == 1 else width, kernel, kernel)
    return made


def resnet(
    blocks: tuple[int, ...], kernels: tuple[int, ...], stem: int, width: int, classes: int, head: str
) -> dict[str, tuple[int, ...]]:
    made: dict[str, tuple[int, ...]] = {"conv1.weight": (width, 3, stem, stem)}
    for number, count in enumerate(blocks, 1):
        made |= stage(count, kernels, width * 2 ** (number - 1), number, width)
    return made | {head: (classes, 512)}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (resnet((2, 2, 2, 2), (3, 3), 7, 64, 1000, "fc.weight"), "ResNet-18, 1000 classes"),
        (resnet((3, 4, 6, 3), (3, 3), 7, 64, 1000, "fc.weight"), "ResNet-34, 1000 classes"),
        (resnet((3, 4, 6, 3), (1, 3, 1), 7, 64, 1000, "fc.weight"), "ResNet-50, 1000 classes"),
        (resnet((2, 2, 2, 2), (3, 3), 3, 64, 10, "linear.weight"), "ResNet-18 with a 3×3 stem (CIFAR style), 10 classes"),
        (resnet((3, 3, 3), (3, 3), 3, 16, 10, "fc.weight"), "CIFAR ResNet-20, 10 classes"),
        (resnet((9, 9, 9), (3, 3), 3, 16, 10, "linear.weight"), "CIFAR ResNet-56, 10 classes"),
        (resnet((5, 5, 5), (3, 3), 3, 8, 10, "fc.weight"), "CIFAR ResNet-32, width 8, 10 classes"),
        (shapes(nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))), "MLP 64-100-10"),
        (
            {"transformer.wte.weight": (50257, 768)}
            | {f"transformer.h.{i}.attn.c_attn.weight": (768, 2304) for i in range(12)},
            "GPT-2 small, 12 layers, 50257 tokens",
        ),
        (
            {"patch_embed.proj.weight": (384, 3, 16, 16), "head.weight": (1000, 384)}
            | {f"blocks.{i}.attn.qkv.weight": (1152, 384) for i in range(12)},
            "ViT-S/16, 12 layers, 1000 classes",
        ),
        (
            {"bert.embeddings.word_embeddings.weight": (30522, 768), "bert.encoder.layer.0.x.weight": (768, 768)},
            "BERT-like, 1 layers of width 768, 30522 tokens",
        ),
        (shapes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), "2D convolution ×1, BatchNorm ×1"),
        ({"bias": (3,)}, None),
    ],
)
def test_guesses(made: dict[str, tuple[int, ...]], words: str | None) -> None:
    assert guess(made) == words


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda models: models.resnet18(), "ResNet-18, 1000 classes"),
        (lambda models: models.resnet50(num_classes=7), "ResNet-50, 7 classes"),
        (lambda models: models.wide_resnet50_2(), "Wide ResNet-50, 1000 classes"),
        (lambda models: models.resnext50_32x4d(), "ResNeXt-50, 1000 classes"),
        (lambda models: models.vgg11_bn(num_classes=10), "VGG-11 with BatchNorm, 10 classes"),
        (lambda models: models.vgg16(), "VGG-16, 1000 classes"),
        (lambda models: models.alexnet(), "AlexNet, 1000 classes"),
        (lambda models: models.vit_b_16(), "ViT-B/16, 12 layers, 1000 classes"),
    ],
)
def test_guesses_on_torchvision_s_own_networks(build: Callable[..., nn.Module], words: str) -> None:
    with torch.device("meta"):
        assert guess(shapes(build(torchvision.models))) == words
