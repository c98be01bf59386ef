"""Plain data in place of harmless classes that checkpoints refer to.

Training scripts pickle their options with the weights: an argparse.Namespace, numpy scalars, paths, a Lightning AttributeDict.
None of these classes is imported. Torch's restricted unpickler is configured to use the classes below under their names, so the
result is data whatever the file says, and the library that wrote it need not be installed.
"""

import re
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

_LISTED = """
argparse.Namespace types.SimpleNamespace
pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePath pathlib.PurePosixPath pathlib.PureWindowsPath
pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
pathlib._local.PurePath pathlib._local.PurePosixPath pathlib._local.PureWindowsPath
datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone uuid.UUID decimal.Decimal fractions.Fraction
builtins.list builtins.tuple builtins.int builtins.float builtins.str builtins.bool builtins.bytes
builtins.object builtins.frozenset builtins.slice builtins.range typing.Any
torch.torch_version.TorchVersion
omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.ContainerMetadata omegaconf.base.Metadata
omegaconf.nodes.AnyNode omegaconf.nodes.IntegerNode omegaconf.nodes.FloatNode
omegaconf.nodes.StringNode omegaconf.nodes.BooleanNode
pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint pytorch_lightning.callbacks.early_stopping.EarlyStopping
lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint lightning.pytorch.callbacks.early_stopping.EarlyStopping
"""

_DICTS = """
collections.defaultdict builtins.dict yacs.config.CfgNode easydict.EasyDict addict.addict.Dict
fvcore.common.config.CfgNode detectron2.config.config.CfgNode
pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing.AttributeDict
lightning.fabric.utilities.data.AttributeDict
lightning_fabric.utilities.data.AttributeDict lightning_lite.utilities.data.AttributeDict
"""


class StandIn:
    """An instance of a class that is not imported: its constructor's arguments and its state."""

    name = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "StandIn":
        """Store the arguments; as in unpickling, the class's own __init__ never runs."""
        self = object.__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __init__(self, *arguments: Any) -> None:
        """Accept the arguments that __new__ stored."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class DtypeStandIn:
    """A numpy dtype from its code; only plain numbers, booleans, bytes and text."""

    def __init__(self, code: str = "", *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU]\d{1,6}", code):
            raise ValueError(f"numpy dtype {code!r} is not a plain number")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return np.dtype(self.order + self.code)


class ArrayStandIn:
    """A numpy array from its bytes."""

    def __init__(self, *_: Any) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        if not isinstance(data, bytes) or not isinstance(dtype, DtypeStandIn):
            raise ValueError("a numpy array of objects")
        flat = np.frombuffer(data, dtype.dtype())
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def numpy_scalar(dtype: DtypeStandIn, data: bytes) -> object:
    """A numpy scalar as a Python number."""
    if not isinstance(dtype, DtypeStandIn) or not isinstance(data, bytes):
        raise ValueError("a numpy scalar that is not a plain number")
    return np.frombuffer(data, dtype.dtype(), count=1)[0].item()


def numpy_reconstruct(*_: Any) -> ArrayStandIn:
    """An empty array, filled by its state."""
    return ArrayStandIn()


def dictionary(*arguments: Any) -> OrderedDict[Any, Any]:
    """A dict of any foreign class: its pairs, without the class's factory or attributes."""
    pairs = arguments[-1] if arguments and isinstance(arguments[-1], dict | list) else ()
    return OrderedDict(pairs)


# A foreign dict is created by a call of its name or by __new__; `dictionary` serves the first, OrderedDict the second.
DICTIONARIES = frozenset(_DICTS.split())
CALLED_DICTIONARIES = frozenset({"collections.defaultdict", "builtins.dict"})
CLASSES: dict[str, type[StandIn]] = {
    name: type(name.rpartition(".")[2], (StandIn,), {"name": name}) for name in _LISTED.split()
}
NUMPY_CALLS: dict[str, Any] = {
    **{f"numpy.{core}.multiarray.scalar": numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": numpy_reconstruct for core in ("core", "_core")},
    "numpy.dtype": DtypeStandIn,
}


def safe_globals() -> list[Any]:
    """Arguments of torch.serialization.safe_globals: pairs of a class or function here and the name that it replaces."""
    pairs: list[Any] = [(cls, name) for name, cls in CLASSES.items()]
    pairs += [(dictionary if name in CALLED_DICTIONARIES else OrderedDict, name) for name in DICTIONARIES]
    pairs += [(function, name) for name, function in NUMPY_CALLS.items()]
    pairs.append((ArrayStandIn, "numpy.ndarray"))
    return pairs


def as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor | None:
    """A numpy array of numbers as a tensor with its own memory; None if torch has no such dtype."""
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(native)
    except TypeError:
        return None
