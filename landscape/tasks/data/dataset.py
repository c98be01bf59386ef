"""DataSpec, the name of a data set, and DataSet, its tensors and their preparation for a network."""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from landscape.errors import UsageError
from landscape.machine.files import expanded
from landscape.network.identity.hashes import content, sha256

KINDS: dict[str, str] = {
    "digits": "scikit-learn's 8x8 handwritten digits, 1,347 for training and 450 for testing; needs no path",
    "cifar10": "CIFAR-10 at PATH: a safetensors file, class folders, or the original cifar-10-batches-py",
    "imagefolder": "images at PATH in class folders, with or without train/ and test/ or val/ above them",
    "safetensors": "tensors train_x, train_y, test_x, test_y (or train_images, ...) in the file PATH",
    "text": "text in the file PATH, for a model of transformers with its tokenizer (--model hf:FOLDER)",
}
# Names of the tensors in a file of data, in either form.
NAMES = ("train_x", "train_y", "test_x", "test_y")
IMAGES = ("train_images", "train_labels", "test_images", "test_labels")
_OPTIONS = {
    "cifar10": ("normalize", "limit"),
    "imagefolder": ("normalize", "limit", "size"),
    "safetensors": ("normalize", "limit"),
    "text": ("block", "documents", "limit"),
}


@dataclass(frozen=True)
class DataSpec:
    """The value of `--data`: kind, path and options of `KIND[:PATH][,option=value...]`."""

    kind: str
    path: Path | None = None
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "DataSpec":
        """Read `text`.

        Raises:
            UsageError: an unknown kind or option.

        Example:
            >>> DataSpec.parse("imagefolder:photos,size=224").options
            (('size', '224'),)
        """
        options: list[tuple[str, str]] = []
        rest = text
        while match := re.search(r",([a-z_]+)=([^,=]*)$", rest):
            options.insert(0, (match[1], match[2]))
            rest = rest[: match.start()]
        kind, _, path = rest.partition(":")
        if kind not in KINDS:
            raise UsageError(f"expected data as one of {', '.join(KINDS)}, found {text!r}", fix=_meant(kind, text))
        for key, _ in options:
            if key not in _OPTIONS.get(kind, ()):
                known = ", ".join(_OPTIONS.get(kind, ())) or "none"
                raise UsageError(f"expected options of {kind} ({known}), found {key!r}")
        if kind == "digits" and path:
            raise UsageError(f"expected digits without a path, found {path!r}", fix="write --data digits")
        return cls(kind, expanded(path) if path else None, tuple(options))

    def __str__(self) -> str:
        """The text that `parse` reads; without a path, only kind and options."""
        head = self.kind if self.path is None else f"{self.kind}:{self.path}"
        return head + "".join(f",{key}={value}" for key, value in self.options)

    def without_path(self) -> str:
        """Kind and options, which do not change if the data are moved."""
        return str(replace(self, path=None))


def _meant(kind: str, text: str) -> str:
    """What to write instead of data of an unknown kind: the kind that it resembles, or one that fits the path."""
    near = _near(kind, text)
    if near is not None:
        return f"did you mean {near}{text.removeprefix(kind)}?"
    named = with_kind(text)
    return f"for instance --data {'cifar10:PATH' if named == text else named}"


def _near(kind: str, text: str) -> str | None:
    """The kind that a misspelt one resembles; None if there is none, or if `text` is a path."""
    if Path(text).exists() or Path(kind).suffix:
        return None
    return next(iter(get_close_matches(kind, KINDS, n=1)), None)


