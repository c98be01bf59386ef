"""The mark of a measure: which symmetries of this network could have faked it, and which it is proven to survive."""

from functools import cache
from typing import Any, TypedDict

import torch
from torch import nn

from landscape.errors import NoOutputs
from landscape.measures.registry import MEASURES, Measure
from landscape.measures.traced_network import symmetries_for
from landscape.network.losses.model_loss import ModelLoss
from landscape.objective import Objective
from landscape.symmetry.families import CONSTANTS, FACTORS, FAMILIES, MATRICES, Family


class Mark(TypedDict):
    """The claims of a measure, compared with the symmetries of one network; the fields of `landscape.results.Measurement`."""

    invariant_to: tuple[str, ...]
    fakeable_by: tuple[str, ...]
    survives: tuple[str, ...]
    unknown: tuple[str, ...]


def mark_of(measure: Measure, objective: Objective, *, trace: bool = True) -> Mark:
    """Compare what a measure is proven to survive with the symmetries of the network.

    Args:
        measure: with its claims.
        objective: the network with its loss and data.
        trace: whether to find the network's symmetries; if not, all that is not claimed is unknown.

    Returns:
        invariant_to: the families that the measure is proven to survive, wherever they occur.
        fakeable_by: those that exist in this network and are not among them: they could have given the number.
        survives: those that exist and are among them. A measure that survives every family has them all here, whatever the
            network is.
        unknown: those that are not claimed and were not found, if a part of the network could not be read, where they may
            still exist; empty if all was read.

    Cost: one trace of the network (seconds) for the first measure that does not survive every family.
    """
    claimed = tuple(measure.claims(objective, trace=trace))
    open_ = [family for family in FAMILIES if family not in claimed]
    if not open_:
        return Mark(invariant_to=claimed, fakeable_by=(), survives=claimed, unknown=())
    symmetries = symmetries_for(objective) if trace else None
    exist = () if symmetries is None else symmetries.families
    fakeable_by = tuple(family for family in open_ if family in exist)
    hidden: tuple[Family, ...] = ()
    if symmetries is None or symmetries.unread:
        hidden = tuple(FAMILIES)
    else:
        said = (
            (FACTORS, symmetries.unread_factors),
            (MATRICES, symmetries.unread_matrices),
            (CONSTANTS, symmetries.unread_constants),
        )
        hidden = tuple(family for families, places in said if places for family in families)
    return Mark(
        invariant_to=claimed,
        fakeable_by=fakeable_by,
        survives=tuple(family for family in exist if family in claimed),
        unknown=tuple(family for family in open_ if family not in exist and family in hidden),
    )


def surviving(objective: Objective) -> list[str]:
    """Names of all measures that are proven to survive every symmetry of this network, in the order of the table.

    For a loss of (model, batch) those that need outputs are left out. Whether one is defined for the network is found only when
    it is measured. A part of the network that was not read might hide a family: a measure that does not survive that is not
    among them. Cost: that of `mark_of`, once.
    """
    marks = {name: mark_of(measure, objective) for name, measure in MEASURES.items()}
    found = [name for name, mark in marks.items() if not mark["fakeable_by"] and not mark["unknown"]]
    return found if not isinstance(objective.loss, ModelLoss) else [name for name in found if not _needs_outputs(name)]


@cache
def _needs_outputs(name: str) -> bool:
    """Whether a measure refuses losses of (model, batch): it is asked for that of a network of one weight."""
    with torch.random.fork_rng(devices=[]):
        net, data = nn.Linear(1, 1, bias=False), torch.ones(2, 1)
    loss: Any = ModelLoss(lambda model, batch: model(batch[0]).square().mean())
    tiny = Objective(net, loss, (data, data))
    measure = MEASURES[name]
    try:
        measure.function(tiny, generator=torch.Generator().manual_seed(0), **measure.settings)
    except Exception as error:  # any other says only that it does not suit this network
        return isinstance(error, NoOutputs) or isinstance(error.__cause__, NoOutputs)
    return False
