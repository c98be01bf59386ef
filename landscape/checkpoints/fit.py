"""Load weights into a model, all of them or none."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from landscape.checkpoints.weights import Weights
from landscape.errors import MismatchError, UsageError, printable

# Roots of names that belong to a training module's losses and metrics, not to the network inside it.
_NOT_THE_NETWORK = frozenset(
    """
    criterion loss loss_fn loss_func loss_function metric metrics train_metrics val_metrics valid_metrics test_metrics
    train_acc val_acc test_acc accuracy
    """.split()  # noqa: SIM905  # a column of quoted words would be longer and no clearer
)
_SHOWN = 3


def fit(model: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Load weights into a model, strictly: every tensor of both has its partner, or nothing is loaded.

    Names may differ by a prefix: what `Checkpoint.weights` stripped, or an attribute such as `backbone.` that holds the
    network in the one and not in the other. A tensor that the model ties to another may be left out of the file, and so
    may BatchNorm's `num_batches_tracked`. Losses and metrics of a training module are left out with a notice.

    Args:
        model: the network; its parameters and buffers are overwritten in place.
        weights: what `Checkpoint.weights` returned.

    Returns:
        Notices: what was left out, filled in or converted.

    Raises:
        MismatchError: the names or shapes disagree; its `table` lists (name, in the file, in the model).
        UsageError: the model has lazy parameters that no batch has shaped yet.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> fit(layer, Weights({"weight": torch.tensor([[1.0, 2.0]])}, "state_dict"))
        ()
        >>> layer.weight.tolist()
        [[1.0, 2.0]]
    """
    everything = model.state_dict(keep_vars=True)
    own = tensors_of(everything)
    for key, item in own.items():
        if item.device.type == "meta":
            raise UsageError(f"expected a model with memory, found '{key}' on the meta device", fix="build it on a real device")
    kept, notices = match(own, aliases_of(own), weights)
    try:
        model.load_state_dict({**everything, **kept}, strict=True)  # extra states that are no tensors stay as they are
    except RuntimeError as error:  # a module's own hook may ask for more than names and shapes
        raise MismatchError(f"expected weights that the model accepts, found: {error}") from None
    return (*weights.notices, *notices)


