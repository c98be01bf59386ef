"""Names that a checkpoint's pickle may use, and the symbols for them in a dry run."""

from dataclasses import dataclass
from typing import Any

import torch

from landscape.errors import MalformedError

# Modules whose use indicates an attempt to run a program, as opposed to a merely unknown class.
_PROGRAMS = frozenset(
    """
    os posix nt subprocess sys builtins importlib runpy pty socket shutil ctypes webbrowser code codeop pickle _pickle marshal
    multiprocessing threading asyncio signal platform imp pkgutil timeit cProfile pdb bdb trace copyreg
    requests urllib http ftplib smtplib tempfile torch.hub torch.serialization
    """.split()  # noqa: SIM905  # a column of quoted words would be longer and no clearer
)

_TYPES: dict[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
    "Untyped": torch.uint8,
}
STORAGES = {f"{module}.{name}Storage": t for name, t in _TYPES.items() for module in ("torch", "torch.cuda", "torch.storage")}
TENSORS = {f"{module}.{name}Tensor": t for name, t in _TYPES.items() for module in ("torch", "torch.cuda", "torch.sparse")} | {
    "torch.Tensor": torch.float32
}
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
QSCHEMES = frozenset(
    {"torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine", "torch.per_channel_symmetric"}
    | {"torch.per_channel_affine_float_qparams"}
)


@dataclass(frozen=True, eq=False)
class Global:
    """A name that the pickle would import."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A persistent reference to a storage record."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, eq=False)
class Claim:
    """A tensor that the pickle would build."""

    logical: int


@dataclass(eq=False)
class Made:
    """The result of a call; `state` is the state that it would be given afterwards."""

    maker: str
    state: Any = None


class Mapping(dict[Any, Any]):
    """A dict such as OrderedDict that may also be given attributes."""


def is_program(name: str) -> bool:
    """Whether a name, or the module that contains it, can run programs."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in _PROGRAMS for n in (1, 2))


def kind(value: Any) -> str:
    """The kind of a symbolic value, in one word."""
    names = {Claim: "tensor", Global: "name", Storage: "storage", Mapping: "dict"}
    return names.get(type(value), value.maker if isinstance(value, Made) else type(value).__name__)


def bad(sentence: str) -> MalformedError:
    """The error for a broken pickle."""
    return MalformedError(f"pickle: expected {sentence}", fix="save or download the file again")
