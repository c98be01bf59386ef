"""Select the weights in a file, and remove wrappers' prefixes from their names."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.errors import MalformedError, MismatchError, NumericalError, UsageError, printable

_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile; they nest in any order
_ATTRIBUTES = ("model.", "net.")  # usual attributes of the network in a LightningModule
TOP = "(top level)"  # the name of the only set of weights of a file
HALF = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float32, torch.float64)
_INDICES = (torch.int64, torch.int32, torch.bool)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights by name.

    Attributes:
        state: contiguous CPU tensors; floats are float32 or float64 and finite; integers are buffers (counts, indices, masks).
        name: the candidate that they came from.
        notices: what was changed.
        prefix: what was removed from the beginning of every name.
        adapter: the content of the `adapter_config.json` beside an adapter; None for everything else.
    """

    state: dict[str, Tensor]
    name: str
    notices: tuple[str, ...] = ()
    prefix: str = ""
    adapter: Mapping[str, Any] | None = None


def choose(
    candidates: dict[str, dict[str, Tensor]], unusable: dict[str, dict[str, str]], name: str | None, file: str
) -> Weights:
    """The candidate called `name`, or the only one, checked and with prefixes removed; see `Checkpoint.weights`."""
    choices = ", ".join(printable(key, limit=60) for key in candidates)
    if name is None:
        if len(candidates) > 1:
            raise UsageError(
                f"expected one set of weights in {printable(file, limit=80)}, found {len(candidates)}: {choices}",
                fix=f"choose one with --weights NAME, as --weights {printable(next(iter(candidates)), limit=60)}",
            )
        name = next(iter(candidates))
    if name not in candidates:
        raise UsageError(
            f"expected --weights to be one of {choices}, found {printable(name, limit=60)}", fix="choose one of these"
        )
    state, prefix, notices = strip(candidates[name])
    broken = unusable.get(name, {})
    if broken:
        key, reason = next(iter(broken.items()))
        raise MalformedError(
            f"expected dense floating-point weights, found '{printable(key, limit=80)}' {reason}",
            fix="save the model in float32, dense, on a real device",
        )
    converted: dict[int, Tensor] = {}  # tied tensors stay one tensor
    ready = {}
    halves: Counter[str] = Counter()
    for key, tensor in state.items():
        check_dtype(key, tensor)
        if tensor.dtype in HALF:
            halves[str(tensor.dtype).removeprefix("torch.")] += 1
        if id(tensor) not in converted:
            converted[id(tensor)] = tensor.float() if tensor.dtype in HALF else tensor
        ready[key] = converted[id(tensor)]
    check_finite(ready)
    notices += conversions(halves)
    return Weights(ready, name, tuple(notices), prefix)


def conversions(halves: Mapping[str, int]) -> list[str]:
    """Notices of the tensors that a file has in half precision, by dtype."""
    return [f"{count} tensors of {kind} upcast to float32" for kind, count in halves.items()]


def strip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Remove the prefixes that all names share; returns the state, the prefix, and notices."""
    notices = []
    if "n_averaged" in state and all(key.startswith("module.") for key in state if key != "n_averaged"):
        state = {key: item for key, item in state.items() if key != "n_averaged"}
        notices.append("left out n_averaged, the counter of torch's AveragedModel")
        if any(key.endswith("running_mean") for key in state):
            notices.append(
                "averaged weights, whose BatchNorm statistics are those of one of the models unless update_bn ran afterwards"
            )
    prefix = ""
    while state:
        shared = next((p for p in (*_WRAPPERS, *_ATTRIBUTES) if all(key.startswith(p) and key != p for key in state)), None)
        if shared is None:
            break
        state = {key[len(shared) :]: item for key, item in state.items()}
        prefix += shared
    split = {key: _split(key) for key in state}
    if any(wrappers for wrappers, _ in split.values()):
        counts = Counter(rest for _, rest in split.values())
        twice, count = counts.most_common(1)[0]
        if count > 1:
            raise MismatchError(
                f"expected one tensor for '{printable(twice, limit=80)}', found {count} with module. and _orig_mod. stripped",
                fix="save the state dict of the unwrapped model",
            )
        if len({tuple(sorted(wrappers)) for wrappers, _ in split.values()}) == 1:
            # The same wrappers in different orders, such as module._orig_mod.a and _orig_mod.module.b.
            prefix += "".join(sorted(split[next(iter(state))][0], reverse=True))
            state = {split[key][1]: item for key, item in state.items()}
    return state, prefix, notices


def _split(key: str) -> tuple[tuple[str, ...], str]:
    """The wrappers in front of a name, and the name."""
    wrappers: list[str] = []
    while wrapper_name := next((wrapper for wrapper in _WRAPPERS if key.startswith(wrapper) and key != wrapper), None):
        wrappers.append(wrapper_name)
        key = key[len(wrapper_name) :]
    return tuple(wrappers), key


def check_dtype(key: str, tensor: Tensor) -> None:
    """Refuse values that are weights only together with a scale: int8, float8 and packed bytes."""
    if tensor.dtype in (*HALF, *_FLOATS, *_INDICES):
        return
    if tensor.dtype is torch.uint8 and bool((tensor <= 1).all()):
        return  # a mask from before torch had booleans, such as GPT-2's attn.bias
    raise MalformedError(
        f"expected floating-point weights, found '{printable(key, limit=80)}' of {tensor.dtype}: quantized, its scale unknown",
        fix="get the weights in float32, float16 or bfloat16",
    )


def check_finite(state: dict[str, Tensor]) -> None:
    """Refuse NaN and infinity; the message names the tensors."""
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if broken:
        shown = ", ".join(printable(key, limit=80) for key in broken[:3])
        raise NumericalError(
            f"expected finite weights, found NaN or infinity in {len(broken)} tensors: {shown}", fix="use an earlier checkpoint"
        )


def dead_filters(state: Mapping[str, Tensor]) -> list[str]:
    """A notice of weights that have filters of norm zero, in which filter-normalized directions are zero."""
    affected = []
    for key, tensor in state.items():
        if tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel():
            dead = int((tensor.flatten(1) == 0).all(dim=1).sum())
            if dead:
                affected.append((key, dead))
    if not affected:
        return []
    key, dead = affected[0]
    more = f", and in {len(affected) - 1} more" if len(affected) > 1 else ""
    return [f"{dead} all-zero filters in {printable(key, limit=80)}{more}: filter-normalized directions are zero there"]