def tensors_of(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a model's state.

    Raises:
        UsageError: one has no shape yet.
    """
    own = {key: item for key, item in state.items() if isinstance(item, Tensor)}
    for key, item in own.items():
        if nn.parameter.is_lazy(item):
            raise UsageError(f"expected a model with shapes, found '{key}' uninitialized", fix="run one batch through it first")
    return own


def match(own: dict[str, Tensor], aliases: dict[str, str], weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors under the model's names, each of the model's with its partner, and notices of what was done for it.

    Args:
        own: the model's tensors; only names, shapes and dtypes count, but what a file may leave out is taken from here.
        aliases: `aliases_of` the model's tensors.
        weights: what `Checkpoint.weights` returned.

    Raises:
        MismatchError: as `fit`.
    """
    best: tuple[int, list[tuple[str, str, str]]] | None = None
    for state, notices in _renamings(weights, own):
        filled, more = _fill(state, own, aliases)
        table = _disagreements(filled, own, aliases)
        if not table:
            kept = {key: filled[key] for key in own}
            return kept, [*notices, *more, *_conversions(kept, own)]
        if best is None or len(table) < best[0]:
            best = (len(table), table)
    assert best is not None  # the names as they are come first
    raise _mismatch(best[1], len(weights.state), len(own))


def _renamings(weights: Weights, own: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """The ways to call the file's tensors that could match the model, each with its notices."""
    state = weights.state
    yield state, []
    # What was stripped may have been the model's own: put it back, from the inside out.
    rest = weights.prefix
    added = ""
    while rest:
        head, _, last = rest.rstrip(".").rpartition(".")
        added, rest = f"{last}.{added}", f"{head}." if head else ""
        yield {f"{added}{key}": item for key, item in state.items()}, []
    # The network may be an attribute of what was saved, or of the model given.
    for root in dict.fromkeys(key.partition(".")[0] for key in state if "." in key):
        inside = {key.removeprefix(f"{root}."): item for key, item in state.items() if key.startswith(f"{root}.")}
        others = [key for key in state if not key.startswith(f"{root}.")]
        if not set(inside) & set(others):
            notice = f"names taken without their prefix {printable(root, limit=60)}."
            yield inside | {key: state[key] for key in others}, [notice]
        if others and all(key.partition(".")[0] in _NOT_THE_NETWORK for key in others):
            shown = ", ".join(printable(key, limit=60) for key in others[:_SHOWN])
            yield inside, [f"left out {len(others)} tensors outside of {printable(root, limit=60)}.: {shown}"]
    leftover = [key for key in state if key.partition(".")[0] in _NOT_THE_NETWORK and key not in own]
    if leftover:
        shown = ", ".join(printable(key, limit=60) for key in leftover[:_SHOWN])
        yield {key: item for key, item in state.items() if key not in leftover}, [f"left out {len(leftover)} tensors: {shown}"]
    roots = {key.partition(".")[0] for key in own}
    if len(roots) == 1 and all("." in key for key in own):
        root = roots.pop()
        yield {f"{root}.{key}": item for key, item in state.items()}, [f"names taken with the model's prefix {root}."]


def _fill(state: dict[str, Tensor], own: dict[str, Tensor], aliases: dict[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Add what a file may leave out: the other names of tied tensors, and BatchNorm's counters."""
    filled, notices = dict(state), []
    by_first = {aliases[key]: key for key in state if key in aliases}
    tied = [key for key in own if key not in filled and aliases[key] in by_first]
    for key in tied:
        filled[key] = state[by_first[aliases[key]]]
    if tied:
        notices.append(f"filled in {len(tied)} tied tensors that the file leaves out: {', '.join(tied[:_SHOWN])}")
    counters = [key for key in own if key not in filled and key.rpartition(".")[2] == "num_batches_tracked"]
    filled |= {key: own[key].detach() for key in counters}
    if counters:
        notices.append(f"kept {len(counters)} num_batches_tracked of the model, which the file leaves out")
    return filled, notices


def aliases_of(own: dict[str, Tensor]) -> dict[str, str]:
    """For every name of the model, the first name of the same memory."""
    first: dict[tuple[object, ...], str] = {}
    aliases = {}
    for key, item in own.items():
        # Tensors without elements, or on the meta device, have no address; only identity can tie them.
        where = item.data_ptr() if item.numel() and item.device.type != "meta" else id(item)
        aliases[key] = first.setdefault((where, tuple(item.shape), item.stride(), item.dtype), key)
    return aliases


def _disagreements(state: dict[str, Tensor], own: dict[str, Tensor], aliases: dict[str, str]) -> list[tuple[str, str, str]]:
    """Rows (name, in the file, in the model) for everything that differs; most telling first."""
    shapes, missing, ties = [], [], []
    for key, target in own.items():
        if key not in state:
            missing.append((key, "missing", _shape(target)))
        elif state[key].shape != target.shape:
            shapes.append((key, _shape(state[key]), _shape(target)))
        elif state[key].is_floating_point() != target.is_floating_point():
            shapes.append((key, str(state[key].dtype), str(target.dtype)))
        elif aliases[key] != key and aliases[key] in state and not _same(state[key], state[aliases[key]]):
            ties.append((key, f"differs from {printable(aliases[key], limit=60)}", f"tied to {aliases[key]}"))
    extra = [(key, _shape(item), "missing") for key, item in state.items() if key not in own]
    return shapes + missing + extra + ties


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers."""
    return a is b or (a.shape == b.shape and torch.equal(a, b))


def _conversions(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """A notice where the model holds fewer digits than the file."""
    narrowed = sum(item.dtype is torch.float64 and own[key].dtype is not torch.float64 for key, item in state.items())
    return [f"{narrowed} tensors of float64 rounded to the model's precision"] if narrowed else []


def _shape(tensor: Tensor) -> str:
    """A shape as the table shows it: 64×3×7×7, or "scalar"."""
    return "×".join(map(str, tensor.shape)) or "scalar"


def _mismatch(table: list[tuple[str, str, str]], in_file: int, in_model: int) -> MismatchError:
    """The error, its message naming the first few disagreements."""
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
