"""The `--model` that a checkpoint's weights fit, found by names and shapes: what a refusal suggests and `init` writes."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from landscape.checkpoints.fitting.fit import aliases_of, match, tensors_of
from landscape.checkpoints.fitting.own_loader import OwnLoader
from landscape.checkpoints.weights import Weights
from landscape.errors import LandscapeError, UsageError
from landscape.machine.files import open_regular
from landscape.tasks.hugging_face import role_of
from landscape.tasks.libraries import in_library, model_by_name
from landscape.tasks.torchvision_table import known

NEXT_TOKENS = "text:FILE.txt"  # the data of a causal language model
_LARGEST_CONFIG = 1 << 20  # bytes of a config.json
_IMAGENET = 1000  # classes of most networks of torchvision, and the default of their constructors
_HEAD = re.compile(r"(?:fc|head|heads\.head|classifier(?:\.(\d+))?)\.weight")
_COUNTED = re.compile(r".*(running_mean|running_var|num_batches_tracked)")


@dataclass(frozen=True)
class Recognized:
    """A network whose tensors have exactly the names and shapes of a checkpoint's.

    Equal names and shapes do not prove an equal function (strides and activations have no weights), so this is a suggestion.

    Attributes:
        model: the value for `--model`.
        options: the arguments of the model, for `-M`.
        tensors: number of tensors that were compared; 0 for a Hugging Face folder, whose network is not built, since a foreign
            configuration may ask for one of any size.
        data: the form of its data, for `--data`.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: int = 0
    data: str = "KIND:PATH"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options of the command line that name the network."""
        return ("--model", self.model, *(word for key, value in self.options.items() for word in ("-M", f"{key}={value}")))


def recognize(weights: Weights, path: str | Path, meta: Mapping[str, Any] | None = None) -> Recognized | None:
    """The library network that these weights fit, or None.

    Tried in turn: the Hugging Face or timm `config.json` beside the file, the name under "arch" that timm's and torchvision's
    training scripts keep, and the torchvision networks with the same number of weights. A network counts only if all its
    tensors match; it is built without memory, and from the installed libraries alone.

    Args:
        weights: the result of `Checkpoint.weights`.
        path: the checkpoint.
        meta: what the file holds besides weights (`Checkpoint.meta`).

    Cost:
        Milliseconds for a file with the names of torchvision's version at hand, or with a size that no network of it has;
        otherwise the network is built once on the meta device, some 0.1 s, and its library is imported.
    """
    config = _config(Path(path))
    role = role_of(config.get("architectures"))
    if role is not None:
        data = {"image classifier": "KIND:PATH", "causal language model": NEXT_TOKENS}.get(role, "text:FILE.jsonl")
        return Recognized(f"hf:{Path(path).parent}", data=data)
    named = [name for name in (config.get("architecture"), *((meta or {}).get(key) for key in ("arch", "model_name"))) if name]
    if not named and (found := _in_table(weights)) is not None:
        return found
    for name, options in _candidates(weights, named):
        with contextlib.suppress(Exception), warnings.catch_warnings():  # constructors may raise anything
            warnings.simplefilter("ignore")
            model = _built(name, options)
            state = tensors_of(model.state_dict(keep_vars=True))
            match(state, aliases_of(state), weights, OwnLoader(model))
            return Recognized(name, options, len(state))
    return None


def _built(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network without memory, or with it if its constructor computes with tensors, as torchvision's RegNet does."""
    try:
        return model_by_name(name, options, device="meta")
    except UsageError:
        return model_by_name(name, options)


def _in_table(weights: Weights) -> Recognized | None:
    """The network of torchvision whose tensors have exactly these names and shapes, by the table of its version."""
    for name, shapes in (known() or {}).items():
        classes = shapes.classes(weights.state)
        if classes:
            options = {} if classes == _IMAGENET else {"num_classes": classes}
            return Recognized(f"torchvision:{name}", options, shapes.tensors)
    return None


def _candidates(weights: Weights, named: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and options to try, the most certain first: those that the file or its folder names, then those of this size."""
    head = _head(weights)
    classes: dict[str, Any] = {} if head is None or head[0] == _IMAGENET else {"num_classes": head[0]}
    for name in named:
        if isinstance(name, str):
            yield from ((full, classes) for library in ("timm", "torchvision") if in_library(full := f"{library}:{name}"))
    if head is not None:
        yield from ((f"torchvision:{name}", classes) for name in _of_this_size(weights, *head))


def _of_this_size(weights: Weights, classes: int, features: int) -> Iterator[str]:
    """Networks of torchvision that have as many weights below the head as the file."""
    own = sum(t.numel() for k, t in weights.state.items() if t.is_floating_point() and not _COUNTED.fullmatch(k))
    own -= classes * features
    table = known()
    if table is not None:
        yield from (name for name, shapes in table.items() if own - shapes.below in (0, classes))  # without and with a bias
        return
    from landscape.tasks.torchvision_import import torchvision

    models = torchvision.models
    for name in models.list_models(module=models):
        for trained in models.get_model_weights(name):
            there = len(trained.meta.get("categories") or ()) or _IMAGENET
            below = trained.meta.get("num_params", 0) - there * features
            if below - own in (0, there - classes):  # without and with a bias
                yield name
                break


def _head(weights: Weights) -> tuple[int, int] | None:
    """Classes and features of the last layer, if it has one of the usual names."""
    found = [(int(m[1] or 0), key) for key in weights.state if (m := _HEAD.fullmatch(key))]
    if not found:
        return None
    shape = weights.state[max(found)[1]].shape
    return (shape[0], shape[1:].numel()) if len(shape) > 1 else None


def _config(path: Path) -> dict[str, Any]:
    """The `config.json` beside a checkpoint, or nothing."""
    from landscape.checkpoints.reading.safetensors_file import parse_json

    beside = path.parent / "config.json"
    with contextlib.suppress(OSError, LandscapeError):
        if beside.is_file() and beside.stat().st_size <= _LARGEST_CONFIG:
            with open_regular(beside) as file:
                found = parse_json(file.read(), beside.name)
            return found if isinstance(found, dict) else {}
    return {}