def with_kind(text: str) -> str:
    """Data as given, with the kind that they must be of: a path's own (safetensors, text, imagefolder), or one misspelt.

    Example:
        >>> with_kind("images.safetensors"), with_kind("digits"), with_kind("notes.txt")
        ('safetensors:images.safetensors', 'digits', 'text:notes.txt')
        >>> with_kind("safetensor:images.safetensors")
        'safetensors:images.safetensors'
    """
    kind, colon, rest = text.partition(":")
    if kind in KINDS:
        return text
    if colon and (near := _near(kind, text)) is not None:
        return f"{near}:{rest}"
    path = Path(text.partition(",")[0])
    kinds = {".safetensors": "safetensors", ".txt": "text", ".jsonl": "text"}
    fits = "imagefolder" if path.is_dir() else kinds.get(path.suffix)
    return text if fits is None else f"{fits}:{text}"


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images or vectors with class labels, in memory as decoded.

    The input of the network is (x / scale - mean) / std (`prepare`); integers other than uint8 (tokens) are not changed.

    Attributes:
        spec: source of the data.
        train_x, train_y: (N, ...) raw inputs, (N,) int64 labels.
        test_x, test_y: the same for testing, or None.
        classes: names of the classes; label k is the k-th.
        scale: divisor of the raw values.
        mean, std: per channel (dimension 1), after division by `scale`; None without normalization.
        decoding: description of the decoding, one line.
    """

    spec: DataSpec
    train_x: Shaped[Tensor, "N ..."]
    train_y: Int[Tensor, " N"]
    test_x: Shaped[Tensor, "M ..."] | None
    test_y: Int[Tensor, " M"] | None
    classes: tuple[str, ...]
    scale: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    decoding: str

    def prepare(self, x: Shaped[Tensor, "B ..."], dtype: torch.dtype | None = None) -> Shaped[Tensor, "B ..."]:
        """Prepared inputs of the network, in float32 unless the raw ones are float64 or `dtype` is given."""
        if not x.is_floating_point() and x.dtype != torch.uint8:
            return x.clone()
        out = x.to(dtype or (torch.float64 if x.dtype == torch.float64 else torch.float32), copy=True)
        if self.scale != 1:
            out /= self.scale
        if self.mean is not None and self.std is not None:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            out -= torch.tensor(self.mean, dtype=out.dtype).reshape(shape)
            out /= torch.tensor(self.std, dtype=out.dtype).reshape(shape)
        return out

    def train(self) -> tuple[Tensor, Tensor]:
        """Training data, prepared for the network."""
        return self.prepare(self.train_x), self.train_y

    def test(self) -> tuple[Tensor, Tensor] | None:
        """Test data, prepared for the network; None if there are none."""
        return None if self.test_x is None or self.test_y is None else (self.prepare(self.test_x), self.test_y)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every raw tensor (shape, dtype, bytes) and of the scale, mean and std that `prepare` applies."""
        pieces: list[str | memoryview] = [repr((self.scale, self.mean, self.std))]
        for t in (self.train_x, self.train_y, self.test_x, self.test_y):
            pieces += ["none"] if t is None else [f"{tuple(t.shape)}{t.dtype}", content(t)]
        return sha256(pieces, delimited=False)

    def first(self, samples: int | None) -> "DataSet":
        """The same data with only the first `samples` training samples; None keeps all.

        Raises:
            UsageError: `samples` is out of range.
        """
        if samples is None:
            return self
        if not 1 <= samples <= len(self.train_y):
            raise UsageError(f"expected from 1 to {len(self.train_y)} training samples, the whole set, found {samples}")
        return replace(self, train_x=self.train_x[:samples], train_y=self.train_y[:samples])

    def describe(self) -> dict[str, object]:
        """The record of the data in a checkpoint."""
        return {
            "spec": self.spec.without_path(),
            "path": None if self.spec.path is None else str(self.spec.path.resolve()),
            "sha256": self.fingerprint,
            "classes": list(self.classes),
            "train_samples": len(self.train_y),
            "test_samples": 0 if self.test_y is None else len(self.test_y),
            "scale": self.scale,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "decoding": self.decoding,
        }

    def save(self, path: str | Path) -> Path:
        """Write the raw tensors to a safetensors file, which `cifar10:PATH` or `safetensors:PATH` reads without decoding.

        Example:
            >>> import tempfile
            >>> from landscape.tasks import read_data
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     packed = read_data("digits").save(folder + "/digits.safetensors")
            ...     len(read_data(f"safetensors:{packed}").train_y)
            1347
        """
        from safetensors.torch import save_file

        names = {
            "train_images": self.train_x,
            "train_labels": self.train_y,
            "test_images": self.test_x,
            "test_labels": self.test_y,
        }
        tensors = {name: t.contiguous() for name, t in names.items() if t is not None}
        save_file(
            tensors, str(path), metadata={"classes": ",".join(self.classes), "source": self.decoding, "scale": repr(self.scale)}
        )
        return Path(path)
