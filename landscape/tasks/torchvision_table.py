"""Names and shapes of torchvision's networks, kept in a table, so that a refusal need not import torchvision to compare them.

`python -m landscape.tasks.torchvision_table` makes the table again. It holds for one version of torchvision; with any other one
the networks themselves are asked.
"""

import hashlib
import importlib.metadata
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_PATH = Path(__file__).with_name("torchvision_networks.json")
_COUNTERS = ".num_batches_tracked"  # which old files lack


@dataclass(frozen=True)
class Shapes:
    """The tensors of a network.

    Attributes:
        tensors: their number, counters of batches included.
        below: number of weights in tensors that do not depend on the number of classes.
        head: the tensors that do: name -> shape without the first dimension, which is the number of classes.
        digest: of the names and shapes of all others, counters left out.
    """

    tensors: int
    below: int
    head: Mapping[str, list[int]]
    digest: str

    def classes(self, state: Mapping[str, Tensor]) -> int | None:
        """The number of classes with which this network has exactly these tensors; None if it has others."""
        if not all(name in state for name in self.head):
            return None
        counts = {state[name].shape[0] if state[name].ndim else 0 for name in self.head}
        fits = all(list(state[name].shape[1:]) == shape for name, shape in self.head.items()) and len(counts) == 1
        return counts.pop() if fits and digest(state, self.head) == self.digest else None


def digest(state: Mapping[str, Tensor], head: Iterable[str]) -> str:
    """Fingerprint of the names, shapes and kinds of the tensors outside the head, counters left out."""
    out = set(head)
    rows = sorted(
        f"{name} {tuple(t.shape)} {t.is_floating_point()}"
        for name, t in state.items()
        if name not in out and not name.endswith(_COUNTERS)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]


@cache
def known() -> dict[str, Shapes] | None:
    """The table, if it is that of the installed torchvision; None for another version, or without torchvision."""
    table = json.loads(_PATH.read_text())
    try:
        installed = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return None
    if installed.partition("+")[0] != table["torchvision"]:
        return None
    return {name: Shapes(**row) for name, row in table["networks"].items()}


def names() -> list[str]:
    """The classification networks of the installed torchvision."""
    table = known()
    if table is not None:
        return list(table)
    from landscape.tasks.torchvision_import import torchvision

    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def shapes_of(name: str) -> Shapes:
    """The entry of a network, by building it without memory for two numbers of classes."""
    states = [_state(name, classes) for classes in (7, 11)]
    head = {key: list(t.shape[1:]) for key, t in states[0].items() if t.shape != states[1][key].shape}
    below = sum(t.numel() for key, t in states[0].items() if isinstance(t, torch.nn.Parameter) and key not in head)
    return Shapes(len(states[0]), below, head, digest(states[0], head))


def _state(name: str, classes: int) -> dict[str, Any]:
    """The tensors of a network with this number of classes."""
    from landscape.tasks.torchvision_import import torchvision

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                model = torchvision.models.get_model(name, weights=None, num_classes=classes)
        except Exception:  # RegNet's constructor computes with tensors
            model = torchvision.models.get_model(name, weights=None, num_classes=classes)
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    return state


def write() -> None:
    """Make the table for the installed torchvision."""
    from landscape.tasks.torchvision_import import torchvision

    found = {name: asdict(shapes_of(name)) for name in torchvision.models.list_models(module=torchvision.models)}
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
    version = json.dumps(importlib.metadata.version("torchvision").partition("+")[0])
    _PATH.write_text(f'{{"torchvision": {version}, "networks": {{\n{rows}\n}}}}\n')


if __name__ == "__main__":
    write()
