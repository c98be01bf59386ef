"""Load weights into a model, completely or not at all."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from landscape.checkpoints.fitting import adapter
from landscape.checkpoints.fitting.naming import namings
from landscape.checkpoints.fitting.own_loader import OwnLoader
from landscape.checkpoints.weights import Weights
from landscape.errors import MismatchError, UsageError, printable

# Buffers that a constructor computes and training does not change; files of other versions may have them or not.
_COMPUTED = re.compile(
    r"(.*\.)?(num_batches_tracked|position_ids|token_type_ids|relative_position_index|relative_coords_table|attn_mask|inv_freq"
    r"|original_inv_freq|masked_bias)"
)
_CAUSAL = re.compile(r"(.*\.)?(attn|attention)\.bias")  # the causal mask, a triangle of ones, in GPT-2 and GPT-NeoX
_SHOWN = 3


def fit(model: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Load weights into a model, strictly: all tensors of both must match, or nothing is loaded.

    Names may differ by what `Checkpoint.weights` removed, by an attribute such as `backbone.` that contains the network in only
    one of them, by wrappers inside a name (`net._orig_mod.fc.weight`), or by what the model's own loader handles (`OwnLoader`:
    hooks of `load_state_dict`, transformers, PEFT, timm). A LoRA adapter is added to the weights that the model holds. The file
    may lack a tensor that the model ties to another, and buffers that the constructor computes. Computed buffers that only the
    file has are left out, and so are losses and metrics. Each such change gives a notice.

    Args:
        model: the network; its parameters and buffers are overwritten in place.
        weights: the result of `Checkpoint.weights`.

    Returns:
        Notices: what was left out, kept of the model, or converted. A tied weight is one weight, and no notice.

    Raises:
        MismatchError: names or shapes disagree; its `table` lists (name, in the file, in the model).
        UsageError: the model has lazy parameters without a shape.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> fit(layer, Weights({"weight": torch.tensor([[1.0, 2.0]])}, "state_dict"))
        ()
        >>> layer.weight.tolist()
        [[1.0, 2.0]]
    """
    everything = model.state_dict(keep_vars=True)
    model_state = tensors_of(everything)
    for key, item in model_state.items():
        if item.device.type == "meta":
            raise UsageError(f"expected a model with memory, found '{key}' on the meta device", fix="build it on a real device")
    kept, notices = match(model_state, aliases_of(model_state), weights, OwnLoader(model))
    try:
        model.load_state_dict({**everything, **kept}, strict=True)  # extra states other than tensors are unchanged
    except RuntimeError as error:  # a module's hook may require more than names and shapes
        raise MismatchError(f"expected weights that the model accepts, found: {error}") from None
    return (*weights.notices, *notices)


