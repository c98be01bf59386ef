"""Find the weights in a loaded checkpoint, and convert the rest to plain data."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from landscape.checkpoints.reading.averages import others
from landscape.checkpoints.reading.harmless_classes import ArrayStandIn, DtypeStandIn, StandIn, as_tensor
from landscape.checkpoints.reading.safetensors_file import NAMES
from landscape.errors import MalformedError, printable

# Usual keys of weights: torchvision, timm, Lightning, DataParallel scripts, GANs, self-distillation, BasicSR.
USUAL_KEYS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "module",
    "weights",
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "params",
    "params_ema",
    "generator",
    "discriminator",
    "netG",
    "netD",
    "student",
    "teacher",
)
NOT_WEIGHTS = ("optim", "sched", "scaler", "callback", "loop", "rng", "hist", "metric", "loss")
_DEPTH = 40  # levels of metadata; deeper ones are cut
_NODES = 200_000
_Found = tuple[dict[str, Any], list[Any]]  # tensors by name, and keys of other entries
_LONGEST = 100_000  # characters of a string in the metadata


@dataclass
class Contents:
    """The content of a checkpoint.

    Attributes:
        candidates: tensors by name, for every place with weights.
        unusable: why a tensor of a candidate cannot be a weight; the tensor is then on the `meta` device, with its shape.
        meta: everything else, as JSON values.
        extras: tensors that `save` added.
        recipe: the description that `save` wrote; None for any other file.
        notices: what was changed or left out while reading.
    """

    candidates: dict[str, dict[str, Tensor]]
    unusable: dict[str, dict[str, str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    notices: list[str] = field(default_factory=list)


def sort(value: Any) -> Contents:
    """Sort the result of torch.load into weights and metadata.

    Raises:
        MalformedError: there are no weights.
    """
    if not isinstance(value, dict):
        raise _no_weights(f"a single {_kind(value)}")
    content = dict(dict.items(value))  # not value.items(), since a file may set attributes of a pickled dict
    if set(content) in ({"state_dict", "landscape", "extras"}, {"state_dict", "landscape"}):
        saved = _own(content)
        if saved is not None:
            return saved
    places = dict(_search(content, (), usual=True))
    if not places:
        top, rest = _weights(content)
        mostly = len(top) >= len(content) / 2 and any(item.ndim for item in top.values())
        places = {"(top level)": (top, rest)} if mostly else dict(_search(content, (), usual=False))
    if not places:
        held = ", ".join(printable(str(key), limit=40) for key in list(content)[:8]) or "nothing"
        raise _no_weights(held + (", ..." if len(content) > 8 else ""))
    contents = Contents({})
    for name, (tensors, rest) in places.items():
        if rest and name != "(top level)":
            shown = ", ".join(printable(str(key), limit=60) for key in rest[:3])
            contents.notices.append(
                f"left out of {printable(name, limit=60)}: {len(rest)} entries that are no tensors ({shown})"
            )
        contents.candidates[name], unusable = _usable(tensors)
        if unusable:
            contents.unusable[name] = unusable
        contents.notices += _untangle(contents.candidates[name], name)
    more, notices = others(content, contents.candidates)
    contents.notices += notices
    for name, tensors in more.items():
        contents.candidates[name], unusable = _usable(tensors)
        if unusable:
            contents.unusable[name] = unusable
        contents.notices += _untangle(contents.candidates[name], name)
    heads = {name.split(".")[0] for name in places}
    held_elsewhere = places.get("(top level)", ({}, []))[0]
    contents.meta = plain({key: item for key, item in content.items() if key not in heads and key not in held_elsewhere})
    return contents


def plain(value: Any) -> Any:
    """A value as JSON: other types are described, and what is nested too deeply or too long is cut."""
    return _plain(value, 0, [0])


def _own(content: dict[Any, Any]) -> Contents | None:
    """The contents of a file that `save` wrote; None if it only resembles one."""
    state, recipe, extras = content["state_dict"], content["landscape"], content.get("extras", {})
    if not all(isinstance(part, dict) for part in (state, recipe, extras)) or not state:
        return None
    tensors = {**state, **extras}
    if not all(isinstance(key, str) and isinstance(item, Tensor) for key, item in tensors.items()):
        return None
    usable, unusable = _usable(dict(state))
    contents = Contents({"state_dict": usable}, {"state_dict": unusable} if unusable else {}, recipe=plain(recipe))
    contents.extras = {key: item.detach().contiguous() for key, item in extras.items() if item.dtype in NAMES}
    contents.notices += _untangle(usable, "state_dict")
    return contents


def _search(
    content: dict[Any, Any], path: tuple[str, ...], *, usual: bool
) -> Iterator[tuple[str, tuple[dict[str, Any], list[Any]]]]:
    """Places that contain weights, under the usual keys only or under any plausible key."""
    names = USUAL_KEYS if usual else tuple(key for key in content if isinstance(key, str))
    for name in names:
        inner = content.get(name)
        if not isinstance(inner, dict) or (not usual and any(word in name.lower() for word in NOT_WEIGHTS)):
            continue
        tensors, rest = _weights(inner)
        if tensors and len(tensors) >= len(rest):
            yield ".".join((*path, name)), (tensors, rest)
        elif len(path) < 2:
            yield from _search(inner, (*path, name), usual=usual)


def _weights(content: dict[Any, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The tensors of a mapping by name, and the keys of all other entries."""
    tensors = {}
    for key, item in dict.items(content):
        tensor = as_tensor(item.array) if isinstance(item, ArrayStandIn) else item
        if isinstance(key, str) and isinstance(tensor, Tensor):
            tensors[key] = tensor
    return tensors, [key for key in content if key not in tensors]


