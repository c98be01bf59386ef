"""Models of other libraries, by name: `torchvision:resnet18`, `timm:NAME`, `hf:NAME`. Nothing is downloaded."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape.errors import LandscapeError, UsageError
from landscape.tasks import networks, torchvision_table
from landscape.tasks.hugging_face import model_in

_LONGEST = 4096  # most characters of an option's value; a list of a few hundred layer widths is shorter
_DOWNLOADS = ("weights", "weights_backbone", "pretrained", "checkpoint_path")


def full_name(name: str) -> str:
    """The name with its library, for one that no built-in network has: "resnet18" is "torchvision:resnet18".

    torchvision comes before timm, which has many of its names too.

    Raises:
        UsageError: neither has a network of this name.
    """
    if ":" in name or name in networks.NETWORKS:
        return name
    if (Path(name) / "config.json").is_file():
        raise UsageError(
            f"expected a built-in network, torchvision:NAME, timm:NAME or hf:FOLDER, found {name!r}, a folder of a "
            "model with its config.json",
            fix=f"did you mean hf:{name}?",
        )
    full = next((full for library in ("torchvision", "timm") if in_library(full := f"{library}:{name}")), None)
    if full is None:
        known = [*networks.NETWORKS, *torchvision_table.names()]
        near = ", ".join(difflib.get_close_matches(name, known, n=3) or networks.NETWORKS)
        raise UsageError(
            f"expected a built-in network or one of torchvision, timm:NAME or hf:FOLDER, found {name!r}",
            fix=f"did you mean {near}?",
        )
    return full


def in_library(name: str) -> bool:
    """Whether "torchvision:NAME" or "timm:NAME" is a network of that library, as installed here."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        return model in torchvision_table.names()
    from landscape.tasks.torchvision_import import torchvision  # noqa: F401 - timm imports it and would fail without this care

    return importlib.util.find_spec("timm") is not None and bool(importlib.import_module("timm").is_model(model))


def model_by_name(name: str, options: Mapping[str, Any], device: str = "cpu") -> nn.Module:
    """A model with new random weights: a built-in one ("resnet20") or another library's ("torchvision:resnet18").

    Args:
        name: `NETWORK`, `torchvision:NAME`, `timm:NAME`, or `hf:FOLDER` with the config.json of a model of transformers:
            a causal language model, or a classifier of sequences or images.
        options: the constructor's keyword arguments.
        device: "cpu", or "meta" for a model without memory.

    Raises:
        UsageError: no such library or model, an option that the constructor does not accept, or one that would download.
    """
    library, colon, model = name.partition(":")
    if not colon:
        return networks.build(name, device=device, **options)
    maker = _LIBRARIES.get(library)
    if maker is None or not model:
        near = difflib.get_close_matches(library, _LIBRARIES, n=1) if maker is None else []
        raise UsageError(
            f"expected --model as a built-in network ({', '.join(networks.NETWORKS)}) or one of "
            f"{', '.join(f'{key}:NAME' for key in _LIBRARIES)}, found {name!r}",
            fix=f"did you mean {near[0]}:{model or 'NAME'}?" if near else None,
        )
    for key in options:
        if key in _DOWNLOADS:
            raise UsageError(
                f"expected a model without {key}, found {key}={options[key]!r}", fix="weights come from the checkpoint"
            )
    # Constructors draw their weights from the global generator, whose state is restored.
    with torch.random.fork_rng(devices=[]), torch.device(device):
        try:
            return maker(model, options)
        except LandscapeError:
            raise
        except Exception as error:  # constructors may raise anything about their arguments
            raise UsageError(
                f"expected options that {name} accepts, found: {_line(error)}",
                fix=_option_meant(error) or "correct the -M options",
            ) from error


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`-M key=value` texts as keyword arguments. A value is parsed as a Python literal; if that fails it is text.

    Raises:
        UsageError: a text without "=", a key twice, or a value that is too long or nested too deeply.

    Example:
        >>> parse_options(["num_classes=10", "widths=[128, 64]", "shortcut=A"])
        {'num_classes': 10, 'widths': [128, 64], 'shortcut': 'A'}
    """
    out: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"expected a model option as key=value, found {pair!r}", fix="for instance -M num_classes=10")
        if key in out:
            raise UsageError(f"expected each model option once, found {key} twice")
        if len(text) > _LONGEST:
            raise UsageError(
                f"expected -M {key} as a number, a text or a short list, found {len(text)} characters",
                fix="for instance -M num_classes=10",
            )
        try:
            out[key] = ast.literal_eval(text)
        except (MemoryError, RecursionError):
            raise UsageError(
                f"expected -M {key} as a number, a text or a short list, found a value that is nested too deeply",
                fix="for instance -M num_classes=10",
            ) from None
        except (ValueError, SyntaxError):
            out[key] = {"true": True, "false": False}.get(text, text)
    return out


def _torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A classification model of torchvision."""
    from landscape.tasks.torchvision_import import torchvision

    models = torchvision.models
    _known(name, models.list_models(module=models), "torchvision")
    return models.get_model(name, weights=None, **options)


def _timm(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A model of timm."""
    from landscape.tasks.torchvision_import import installed

    timm = installed("timm", "timm:NAME")
    if not timm.is_model(name):
        _known(name, timm.list_models(), "timm")
    return timm.create_model(name, pretrained=False, **options)


_LIBRARIES: dict[str, Callable[[str, Mapping[str, Any]], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": model_in,
}


def _known(name: str, names: list[str], library: str) -> None:
    """Raise UsageError for an unknown model, and suggest similar names."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names[:3]
        raise UsageError(f"expected a model of {library}, found {name!r}", fix=f"did you mean {', '.join(near)}?")


def _option_meant(error: Exception) -> str | None:
    """The argument that an unknown one resembles, by the signature of the function or class that refused it."""
    refused = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error))
    frame = error.__traceback__
    if refused is None or frame is None:
        return None
    while frame.tb_next is not None:
        frame = frame.tb_next
    seen = (*frame.tb_frame.f_locals.values(), *frame.tb_frame.f_globals.values())
    called = next((f for f in seen if callable(f) and getattr(f, "__name__", None) == refused[1]), None)
    if called is None:
        return None
    near = difflib.get_close_matches(refused[2], inspect.signature(called).parameters, n=1)
    return f"did you mean -M {near[0]}=...?" if near else None


def _line(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error) or type(error).__name__).splitlines()[0]
