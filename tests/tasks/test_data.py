"""Every reader of data on small made-up files, and everything that it must refuse."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from landscape.errors import MalformedError, NumericalError, UsageError
from landscape.tasks.data.by_name import read_data
from landscape.tasks.data.dataset import DataSpec
from landscape.tasks.data.images import CIFAR10_CLASSES

CIFAR = Path(os.environ.get("LANDSCAPE_CIFAR10", Path(__file__).parents[3] / "shared/data/cifar10_6k.safetensors"))


def colour(path: Path, rgb: tuple[int, int, int], size: tuple[int, int] = (32, 32), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, rgb).convert(mode).save(path)


def tensors(path: Path, **changes: torch.Tensor | None) -> str:
    g = torch.Generator().manual_seed(0)
    content = {
        "train_x": torch.randn(6, 4, generator=g),
        "train_y": torch.tensor([0, 1, 2, 0, 1, 2]),
        "test_x": torch.randn(3, 4, generator=g),
        "test_y": torch.tensor([0, 1, 1]),
    }
    save_file({k: v for k, v in (content | changes).items() if v is not None}, str(path))
    return f"safetensors:{path}"


def test_digits():
    data = read_data("digits")
    assert data.train_x.shape == (1347, 1, 8, 8)
    assert data.test_x.shape == (450, 1, 8, 8)
    x, y = data.train()
    assert (x.min().item(), x.max().item(), x.dtype, y.dtype) == (0.0, 1.0, torch.float32, torch.int64)
    shares = torch.bincount(data.train_y) / 1347 - torch.bincount(data.test_y) / 450
    assert shares.abs().max().item() < 0.003  # stratified
    rows = {r.numpy().tobytes() for r in data.train_x.flatten(1)}
    assert len(rows & {r.numpy().tobytes() for r in data.test_x.flatten(1)}) == 0
    assert read_data("digits").fingerprint == data.fingerprint


def test_folders_interleaved_by_class(tmp_path):
    for i in range(3):
        colour(tmp_path / f"train/b/{i}.png", (10 + i, 0, 255))
    for i in range(2):
        colour(tmp_path / f"train/a/{i}.png", (i, 100, 0))
    colour(tmp_path / "val/a/x.png", (7, 7, 7))
    colour(tmp_path / "val/b/x.png", (8, 8, 8), mode="L")  # grey: decoded to three channels
    data = read_data(f"imagefolder:{tmp_path},normalize=none")
    assert data.classes == ("a", "b")
    assert data.train_y.tolist() == [0, 1, 0, 1, 1]
    assert data.train_x[:, 0, 0, 0].tolist() == [0, 10, 1, 11, 12]
    assert data.test_x[:, :, 5, 5].tolist() == [[7, 7, 7], [8, 8, 8]]
    assert data.train()[0][1, 2, 0, 0].item() == 1.0
    assert read_data(f"imagefolder:{tmp_path},limit=2").train_y.tolist() == [0, 1]
    x = read_data(f"imagefolder:{tmp_path}").train()[0]
    torch.testing.assert_close(
        x[0, :, 3, 3],
        (torch.tensor([0, 100, 0]) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]),
    )


def test_flat_folder_and_size(tmp_path):
    colour(tmp_path / "cat/1.png", (1, 2, 3), (40, 20))
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the central square of this picture is light
    (tmp_path / "dog").mkdir()
    Image.fromarray(wide).save(tmp_path / "dog/1.png")
    with pytest.raises(
        UsageError, match=r"expected images of one size \(20, 40\), found \(20, 60\) in .*dog/1.png; add ,size=224"
    ):
        read_data(f"imagefolder:{tmp_path}")
    data = read_data(f"imagefolder:{tmp_path},size=14")
    assert data.train_x.shape == (2, 3, 14, 14)
    assert data.test() is None
    assert data.train_x[1, 0, 7].float().mean().item() > 180
    assert "shorter side to 16" in data.decoding


def test_cifar_folders_and_packing(tmp_path):
    for k, name in enumerate(CIFAR10_CLASSES):
        colour(tmp_path / f"train/{name}/0.jpg", (25 * k, 0, 0))
        colour(tmp_path / f"test/{name}/0.jpg", (0, 25 * k, 0))
    data = read_data(f"cifar10:{tmp_path}")
    assert data.classes == CIFAR10_CLASSES
    assert data.train_x.shape == (10, 3, 32, 32)
    assert ".jpg" in data.decoding
    packed = read_data(f"cifar10:{data.save(tmp_path / 'packed.safetensors')}")
    assert packed.fingerprint == data.fingerprint
    assert packed.mean == (0.4914, 0.4822, 0.4465)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (packed.mean, packed.std))
    torch.testing.assert_close(packed.train()[0], (data.train_x / 255 - mean) / std)


def test_safetensors(tmp_path):
    spec = tensors(tmp_path / "d.safetensors")
    data = read_data(spec)
    assert (len(data.classes), data.scale, len(data.test_y)) == (3, 1.0, 3)
    torch.testing.assert_close(data.train()[0], data.train_x, rtol=0, atol=0)
    alone = read_data(tensors(tmp_path / "e.safetensors", test_x=None, test_y=None))
    assert alone.test() is None
    half = read_data(tensors(tmp_path / "f.safetensors", train_x=torch.ones(6, 4, dtype=torch.float16)))
    assert half.train()[0].dtype == torch.float32
    tokens = read_data(tensors(tmp_path / "g.safetensors", train_x=torch.arange(24).reshape(6, 4)))
    assert tokens.train()[0].dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"train_y": None}, UsageError, "expected tensors train_x and train_y .*, found test_x, test_y, train_x"),
        ({"test_y": None}, UsageError, "expected both test_x and test_y in .*, or neither; found one"),
        ({"train_y": torch.arange(5)}, UsageError, "expected as many training labels as inputs, found 6 inputs and 5 labels"),
        ({"train_y": torch.tensor([0, 1, 2, -1, 1, 2])}, UsageError, "expected training labels from 0 to 2, found -1 to 2"),
        ({"train_y": torch.rand(6)}, UsageError, r"expected integer class labels \(N,\) in train_y, found float32 \(6,\)"),
        ({"train_x": torch.empty(0, 4), "train_y": torch.empty(0).long()}, UsageError, "expected training data, found none"),
        ({"test_x": torch.empty(0, 4), "test_y": torch.empty(0).long()}, UsageError, "expected test data, found none"),
        (
            {"train_y": torch.tensor([0, 1, 2, 200_000_000, 1, 2])},
            UsageError,
            "expected class labels below 1048576 in .*, found 2",
        ),
        ({"test_y": torch.tensor([0, 2**40, 1])}, UsageError, "expected class labels below 1048576 in .*, found 1099511627776"),
        (
            {"train_x": torch.zeros(6, 4, dtype=torch.complex64)},
            UsageError,
            r"as real numbers in train_x, found complex64 \(6, 4",
        ),
        (
            {"test_x": torch.zeros(3, 4, dtype=torch.float8_e4m3fn)},
            UsageError,
            "as real numbers in test_x, found float8_e4m3fn",
        ),
        ({"train_x": torch.tensor([[0.0]] * 4 + [[torch.nan]] * 2)}, NumericalError, "found NaN or infinity in sample 4"),
    ],
)
def test_bad_tensors(tmp_path, changes, kind, text):
    with pytest.raises(kind, match=text):
        read_data(tensors(tmp_path / "bad.safetensors", **changes))


def test_label_beyond_the_classes_of_cifar(tmp_path):
    file = tmp_path / "c.safetensors"
    x = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    save_file({"train_images": x, "train_labels": torch.tensor([0, 10])}, str(file))
    with pytest.raises(UsageError, match="expected training labels from 0 to 9, found 0 to 10"):
        read_data(f"cifar10:{file}")
    save_file({"train_images": x[:, :, :8].contiguous(), "train_labels": torch.tensor([0, 1])}, str(file))
    with pytest.raises(UsageError, match=r"expected uint8 images \(N, 3, 32, 32\) for cifar10, found uint8 \(2, 3, 8, 32\)"):
        read_data(f"cifar10:{file}")


def test_files_that_are_no_data(tmp_path):
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all")
    with pytest.raises(MalformedError, match="expected a safetensors file at"):
        read_data(f"safetensors:{broken}")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match=r"expected safetensors data at .*, found nothing there"):
        read_data(f"safetensors:{tmp_path / 'fifo'}")
    with pytest.raises(UsageError, match="expected folders of images, one per class, in"):
        read_data(f"imagefolder:{tmp_path}")
    colour(tmp_path / "train/a/1.png", (0, 0, 0))
    (tmp_path / "train/a/2.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(UsageError, match=r"expected an image, found a file that cannot be decoded: .*2.png"):
        read_data(f"imagefolder:{tmp_path}")
    (tmp_path / "train/a/2.png").unlink()
    for node in ("2.png", "0.png"):  # behind the first image and as the first one
        os.mkfifo(tmp_path / "train/a" / node)
        with pytest.raises(UsageError, match=rf"expected an image, found it is a pipe, not a file: .*{node}"):
            read_data(f"imagefolder:{tmp_path}")
        (tmp_path / "train/a" / node).unlink()
    (tmp_path / "train/a/2.png").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"expected an image, found it is a device, not a file: .*2.png"):
        read_data(f"imagefolder:{tmp_path}")
    (tmp_path / "train/a/2.png").unlink()
    colour(tmp_path / "test/b/1.png", (0, 0, 0))
    with pytest.raises(UsageError, match="expected the same class folders for training and testing, found only in one: a, b"):
        read_data(f"imagefolder:{tmp_path}")
    with pytest.raises(UsageError, match="expected 10 class folders for cifar10, found 1"):
        read_data(f"cifar10:{tmp_path / 'train'}")


def test_altered_python_batches_are_not_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    canary = tmp_path / "canary"
    hostile = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(hostile)
    with pytest.raises(UsageError, match=r"expected the original CIFAR-10 files in .*, found files missing or altered"):
        read_data(f"cifar10:{folder}")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mnist", "expected data as one of digits, cifar10, imagefolder, safetensors, text, found 'mnist'"),
        ("cifar10", "expected a path for cifar10 data, found none"),
        ("digits:here", "expected digits without a path, found 'here'"),
        ("digits,size=3", "expected options of digits (none), found 'size'"),
        ("cifar10:/nowhere", "expected cifar10 data at /nowhere, found nothing there"),
        ("safetensors:~nosuch/x", "expected a path, found '~nosuch/x': Could not determine home directory."),
        ("imagefolder:.,size=-1", "expected size as a positive integer, found '-1'"),
    ],
)
def test_bad_specs(text, problem):
    with pytest.raises(UsageError) as caught:
        read_data(text)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("safetensor:digits32.safetensors", "did you mean safetensors:digits32.safetensors?"),
        ("image_folder:photos,size=224", "did you mean imagefolder:photos,size=224?"),
        ("digit", "did you mean digits?"),
        ("cifar.safetensors", "for instance --data safetensors:cifar.safetensors"),
        ("mnist", "for instance --data cifar10:PATH"),
    ],
)
def test_a_misspelt_kind_is_named(text, fix):
    with pytest.raises(UsageError) as caught:
        DataSpec.parse(text)
    assert caught.value.fix == fix


def test_bad_normalization(tmp_path):
    spec = tensors(tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match=r"expected normalize=none\|cifar10\|imagenet, found 'zscore'"):
        read_data(f"{spec},normalize=zscore")
    with pytest.raises(UsageError, match="expected images of 3 channels for the mean of their normalization, found 4"):
        read_data(f"{spec},normalize=cifar10")


def test_spec_keeps_commas_in_paths():
    spec = DataSpec.parse("cifar10:/data/a,b/c=d/x.safetensors,normalize=none")
    assert str(spec.path) == "/data/a,b/c=d/x.safetensors"
    assert str(spec) == "cifar10:/data/a,b/c=d/x.safetensors,normalize=none"
    assert spec.without_path() == "cifar10,normalize=none"


@pytest.mark.skipif(not CIFAR.is_file(), reason="CIFAR-10 is not here: set LANDSCAPE_CIFAR10 to a safetensors file of it")
def test_real_cifar():
    data = read_data(f"cifar10:{CIFAR}")
    assert data.train_x.dtype == torch.uint8
    x, y = data.train()
    assert torch.bincount(y, minlength=10).min().item() > 0.08 * len(y)
    # the published statistics are those of all 50,000 images; a tenth of them agrees to about a hundredth
    assert x.mean(dim=(0, 2, 3)).abs().max().item() < 0.05
    assert (x.std(dim=(0, 2, 3)) - 1).abs().max().item() < 0.05