def tensors_of(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a model's state.

    Raises:
        UsageError: a tensor has no shape yet.
    """
    model_state = {key: item for key, item in state.items() if isinstance(item, Tensor)}
    for key, item in model_state.items():
        if nn.parameter.is_lazy(item):
            raise UsageError(f"expected a model with shapes, found '{key}' uninitialized", fix="run one batch through it first")
    return model_state


def match(
    model_state: dict[str, Tensor], aliases: dict[str, str], weights: Weights, loader: OwnLoader
) -> tuple[dict[str, Tensor], list[str]]:
    """Match the file's tensors to the model's, under the model's names; returns them with notices of all changes.

    Args:
        model_state: the model's tensors; only names, shapes and dtypes matter, but tensors that the file lacks are taken from
            here.
        aliases: `aliases_of` the model's tensors.
        weights: the result of `Checkpoint.weights`.
        loader: of the model, for names that it can convert.

    Raises:
        MismatchError: as `fit`.
    """
    if adapter.is_adapter(weights.state) and not adapter.mentions(model_state):
        kept, notice = adapter.merged(weights.state, model_state, weights.adapter)
        return kept, [notice]
    best: tuple[int, list[tuple[str, str, str]]] | None = None
    for naming in namings(weights, model_state):
        tried = [(naming.state, naming.notices)]
        while tried:
            state, notices = tried.pop(0)
            filled, more = fill(state, model_state, aliases)
            table = disagreements(filled, model_state, aliases)
            if not table:
                kept = {key: filled[key] for key in model_state}
                return kept, [*notices, *more, *_conversions(kept, model_state)]
            if best is None or len(table) < best[0]:
                best = (len(table), table)
            if state is naming.state and naming.ask:
                tried += [(renamed, (*notices, *more)) for renamed, more in loader(state)]
    assert best is not None  # the first naming is the unchanged one
    raise _mismatch(best[1], len(weights.state), len(model_state))


def fill(
    state: dict[str, Tensor], model_state: dict[str, Tensor], aliases: dict[str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Add tensors that a file may lack (other names of tied tensors, computed buffers); drop those that no model needs."""
    filled, notices = dict(state), []
    by_first = {aliases[key]: key for key in state if key in aliases}
    tied = [key for key in model_state if key not in filled and aliases[key] in by_first]
    for key in tied:
        filled[key] = state[by_first[aliases[key]]]
    computed = [key for key, item in model_state.items() if key not in filled and _computed(key, item)]
    filled |= {key: model_state[key].detach() for key in computed}
    counters = [key for key in computed if key.rpartition(".")[2] == "num_batches_tracked"]
    others = [key for key in computed if key not in set(counters)]
    if counters:
        notices.append(f"kept {len(counters)} num_batches_tracked of the model, which the file leaves out")
    if others:
        notices.append(f"kept {len(others)} buffers of the model, which the file leaves out: {_listed(others)}")
    # Integers and masks are not weights; the model does not use these.
    idle = [key for key, t in filled.items() if key not in model_state and (not t.is_floating_point() or _computed(key, t))]
    if idle and any(key in model_state for key in filled):
        filled = {key: item for key, item in filled.items() if key not in set(idle)}
        notices.append(f"left out {len(idle)} buffers that the model does not have: {_listed(idle)}")
    if adapter.mentions(model_state) and adapter.is_adapter(state):
        base = [key for key in model_state if key not in filled and adapter.of_the_base(key)]
        if all(key in model_state for key in state):  # the whole adapter, as PEFT's own loader took it
            filled |= {key: model_state[key].detach() for key in base}
            notices.append(adapter.BASE_OF_TASK)
    return filled, notices


def _computed(key: str, item: Tensor) -> bool:
    """Whether a tensor is one that a constructor computes: never random and never trained."""
    if isinstance(item, nn.Parameter):
        return False
    if _CAUSAL.fullmatch(key) and item.ndim == 4 and item.device.type != "meta":
        return bool(((item == 0) | (item == 1)).all())
    return _COMPUTED.fullmatch(key) is not None


def _listed(keys: list[str]) -> str:
    """The first few names."""
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(printable(key, limit=60) for key in keys[:_SHOWN]) + more


def aliases_of(model_state: dict[str, Tensor]) -> dict[str, str]:
    """For every name of the model, the first name with the same memory."""
    first: dict[tuple[object, ...], str] = {}
    aliases = {}
    for key, item in model_state.items():
        # Tensors without elements, or on the meta device, have no address; only identity can tie them.
        where = item.data_ptr() if item.numel() and item.device.type != "meta" else id(item)
        aliases[key] = first.setdefault((where, tuple(item.shape), item.stride(), item.dtype), key)
    return aliases


def disagreements(
    state: dict[str, Tensor], model_state: dict[str, Tensor], aliases: dict[str, str]
) -> list[tuple[str, str, str]]:
    """Rows (name, in the file, in the model) for all differences, the most informative first."""
    shapes, missing, ties = [], [], []
    for key, target in model_state.items():
        if key not in state:
            missing.append((key, "missing", _shape(target)))
        elif state[key].shape != target.shape:
            shapes.append((key, _shape(state[key]), _shape(target)))
        elif state[key].is_floating_point() != target.is_floating_point():
            shapes.append((key, str(state[key].dtype), str(target.dtype)))
        elif aliases[key] != key and aliases[key] in state and not _same(state[key], state[aliases[key]]):
            ties.append((key, f"differs from {printable(aliases[key], limit=60)}", f"tied to {aliases[key]}"))
    extra = [(key, _shape(item), "missing") for key, item in state.items() if key not in model_state]
    return shapes + missing + extra + ties


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have equal values."""
    return a is b or (a.shape == b.shape and torch.equal(a, b))


def _conversions(state: dict[str, Tensor], model_state: dict[str, Tensor]) -> list[str]:
    """A notice if the model has lower precision than the file."""
    narrowed = sum(item.dtype is torch.float64 and model_state[key].dtype is not torch.float64 for key, item in state.items())
    return [f"{narrowed} tensors of float64 rounded to the model's precision"] if narrowed else []


def _shape(tensor: Tensor) -> str:
    """A shape in the table's format: 64×3×7×7, or "scalar"."""
    return "×".join(map(str, tensor.shape)) or "scalar"


def _mismatch(table: list[tuple[str, str, str]], in_file: int, in_model: int) -> MismatchError:
    """The error, with the first few differences in its message."""
    shown = "; ".join(
        f"{printable(key, limit=80)}: {file} in the file, {model} in the model" for key, file, model in table[:_SHOWN]
    )
    more = f"; and {len(table) - _SHOWN} more" if len(table) > _SHOWN else ""
    error = MismatchError(
        f"expected weights that fit the model ({in_model} tensors), found {in_file} tensors with {len(table)} disagreements: "
        f"{shown}{more}",
        fix="pass the model that was trained, with its number of classes",
    )
    error.table = tuple(table)
    return error
