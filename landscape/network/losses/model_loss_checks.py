"""Checks of a loss of (model, batch) before any derivative: it runs, gives a scalar that repeats, and uses its own argument."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError, is_out_of_memory
from landscape.machine.arithmetic import values
from landscape.network.forward import Pass
from landscape.network.functional import holding
from landscape.network.losses.model_loss import as_model_loss

_FIX = (
    "look at the loss with a batch of the data, loss(model, batch); a loss of (output, target) must not name its arguments "
    "model and batch"
)


def ready_whole(network: Pass, theta: Tensor, loss: Callable[..., Any], model: nn.Module) -> Pass:
    """Prepare a forward pass whose loss is one of (model, batch).

    Args:
        network: the model and its data.
        theta: (P,) weights.
        loss, model: the caller's.

    Returns:
        The forward pass, marked if the loss writes to weights or data.

    Raises:
        UsageError: the loss does not run, gives no scalar, has weights of its own, or uses the caller's model from outside.
        NumericalError: it is not finite, or varies from call to call.

    Cost: three values of the loss of the first batch.
    """
    given = as_model_loss(loss)
    assert given is not None  # the caller looked
    function, batch = given.function, network.batches[0]
    own = [name for name, p in function.named_parameters() if p.requires_grad] if isinstance(function, nn.Module) else []
    if own:
        raise UsageError(
            f"expected a loss whose weights all belong to the model, found its own {own[0]}",
            fix="put it into the model, or set requires_grad_(False)",
        )
    weights = {name: t.clone() for name, t in network.tensors(theta).items()}
    before = {name: t.clone() for name, t in weights.items()}
    used = batch.map(Tensor.clone)
    with values():
        first = _value(network, weights, used)
        wrote = not all(torch.equal(a, b) for a, b in zip(batch.tensors, used.tensors, strict=True))
        wrote |= not all(torch.equal(before[name], t) for name, t in weights.items())
        network = replace(network, writes=network.writes or wrote)
        second = _value(network, network.tensors(theta), batch)
    if not math.isfinite(first):
        raise NumericalError(
            f"expected a finite loss at the trained weights, found {first:.4g} for the first batch",
            fix="check the batch and its preprocessing, and that the weights belong to this model",
        )
    if first != second:
        raise NumericalError(
            f"expected the same loss twice, found {first:.6g} and {second:.6g} for the same batch",
            fix="draw random numbers before, and put them into the data",
        )
    _check_argument(network, function, theta, model)
    return network


def _value(network: Pass, weights: dict[str, Tensor], batch: Any) -> float:
    """The loss of a batch as a number."""
    try:
        value = network.run(network.model, weights, batch)
        return float(network.loss.mean(value, batch.target).detach())
    except UsageError:
        raise
    except Exception as error:  # whatever the user's own code raises
        if is_out_of_memory(error):
            raise
        found = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UsageError(f"expected a loss of (model, batch) that runs, found {found}", fix=_FIX) from error


def _check_argument(network: Pass, function: Callable[..., Any], theta: Tensor, model: nn.Module) -> None:
    """Refuse a function that uses the caller's model, which it sees from outside, instead of its argument."""
    named = {id(p): name for name, p in model.named_parameters()}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    batch = network.batches[0].map(Tensor.clone)
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        with values(), holding(network.model, network.tensors(theta)):
            value = function(network.model, batch.args[0])
    except Exception:  # the caller's own function at another device or dtype; its copy ran
        return
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
    left, seen = [value.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = named.get(id(getattr(node, "variable", None)))
        if name is not None:
            raise UsageError(
                f"expected a loss that uses its argument, found one that uses the model's {name} from outside",
                fix="write it as a function of its first argument: def loss(model, batch), and call that model",
            )
        left += [parent for parent, _ in node.next_functions]
