"""Data sets by name: `read_data("digits")`, `read_data("cifar10:PATH")`, `imagefolder:PATH`, `safetensors:PATH`."""

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from landscape.errors import MalformedError, NumericalError, UsageError, printable
from landscape.tasks.data import images
from landscape.tasks.data.dataset import IMAGES, NAMES, DataSet, DataSpec
from landscape.tasks.data.digits import read_digits, split_by_class

_INPUTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int16, torch.int32, torch.int64)
# Mean and standard deviation of the pixels of the training images, per channel, on the scale 0 to 1.
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "none": None,
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# Largest number of classes. Face recognition and vocabularies have some hundred thousand.
_MOST_CLASSES = 1 << 20
_DEFAULT_NORMALIZATION = {"cifar10": "cifar10", "imagefolder": "imagenet"}


def read_data(text: str | DataSpec) -> DataSet:
    """Read a data set by name.

    Args:
        text: `digits`; `cifar10:PATH`; `imagefolder:PATH`; `safetensors:PATH`. All but digits accept options after a comma:
            `normalize=cifar10|imagenet|none`, `limit=N` (at most N samples of each split), and for imagefolder `size=224`
            (resize the shorter side to 256/224 of it by antialiased bilinear interpolation, then crop the central square;
            without it all images must have the same size).

    Returns:
        The data set. Samples from folders are interleaved by class (first of each class, second of each class, ...), so that
        the first N samples contain all classes; other sources keep their order.

    Raises:
        UsageError: an unknown kind, a missing path, or empty or inconsistent data.
        MalformedError: a damaged safetensors file.
        NumericalError: values that are not finite.

    Example:
        >>> data = read_data("digits")
        >>> tuple(data.train_x.shape), len(data.test_y)
        ((1347, 1, 8, 8), 450)
    """
    spec = DataSpec.parse(text) if isinstance(text, str) else text
    if spec.kind == "text":
        raise UsageError("expected text with the model whose tokenizer reads it, found text alone", fix="add --model hf:FOLDER")
    if spec.kind != "digits" and spec.path is None:
        raise UsageError(f"expected a path for {spec.kind} data, found none", fix=f"write --data {spec.kind}:PATH")
    data = _READERS[spec.kind](spec)
    if "limit" in dict(spec.options):
        data = _limited(data, dict(spec.options)["limit"])
    _check_split("training", data.train_x, data.train_y, len(data.classes))
    if data.test_x is not None and data.test_y is not None:
        _check_split("test", data.test_x, data.test_y, len(data.classes))
    for name, values in (("mean", data.mean), ("std", data.std)):
        channels = data.train_x.shape[1] if data.train_x.ndim > 1 else 1
        if values is not None and len(values) != channels:
            raise UsageError(
                f"expected images of {len(values)} channels for the {name} of their normalization, found {channels}",
                fix=f"write --data {spec},normalize=none",
            )
    return data


def _digits(spec: DataSpec) -> DataSet:
    """scikit-learn's digits with a fixed split: 450 test images, stratified by class, seed 0."""
    values, labels = read_digits()
    x, y = torch.from_numpy(values).unsqueeze(1), torch.from_numpy(labels)
    train, test = (torch.from_numpy(rows) for rows in split_by_class(labels))
    how = "scikit-learn load_digits, values 0 to 16 divided by 16; stratified split, seed 0"
    classes = tuple(str(k) for k in range(10))
    return DataSet(spec, x[train], y[train], x[test], y[test], classes, 16.0, None, None, how)


def _cifar10(spec: DataSpec) -> DataSet:
    """CIFAR-10 from a safetensors file, the original files, or class folders."""
    path = _existing(spec)
    if path.is_file():
        data = _safetensors(spec)
        data = replace(data, classes=images.CIFAR10_CLASSES)
    elif images.is_cifar_batches(path):
        data = _from_images(spec, images.read_cifar_batches(path))
    else:
        data = _from_images(spec, images.read_folders(path, None))
        if len(data.classes) != 10:
            raise UsageError(
                f"expected 10 class folders for cifar10, found {len(data.classes)} in {path}", fix="use imagefolder:PATH"
            )
    if data.train_x.dtype != torch.uint8 or tuple(data.train_x.shape[1:]) != (3, 32, 32):
        raise UsageError(
            f"expected uint8 images (N, 3, 32, 32) for cifar10, found {_kind(data.train_x)}",
            fix="use safetensors:PATH or imagefolder:PATH",
        )
    return data


def _imagefolder(spec: DataSpec) -> DataSet:
    """Images in class folders."""
    size = dict(spec.options).get("size")
    return _from_images(spec, images.read_folders(_existing(spec), None if size is None else _count("size", size)))


