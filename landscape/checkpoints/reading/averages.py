"""Further weights in a training checkpoint besides those under the usual key: averages, and the weights before a SAM step.

The weights under the usual key are not always those that the trainer would evaluate. If the rest of the file shows this, a
notice says so, and the other weights become a further candidate, so that the user has to choose.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_state", "optim", "opt", "optimizer_states", "optimizers")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# Relative difference between SAM's rho and the distance of two steps; an ordinary step has this length only by chance.
_NEAR = 0.01


def others(content: dict[Any, Any], candidates: dict[str, dict[str, Tensor]]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Further candidates of a checkpoint by name, and notices about them.

    - Schedule-free optimizers (Defazio et al. 2024, arXiv:2405.15682) in train mode keep y in the model and z in their state;
      the averaged weights are x = (y - (1 - beta) z) / beta.
    - SAM between its two steps: the model's weights are at distance rho from the trained ones, which the state holds as
    `old_p`. - Lightning's StochasticWeightAveraging keeps the average among the callbacks.

    Args:
        content: the result of `torch.load`.
        candidates: the weights under usual keys.
    """
    further: dict[str, dict[str, Tensor]] = {}
    notices: list[str] = []
    if len(candidates) == 1:
        name, state = next(iter(candidates.items()))
        for optimizer in _optimizers(content):
            _schedule_free(name, state, optimizer, further, notices)
            _sam(name, state, optimizer, further, notices)
    callbacks = content.get("callbacks")
    for key, held in callbacks.items() if isinstance(callbacks, dict) else ():
        if "StochasticWeightAveraging" not in str(key) or not isinstance(held, dict):
            continue
        average = held.get("average_model_state")
        notices.append("Lightning's StochasticWeightAveraging was on: the weights under state_dict are not the average")
        if isinstance(average, dict) and average and all(isinstance(item, Tensor) for item in average.values()):
            further["average_model_state"] = {str(name): item for name, item in average.items()}
    return further, notices


def _optimizers(content: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """The states of optimizers under their usual keys."""
    for key in _OPTIMIZERS:
        held = content.get(key)
        for item in held if isinstance(held, list) else [held]:
            if isinstance(item, dict) and isinstance(item.get("state"), dict) and isinstance(item.get("param_groups"), list):
                yield item


def _kept(state: dict[str, Tensor], optimizer: dict[Any, Any], what: str) -> dict[int, Tensor] | None:
    """The optimizer's entry `what` for each weight, by the weight's identity; None if the assignment is not certain.

    With a single parameter group, the entries are in the order of the model's parameters; tied ones occur once.
    """
    groups, kept = optimizer["param_groups"], optimizer["state"]
    weights = {id(t): t for k, t in state.items() if t.is_floating_point() and k.rpartition(".")[2] not in _BUFFERS}
    if len(groups) != 1 or not isinstance(groups[0], dict) or not isinstance(groups[0].get("params"), list):
        return None
    order = groups[0]["params"]
    if len(order) != len(weights):
        return None
    entries = {}
    for number, (identity, weight) in zip(order, weights.items(), strict=True):
        entry = kept.get(number)
        item = entry.get(what) if isinstance(entry, dict) else None
        if not isinstance(item, Tensor) or item.shape != weight.shape or not item.is_floating_point():
            return None
        if item.device.type != "cpu" or weight.device.type != "cpu":
            return None
        entries[identity] = item
    return entries


def _schedule_free(
    name: str, state: dict[str, Tensor], optimizer: dict[Any, Any], further: dict[str, dict[str, Tensor]], notices: list[str]
) -> None:
    """Add the averaged weights x if the model holds y."""
    group = next((g for g in optimizer["param_groups"] if isinstance(g, dict)), {})
    if group.get("train_mode") is not True or "weight_lr_power" not in group:
        return
    notices.append(
        f"a schedule-free optimizer in train mode wrote this file: {name} holds y, where gradients were taken, not the averaged"
        " weights x that optimizer.eval() puts there"
    )
    betas = group.get("betas")
    beta = betas[0] if isinstance(betas, tuple | list) and betas else group.get("momentum")
    z = _kept(state, optimizer, "z")
    if z is not None and isinstance(beta, float) and 0 < beta < 1:
        made = {identity: _x(state, identity, item, beta) for identity, item in z.items()}
        further["schedule-free x"] = {key: made.get(id(item), item) for key, item in state.items()}


def _x(state: dict[str, Tensor], identity: int, z: Tensor, beta: float) -> Tensor:
    """(y - (1 - beta) z) / beta, in float64."""
    y = next(item for item in state.values() if id(item) == identity)
    return ((y.double() - (1 - beta) * z.double()) / beta).to(y.dtype)


def _sam(
    name: str, state: dict[str, Tensor], optimizer: dict[Any, Any], further: dict[str, dict[str, Tensor]], notices: list[str]
) -> None:
    """Add the trained weights if the model holds the perturbed weights of SAM's first step."""
    group = next((g for g in optimizer["param_groups"] if isinstance(g, dict)), {})
    rho, before = group.get("rho"), _kept(state, optimizer, "old_p")
    if before is None or not isinstance(rho, float) or not 0 < rho < math.inf:
        return
    weights = {id(item): item for item in state.values()}
    distance = math.sqrt(sum(float((weights[i].double() - item.double()).square().sum()) for i, item in before.items()))
    if abs(distance / rho - 1) > _NEAR:
        return  # after a finished step the state still holds its start
    notices.append(
        f"this file was written between SAM's two steps: {name} lies at distance rho = {rho:g} from the trained weights"
    )
    further["SAM old_p"] = {key: before.get(id(item), item).to(item.dtype) for key, item in state.items()}