def _usable(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Plain dense tensors unchanged; others as meta tensors with a reason."""
    usable, unusable = {}, {}
    for key, tensor in state.items():
        reason = None
        if tensor.is_quantized:
            reason = f"quantized ({tensor.dtype})"
        elif tensor.layout is not torch.strided or tensor.is_nested:
            reason = f"sparse ({tensor.layout})"
        elif tensor.device.type == "meta":
            reason = "on the meta device, without data"
        elif tensor.dtype.is_complex or tensor.dtype not in NAMES:
            reason = f"of {tensor.dtype}"
        if reason is None:
            usable[key] = tensor.detach()
        else:
            kind = torch.float32 if tensor.is_quantized else tensor.dtype
            usable[key] = torch.empty(tuple(tensor.shape), dtype=kind, device="meta")
            unusable[key] = reason
    return usable, unusable


def _untangle(state: dict[str, Tensor], name: str) -> list[str]:
    """Make tensors contiguous in place; identical views stay tied, other overlapping ones are copied with a notice."""
    spans: dict[int, list[tuple[int, int, tuple[Any, ...], str]]] = {}
    shared: dict[tuple[Any, ...], Tensor] = {}
    overlapping: set[str] = set()
    for key, tensor in state.items():
        if tensor.device.type == "meta" or not tensor.numel():
            continue
        size, stride = tuple(tensor.shape), tensor.stride()
        extent = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        begin, base = tensor.data_ptr(), tensor.untyped_storage().data_ptr()
        view = (begin, size, stride, tensor.dtype)
        if extent < tensor.numel():
            overlapping.add(key)
        spans.setdefault(base, []).append((begin, begin + extent * tensor.element_size(), view, key))
        state[key] = shared.setdefault(view, tensor.contiguous())
    for views in spans.values():
        views.sort(key=lambda item: item[:2])
        reach, owner = 0, (None, "")
        for begin, end, view, key in views:
            if begin < reach and view != owner[0]:
                overlapping |= {key, owner[1]}
            if end > reach:
                reach, owner = end, (view, key)  # type: ignore[assignment]  # the first owner is nobody
    if not overlapping:
        return []
    shown = ", ".join(printable(key, limit=60) for key in sorted(overlapping)[:3])
    return [f"copied {len(overlapping)} tensors of {printable(name, limit=60)} that overlap in memory ({shown})"]


def _plain(value: Any, depth: int, count: list[int]) -> Any:
    """One node of `plain`; `count` limits the total, since a pickle can refer to one list many times."""
    count[0] += 1
    if depth > _DEPTH or count[0] > _NODES:
        return "..."
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) < 2**63 else hex(value)[:_LONGEST]
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            count[0] += len(value) // 64
            return value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case dict():
            return {_word(key): _plain(item, depth + 1, count) for key, item in dict.items(value)}
        case list() | tuple() | set() | frozenset():
            return [_plain(item, depth + 1, count) for item in value]
        case Tensor():
            dense = value.device.type == "cpu" and value.layout is torch.strided and not value.is_quantized
            if dense and value.numel() == 1:
                return _plain(value.item(), depth, count)
            return f"tensor {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        case ArrayStandIn():
            array = value.array
            return _plain(array.tolist(), depth, count) if array.size <= 100 else f"array {array.dtype} {array.shape}"
        case DtypeStandIn():
            return f"numpy.{value.dtype()}"
        case StandIn():
            return _stand_in(value, depth, count)
        case type():
            return getattr(value, "name", value.__name__)
    return str(value)[:200] if isinstance(value, complex | torch.dtype | torch.device) else f"a {type(value).__name__}"


def _stand_in(value: StandIn, depth: int, count: list[int]) -> Any:
    """An instance of a class that was not imported: its attributes if any, otherwise its constructor's arguments."""
    if isinstance(value.state, dict) and not value.arguments:
        return _plain(value.state, depth, count)
    if value.name.startswith("pathlib.") and all(isinstance(part, str) for part in value.arguments):
        return str(PurePosixPath(*value.arguments))
    return {"class": value.name, "arguments": _plain(list(value.arguments), depth + 1, count)}


def _word(key: Any) -> str:
    """A key of the metadata as text."""
    return key[:_LONGEST] if isinstance(key, str) else str(_plain(key, _DEPTH, [0]))


def _kind(value: Any) -> str:
    """The type of a checkpoint that is not a dictionary."""
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def _no_weights(held: str) -> MalformedError:
    """The error for a file without weights."""
    return MalformedError(f"expected weights, found no weights; the file holds {held}", fix="save model.state_dict()")