def _safetensors(spec: DataSpec) -> DataSet:
    """Tensors under the documented names."""
    from safetensors import SafetensorError, safe_open

    path = _existing(spec)
    if not path.is_file():
        raise UsageError(f"expected a safetensors file, found a folder: {path}", fix="use imagefolder:PATH")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            meta = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        if zipfile.is_zipfile(path):
            raise UsageError(
                f"expected a safetensors file, found {path}, which is an archive of torch.save (or another zip file)",
                fix='write the tensors with safetensors.torch.save_file({"train_x": inputs, "train_y": labels}, path)',
            ) from None
        raise MalformedError(
            f"expected a safetensors file at {path}, found: {error}", fix="check how the file was written"
        ) from error
    names = next((f for f in (NAMES, IMAGES) if f[0] in tensors and f[1] in tensors), None)
    if names is None:
        found = ", ".join(printable(name, limit=40) for name in sorted(tensors)[:8]) or "nothing"
        raise UsageError(
            f"expected tensors train_x and train_y (or train_images and train_labels) in {path}, found {found}",
            fix='write them under these names: safetensors.torch.save_file({"train_x": inputs, "train_y": labels}, path)',
        )
    train_x, train_y, test_x, test_y = (tensors.get(name) for name in names)
    assert train_x is not None
    assert train_y is not None
    if (test_x is None) != (test_y is None):
        raise UsageError(
            f"expected both {names[2]} and {names[3]} in {path}, or neither; found one", fix="add the other tensor"
        )
    for name, labels in ((names[1], train_y), (names[3], test_y)):
        if labels is not None and (labels.is_floating_point() or labels.ndim != 1):
            raise UsageError(
                f"expected integer class labels (N,) in {name}, found {_kind(labels)}",
                fix="describe other targets in a task.py",
            )
    for name, values in ((names[0], train_x), (names[2], test_x)):
        if values is not None and (values.dtype not in _INPUTS or values.ndim < 1):
            raise UsageError(
                f"expected inputs (N, ...) as real numbers in {name}, found {_kind(values)}",
                fix="save them as float32 or uint8",
            )
    train_y = train_y.long()
    test_y = None if test_y is None else test_y.long()
    classes = tuple(meta["classes"].split(",")) if meta.get("classes") else ()
    if not classes and len(train_y):
        count = 1 + max(int(t.max()) for t in (train_y, test_y) if t is not None and len(t))
        if count > _MOST_CLASSES:
            raise UsageError(
                f"expected class labels below {_MOST_CLASSES} in {path}, found {count - 1}",
                fix="number the classes 0, 1, 2, ...; describe other targets in a task.py",
            )
        classes = tuple(str(k) for k in range(count))
    scale = _scale(meta.get("scale"), path) or (255.0 if train_x.dtype == torch.uint8 else 1.0)
    if train_x.dtype in (torch.float16, torch.bfloat16):
        train_x, test_x = train_x.float(), None if test_x is None else test_x.float()
    mean, std = _normalization(spec)
    how = f"safetensors, {_kind(train_x)}" + (f", divided by {scale:g}" if scale != 1 else "")
    return DataSet(spec, train_x, train_y, test_x, test_y, classes, scale, mean, std, how)


_READERS: dict[str, Callable[[DataSpec], DataSet]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "imagefolder": _imagefolder,
    "safetensors": _safetensors,
}


def _from_images(spec: DataSpec, found: images.Images) -> DataSet:
    """Decoded images as a data set."""
    mean, std = _normalization(spec)
    return DataSet(
        spec, found.train_x, found.train_y, found.test_x, found.test_y, found.classes, 255.0, mean, std, found.decoding
    )


def _existing(spec: DataSpec) -> Path:
    """The path of the data, after checking that it exists."""
    assert spec.path is not None
    if not spec.path.is_file() and not spec.path.is_dir():
        raise UsageError(f"expected {spec.kind} data at {spec.path}, found nothing there", fix=f"pass --data {spec.kind}:PATH")
    return spec.path


def _scale(text: str | None, path: Path) -> float | None:
    """The divisor of the values, from the metadata that `DataSet.save` writes."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) == 0:
        raise MalformedError(f"expected a positive scale in the metadata of {path}, found {printable(text, limit=40)}")
    return float(text)


def _normalization(spec: DataSpec) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std of the spec's `normalize`, or the defaults of its kind."""
    name = dict(spec.options).get("normalize", _DEFAULT_NORMALIZATION.get(spec.kind, "none"))
    if name not in NORMALIZATIONS:
        raise UsageError(f"expected normalize={'|'.join(NORMALIZATIONS)}, found {name!r}")
    return NORMALIZATIONS[name] or (None, None)


def _count(name: str, text: str) -> int:
    """A positive integer option."""
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"expected {name} as a positive integer, found {text!r}")
    return int(text)


def _limited(data: DataSet, text: str) -> DataSet:
    """The first samples of each split."""
    n = _count("limit", text)
    test_x, test_y = (None if t is None else t[:n] for t in (data.test_x, data.test_y))
    return replace(data, train_x=data.train_x[:n], train_y=data.train_y[:n], test_x=test_x, test_y=test_y)


def _check_split(name: str, x: Tensor, y: Tensor, classes: int) -> None:
    """Raise an error for inconsistent or non-finite data."""
    if len(x) != len(y):
        raise UsageError(f"expected as many {name} labels as inputs, found {len(x)} inputs and {len(y)} labels")
    if not len(x):
        raise UsageError(f"expected {name} data, found none", fix="check the path and its contents")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise UsageError(f"expected {name} labels from 0 to {classes - 1}, found {int(y.min())} to {int(y.max())}")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        first = int((~torch.isfinite(x.flatten(1))).any(1).nonzero()[0])
        raise NumericalError(
            f"expected finite {name} inputs, found NaN or infinity in sample {first}", fix="clean the data set"
        )


def _kind(t: Tensor) -> str:
    """dtype and shape, as text."""
    return f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
