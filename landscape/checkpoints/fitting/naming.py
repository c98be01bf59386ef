"""Candidate names for a file's tensors: without prefixes, without wrappers inside names, with old names converted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from landscape.checkpoints.weights import Weights
from landscape.errors import printable

# First parts of names that belong to a training module's losses and metrics, not to the network in it.
_NOT_THE_NETWORK = frozenset(
    """
    criterion loss loss_fn loss_func loss_function metric metrics train_metrics val_metrics valid_metrics test_metrics
    train_acc val_acc test_acc accuracy
    """.split()  # noqa: SIM905  # a column of quoted words would be longer and no clearer
)
# Attributes in which PyTorch's wrappers hold the wrapped module; the first three are used by nothing else.
_ALWAYS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
_WRAPPERS = _ALWAYS | {"module"}
_RENAMED = (("gamma", "weight"), ("beta", "bias"))  # names of normalization layers in TensorFlow and in BERT's first port
_SHOWN = 3
_ROOTS = 4  # most roots that are tried; those with the most names of the model come first


@dataclass(frozen=True, eq=False)
class Naming:
    """A file's tensors under names that may be the model's.

    Attributes:
        state: the tensors.
        notices: how the names were changed.
        ask: whether to try the model's own loader on these names; not if the network's part was a guess.
    """

    state: dict[str, Tensor]
    notices: tuple[str, ...] = ()
    ask: bool = False


def namings(weights: Weights, model_state: dict[str, Tensor]) -> Iterator[Naming]:
    """The unchanged names first, then possible conversions, the most likely first.

    A prefix is removed only if all names at the same place have it.

    Cost: linear in the number of names.
    """
    state = weights.state
    yield Naming(state, ask=True)
    # The removed prefix may belong to the model: restore it, one part at a time from the inside.
    rest, added = weights.prefix, ""
    while rest:
        head, _, last = rest.rstrip(".").rpartition(".")
        added, rest = f"{last}.{added}", f"{head}." if head else ""
        yield Naming({f"{added}{key}": item for key, item in state.items()}, ask=True)
    plain = _unwrapped(state, model_state)
    if plain is not None:
        state = plain.state
        yield plain
    notices = () if plain is None else plain.notices
    older = _older(state, model_state)
    if older:
        state = {older.get(key, key): item for key, item in state.items()}
        first = next(iter(older.items()))
        notices = (*notices, f"{len(older)} names taken for newer ones, as {printable(first[0], limit=60)} for {first[1]}")
        yield Naming(state, notices, ask=True)
    for root in _roots(state, model_state):
        yield from _inside(root, state, model_state, notices)
    leftover = [key for key in state if key.partition(".")[0] in _NOT_THE_NETWORK and key not in model_state]
    if leftover:
        kept = {key: item for key, item in state.items() if key not in set(leftover)}
        yield Naming(kept, (*notices, f"left out {len(leftover)} tensors: {_listed(leftover)}"))
    roots = {key.partition(".")[0] for key in model_state}
    if len(roots) == 1 and all("." in key for key in model_state):
        root = roots.pop()
        renamed = {f"{root}.{key}": item for key, item in state.items()}
        yield Naming(renamed, (*notices, f"names taken with the model's prefix {root}."))


def _unwrapped(state: dict[str, Tensor], model_state: dict[str, Tensor]) -> Naming | None:
    """Names without wrappers inside (`net._orig_mod.fc.weight`), or with the wrappers that the model has."""
    both = all(any("module" in key.split(".") for key in names) for names in (state, model_state))
    wrappers = _ALWAYS if both else _WRAPPERS  # a network may have a part with this name
    file_names, model_names = _canonical(state, wrappers), _canonical(model_state, wrappers)
    if len(set(file_names.values())) < len(file_names) or len(set(model_names.values())) < len(model_names):
        return None
    back = {plain: key for key, plain in model_names.items()}
    renamed = {key: back.get(plain, plain) for key, plain in file_names.items()}
    changed = [key for key, name in renamed.items() if key != name]
    if not changed:
        return None
    removed = sorted({part for key in (*changed, *model_state) for part in key.split(".")} & wrappers)
    notice = f"{len(changed)} names taken without the wrapper {', '.join(f'{name}.' for name in removed)}"
    return Naming({renamed[key]: item for key, item in state.items()}, (notice,), ask=True)


def _canonical(state: dict[str, Tensor], wrappers: frozenset[str]) -> dict[str, str]:
    """For each name, the name without wrappers; a wrapper's attribute counts only if it is alone at its place."""
    children: dict[str, set[str]] = {}
    for key in state:
        place = ""
        for part in key.split("."):
            children.setdefault(place, set()).add(part)
            place = f"{place}{part}."
    names = {}
    for key in state:
        place, kept = "", []
        *parents, last = key.split(".")
        for part in parents:
            if not (part in wrappers and len(children[place]) == 1):
                kept.append(part)
            place = f"{place}{part}."
        names[key] = ".".join((*kept, last))
    return names


def _older(state: dict[str, Tensor], model_state: dict[str, Tensor]) -> dict[str, str]:
    """Names of the file that the model lacks, with newer or older names that it may have."""
    renamed = {}
    gone = {old: new for old, new in _RENAMED if not any(key.rpartition(".")[2] == old for key in model_state)}
    for key in state:
        if key in model_state:
            continue
        head, _, last = key.rpartition(".")
        if head and last in gone and f"{head}.{gone[last]}" not in state:
            renamed[key] = f"{head}.{gone[last]}"
        parts = key.rsplit(".", 3)
        if len(parts) == 4 and parts[1] == "parametrizations" and parts[3] in ("original0", "original1"):
            old = f"{parts[0]}.{parts[2]}_{'gv'[parts[3] == 'original1']}"  # weight_norm: new in the file, old in the model
            if old in model_state:
                renamed[key] = old
    return renamed


def _roots(state: dict[str, Tensor], model_state: dict[str, Tensor]) -> list[str]:
    """First parts of names that may contain the network, ordered by how many of their names the model has."""
    known: Counter[str] = Counter()
    for key in state:
        root, dot, rest = key.partition(".")
        if dot:
            known[root] += rest in model_state
    return [root for root, _ in known.most_common(_ROOTS)]


def _inside(root: str, state: dict[str, Tensor], model_state: dict[str, Tensor], notices: tuple[str, ...]) -> Iterator[Naming]:
    """The part below `root` as the network, with or without the rest of the file."""
    inside = {key.removeprefix(f"{root}."): item for key, item in state.items() if key.startswith(f"{root}.")}
    others = [key for key in state if not key.startswith(f"{root}.")]
    if not set(inside) & set(others) and not (others and root in _WRAPPERS):
        shown = printable(root, limit=60)
        yield Naming(inside | {key: state[key] for key in others}, (*notices, f"names taken without their prefix {shown}."))
    if others and all(key.partition(".")[0] in _NOT_THE_NETWORK for key in others):
        notice = f"left out {len(others)} tensors outside of {printable(root, limit=60)}.: {_listed(others)}"
        yield Naming(inside, (*notices, notice), ask=True)


def _listed(keys: list[str]) -> str:
    """The first few names."""
    return ", ".join(printable(key, limit=60) for key in keys[:_SHOWN])
