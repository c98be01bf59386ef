"""Guess an architecture from the names and shapes of its weights. The guess is shown to the user and used for nothing else."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

Shapes = Mapping[str, tuple[int, ...]]

# Blocks of the four stages of torchvision's ResNets, by kind of block.
_BASIC: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_VIT = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H"}
_GPT2 = {768: "small", 1024: "medium", 1280: "large", 1600: "XL"}
_VGG = {8: 11, 10: 13, 13: 16, 16: 19}  # convolutions -> layers with weights, including three linear ones


def guess(shapes: Shapes) -> str | None:
    """The likely architecture as text, or None.

    Args:
        shapes: shape of every tensor by its name, without the prefixes of wrappers.

    Example:
        >>> guess({"0.weight": (100, 64), "0.bias": (100,), "2.weight": (10, 100), "2.bias": (10,)})
        'MLP 64-100-10'
    """
    return next((text for rule in _RULES if (text := rule(shapes)) is not None), None) or _summary(shapes)


def _resnet(shapes: Shapes) -> str | None:
    """ResNets with stages layer1, layer2, ...: torchvision's four, or CIFAR's three."""
    stages = [_count(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    stem = shapes.get("conv1.weight")
    first, third = shapes.get("layer1.0.conv1.weight"), shapes.get("layer1.0.conv3.weight")
    if stem is None or len(stem) != 4 or first is None or len(first) != 4 or not all(stages[:3]):
        return None
    suffix = "" if stem[-1] == 7 else f" with a {stem[-1]}×{stem[-1]} stem (CIFAR style)"
    head = _classes(shapes, ("fc.weight", "linear.weight"))
    if not stages[3]:
        if len(set(stages[:3])) != 1:
            return f"ResNet of {stages[:3]} blocks, width {stem[0]}{head}"
        wide = "" if first[0] == 16 else f", width {first[0]}"
        return f"CIFAR ResNet-{6 * stages[0] + 2}{wide}{head}"
    if third is None:
        depth = _BASIC.get(tuple(stages))
        wide = "" if first[0] == 64 else f", width {first[0]}"
        return f"ResNet-{depth}{wide}{suffix}{head}" if depth else f"ResNet of {stages} basic blocks{wide}{suffix}{head}"
    depth, second = _BOTTLENECK.get(tuple(stages)), shapes.get("layer1.0.conv2.weight", (0, 0))
    grouped = second[0] != second[1]
    kind = "ResNeXt" if grouped else "Wide ResNet" if second[0] == 128 else "ResNet"
    return f"{kind}-{depth}{suffix}{head}" if depth else f"{kind} of {stages} bottleneck blocks{suffix}{head}"


def _vgg(shapes: Shapes) -> str | None:
    """Convolutions named `features`, then a classifier: VGG and AlexNet."""
    convolutions = [s for name, s in shapes.items() if re.fullmatch(r"features\.\d+\.weight", name) and len(s) == 4]
    linear = [s for name, s in shapes.items() if re.match(r"(classifier|fc|linear)\b", name) and len(s) == 2]
    if not convolutions or not linear or len(convolutions) != sum(len(shape) == 4 for shape in shapes.values()):
        return None
    classes = f", {linear[-1][0]} classes"
    if convolutions[0][-1] == 11 and len(convolutions) == 5:
        return f"AlexNet{classes}"
    layers = _VGG.get(len(convolutions))
    if layers is None or any(shape[-1] != 3 for shape in convolutions):
        return f"VGG-like: {len(convolutions)} convolutions, {len(linear)} linear layers{classes}"
    norm = " with BatchNorm" if any(name.endswith("running_mean") for name in shapes) else ""
    head = "" if len(linear) == 3 else f" with {len(linear)} linear layer{'s' * (len(linear) > 1)}"
    return f"VGG-{layers}{norm}{head}{classes}"


def _vit(shapes: Shapes) -> str | None:
    """Vision transformers of torchvision and of timm."""
    for patches, blocks, head in (
        ("conv_proj.weight", r"encoder\.layers\.encoder_layer_(\d+)\.", "heads.head.weight"),
        ("patch_embed.proj.weight", r"blocks\.(\d+)\.", "head.weight"),
    ):
        patch, depth = shapes.get(patches), _count(shapes, blocks)
        if patch is not None and len(patch) == 4 and depth:
            size = _VIT.get(patch[0], f"of width {patch[0]}")
            join = "-" if patch[0] in _VIT else " "
            return f"ViT{join}{size}/{patch[-1]}, {depth} layers{_classes(shapes, (head,))}"
    return None


def _gpt2(shapes: Shapes) -> str | None:
    """GPT-2 with Hugging Face's names."""
    words = next((shape for name, shape in shapes.items() if re.fullmatch(r"(transformer\.)?wte\.weight", name)), None)
    depth = _count(shapes, r"(?:transformer\.)?h\.(\d+)\.attn\.c_attn\.")
    if words is None or not depth:
        return None
    return f"GPT-2 {_GPT2.get(words[1], f'of width {words[1]}')}, {depth} layers, {words[0]} tokens"


def _bert(shapes: Shapes) -> str | None:
    """BERT and similar models with Hugging Face's names."""
    pattern = r"(?:\w+\.)?embeddings\.word_embeddings\.weight"
    words = next((shape for name, shape in shapes.items() if re.fullmatch(pattern, name)), None)
    depth = _count(shapes, r"(?:\w+\.)?encoder\.layer\.(\d+)\.")
    return None if words is None or not depth else f"BERT-like, {depth} layers of width {words[1]}, {words[0]} tokens"


def _mlp(shapes: Shapes) -> str | None:
    """Linear layers only, each with the outputs of the previous one as inputs."""
    matrices = [shape for shape in shapes.values() if len(shape) == 2]
    if not matrices or any(len(shape) > 2 for shape in shapes.values()):
        return None
    if any(a[0] != b[1] for a, b in pairwise(matrices)) or any(name.endswith("running_mean") for name in shapes):
        return None
    return "MLP " + "-".join(str(n) for n in (matrices[0][1], *(shape[0] for shape in matrices)))


def _summary(shapes: Shapes) -> str | None:
    """Counts of layers by type, if no rule recognises the architecture."""
    kinds = {5: "3D convolution", 4: "2D convolution", 3: "1D convolution or attention", 2: "linear or embedding"}
    counts = [(words, sum(len(shape) == ndim for shape in shapes.values())) for ndim, words in kinds.items()]
    counts.append(("BatchNorm", sum(name.endswith("running_mean") for name in shapes)))
    return ", ".join(f"{words} ×{count}" for words, count in counts if count) or None


def _count(shapes: Shapes, pattern: str) -> int:
    """Number of distinct indices that a pattern matches at the beginning of the names."""
    regex = re.compile(pattern)
    return len({match.group(1) for name in shapes if (match := regex.match(name))})


def _classes(shapes: Shapes, names: tuple[str, ...]) -> str:
    """The number of classes, from the first existing head among these names."""
    head = next((shapes[name] for name in names if name in shapes), None)
    return f", {head[0]} classes" if head is not None and len(head) == 2 else ""


_RULES: tuple[Callable[[Shapes], str | None], ...] = (_resnet, _vgg, _vit, _gpt2, _bert, _mlp)
