"""Image folders and CIFAR-10's original files as uint8 tensors."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from landscape.errors import UsageError
from landscape.machine import progress
from landscape.machine.files import open_regular

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = "cifar-10-batches-py"
# The evaluation transform of ImageNet networks: shorter side 256, central 224.
_CROP = 256 / 224
_MOST_BYTES = 16 * 2**30


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images: (N, 3, H, W) uint8 and (N,) int64, in the order of `read_folders`."""

    train_x: UInt8[Tensor, "N C H W"]
    train_y: Int[Tensor, " N"]
    test_x: UInt8[Tensor, "M C H W"] | None
    test_y: Int[Tensor, " M"] | None
    classes: tuple[str, ...]
    decoding: str


def read_folders(root: Path, size: int | None) -> Images:
    """Images in class folders.

    `root/train/CLASS/*` with `root/test/CLASS/*` or `root/val/CLASS/*`; or `root/CLASS/*`, all of it training data. Classes
    are the folders' names in alphabetical order. Images are decoded to RGB by Pillow and interleaved by class: the first image
    of each class, by file name, then the second of each.

    Args:
        root: the folder.
        size: resize the shorter side to size * 256/224 (antialiased bilinear), then crop the central size x size square; None
            keeps the images, which must then have equal size.

    Raises:
        UsageError: no images, an image that cannot be decoded, different sizes, or different classes in training and test.
    """
    split = root / "train"
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    train_samples, classes = _listing(split if split.is_dir() else root)
    test_samples, test_classes = ([], classes) if test is None or not split.is_dir() else _listing(test)
    if test_classes != classes:
        odd = sorted(set(test_classes) ^ set(classes))
        raise UsageError(f"expected the same class folders for training and testing, found only in one: {', '.join(odd[:5])}")
    kinds = sorted({path.suffix.lower() for path, _ in train_samples})
    how = f"{'/'.join(kinds)} files decoded to RGB by Pillow"
    if size is not None:
        how += f", shorter side to {round(size * _CROP)} (antialiased bilinear), central {size}x{size}"
    x, y = _decode(train_samples, size)
    test_x, test_y = _decode(test_samples, size) if test_samples else (None, None)
    if test_x is not None and test_x.shape[1:] != x.shape[1:]:
        raise UsageError(
            f"expected test images of the training images' size {tuple(x.shape[2:])}, found {tuple(test_x.shape[2:])}",
            fix="add ,size=224",
        )
    return Images(x, y, test_x, test_y, classes, how)


def is_cifar_batches(path: Path) -> bool:
    """Whether `path` is the original folder of CIFAR-10, or its parent."""
    return path.name == _BATCHES or (path / _BATCHES).is_dir()


def read_cifar_batches(path: Path) -> Images:
    """The original `cifar-10-batches-py`, read by torchvision, which checks the published MD5 of each file before unpickling.

    Raises:
        UsageError: a file is missing or differs from the published one.
    """
    from landscape.tasks.torchvision_import import torchvision

    root = path.parent if path.name == _BATCHES else path
    try:
        train, test = (torchvision.datasets.CIFAR10(str(root), train=flag, download=False) for flag in (True, False))
    except RuntimeError as error:
        raise UsageError(
            f"expected the original CIFAR-10 files in {root / _BATCHES}, found files missing or altered",
            fix="unpack cifar-10-python.tar.gz again, or pass a safetensors file or class folders",
        ) from error
    x, test_x = (torch.from_numpy(np.ascontiguousarray(d.data.transpose(0, 3, 1, 2))) for d in (train, test))
    how = "the original python batches"
    return Images(x, torch.tensor(train.targets), test_x, torch.tensor(test.targets), CIFAR10_CLASSES, how)


def _listing(folder: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """(file, label) of every image, interleaved by class; the classes' names."""
    from landscape.tasks.torchvision_import import torchvision

    try:
        found = torchvision.datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise UsageError(
            f"expected folders of images, one per class, in {folder}, found {str(error).splitlines()[0]}",
            fix="arrange the images as PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg",
        ) from error
    by_class = [[Path(p) for p, _ in group] for _, group in groupby(found.samples, key=lambda s: s[1])]
    ranked = [(rank, label, path) for label, paths in enumerate(by_class) for rank, path in enumerate(paths)]
    return [(path, label) for _, label, path in sorted(ranked)], tuple(found.classes)


def _decode(samples: Sequence[tuple[Path, int]], size: int | None) -> tuple[Tensor, Tensor]:
    """Decode into one tensor, in threads (Pillow releases the interpreter lock while decoding)."""
    load = _loader(size)
    first = load(samples[0][0])
    if first.nbytes * len(samples) > _MOST_BYTES:
        raise UsageError(
            f"expected images that fit {_MOST_BYTES // 2**30} GiB, found {len(samples)} of {first.nbytes} bytes each",
            fix="add ,limit=10000",
        )
    x = torch.empty((len(samples), *first.shape), dtype=torch.uint8)
    with progress.stage("decoding images", total=len(samples)) as advance, ThreadPoolExecutor() as pool:
        for i, pixels in enumerate(pool.map(load, (path for path, _ in samples))):
            if pixels.shape != first.shape:
                raise UsageError(
                    f"expected images of one size {first.shape[1:]}, found {pixels.shape[1:]} in {samples[i][0]}",
                    fix="add ,size=224 to resize and crop them",
                )
            x[i] = torch.from_numpy(pixels)
            advance(1)
    return x, torch.tensor([label for _, label in samples])


def _loader(size: int | None) -> Callable[[Path], np.ndarray]:
    """A function from a file to its (3, H, W) uint8 pixels."""
    from PIL import Image

    def load(path: Path) -> np.ndarray:
        try:
            with open_regular(path) as stream, Image.open(stream) as file:
                picture = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            found = error.strerror if isinstance(error, OSError) and error.strerror else "a file that cannot be decoded"
            raise UsageError(f"expected an image, found {found}: {path}", fix="remove or repair it") from error
        if size is not None:
            shorter = round(size * _CROP)
            scale = shorter / min(picture.size)
            width, height = (max(shorter, round(side * scale)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            left, top = round((width - size) / 2), round((height - size) / 2)
            picture = picture.crop((left, top, left + size, top + size))
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))

    return load
