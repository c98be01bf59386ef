"""Checks of a loss before any derivative: it accepts the outputs and targets, and depends on nothing else."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError, is_out_of_memory
from landscape.network.batches import Batch
from landscape.network.forward import ForwardPass
from landscape.network.functional import holding
from landscape.network.losses.mean_loss import MeanLoss

# Losses of real targets for which PyTorch also accepts integers.
_ANY_NUMBER = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)

# What to do about a loss of the model and a batch that was read as one of outputs and targets.
OF_MODEL = "if it is a loss of the model and a batch, call its arguments model and batch, or pass landscape.ModelLoss(loss)"


def takes(loss: MeanLoss, output: Tensor, target: Tensor) -> bool:
    """Whether the loss accepts an output."""
    if loss.compares_elements and output.shape != target.shape:
        return False  # it would broadcast them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for instance about broadcasting
            return len(output) == len(target) and loss.mean(output.detach(), target).ndim == 0
    except Exception:  # a loss may raise anything for an unsuitable output
        return False


def with_target(loss: MeanLoss, batch: Batch, output: Tensor) -> Batch:
    """The batch with its target as the loss requires it: class indices as int64, integers for a real-valued loss as reals."""
    target, kind = batch.target, str(batch.target.dtype).removeprefix("torch.")
    if loss.takes_classes:
        wanted = output.shape[:1] + output.shape[2:]
        if target.is_floating_point():
            if target.shape[1:] != output.shape[1:]:
                raise UsageError(
                    f"expected class indices, or probabilities of shape (N, {', '.join(map(str, output.shape[1:]))}), found "
                    f"{kind} of shape (N{''.join(f', {n}' for n in target.shape[1:])})",
                    fix="pass indices as y.long()",
                )
        elif target.dtype == torch.bool:
            raise UsageError("expected class indices, found boolean targets", fix="pass y.long()")
        elif target.shape[1:] != wanted[1:]:
            check_classes_first(output, target)
            raise UsageError(
                f"expected class indices of shape (N{''.join(f', {n}' for n in wanted[1:])}), found (N"
                f"{''.join(f', {n}' for n in target.shape[1:])})",
                fix="pass y.squeeze(1)" if target.shape[1:] == (1,) else "reshape the targets",
            )
        else:
            return replace(batch, target=target.long())
    elif loss.compares_elements and not target.is_floating_point():
        if type(loss.loss) not in _ANY_NUMBER:
            raise UsageError(f"expected real targets for {type(loss.loss).__name__}, found {kind}", fix="pass y.float()")
        return replace(batch, target=target.to(output.dtype))
    return batch


def check_loss(
    network: ForwardPass, output: Tensor, target: Tensor, given: Callable[[Tensor, Tensor], Tensor], model: nn.Module
) -> None:
    """Refuse a loss that rejects these shapes, would broadcast them, is random, or depends on weights directly."""
    loss = network.loss
    if loss.compares_elements and output.shape != target.shape:
        raise UsageError(
            f"expected targets of the output's shape (N, {', '.join(map(str, output.shape[1:]))}), "
            f"found (N{''.join(f', {n}' for n in target.shape[1:])})",
            fix="the loss would broadcast them: reshape the targets",
        )
    if isinstance(loss.loss, nn.Module):
        for name, t in (*loss.loss.named_parameters(), *loss.loss.named_buffers()):
            if t.is_floating_point() and not bool(t.isfinite().all()):
                raise NumericalError(f"expected finite weights in the loss, found NaN or infinity in its {name}")
    try:
        twice = [loss.mean(output, target) for _ in range(2)]
    except UsageError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:  # about shapes, not a NameError
        first = str(error).partition("\n")[0]
        if _takes_model(error, model):
            raise UsageError(
                f"expected a loss of (output, target), found one that uses an argument as no tensor can be used: {first}",
                fix=OF_MODEL,
            ) from error
        if isinstance(error, AttributeError) or is_out_of_memory(error):
            raise
        raise UsageError(
            f"expected a loss that takes outputs of shape {tuple(output.shape)} and targets of shape {tuple(target.shape)}, "
            f"{str(target.dtype).removeprefix('torch.')}, found {type(error).__name__}: {first}",
            fix="check the shape and the dtype of the targets",
        ) from error
    if not torch.equal(*twice) and not bool(twice[0].isnan()):
        raise NumericalError(
            f"expected the same loss twice, found {float(twice[0]):.6g} and {float(twice[1]):.6g} for the same outputs",
            fix="remove randomness from the loss, and state that it keeps between calls",
        )
    _check_reads(twice[0], output, target, given, model)


def _check_reads(
    value: Tensor, output: Tensor, target: Tensor, given: Callable[[Tensor, Tensor], Tensor], model: nn.Module
) -> None:
    """Refuse a loss that depends on weights, its own or the model's, other than through the outputs."""
    value, moved = _asked_again(value, output, target, given, model)
    names = {id(p): f"the model's {name}" for name, p in model.named_parameters()}
    parameters = list(given.named_parameters()) if isinstance(given, nn.Module) else []
    named = [names.get(id(p), f"its own {name}") for name, p in parameters if p.requires_grad]
    left, seen = [value.grad_fn], set()
    while left and not named:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            named = [names.get(id(variable), f"a tensor of shape {tuple(variable.shape)}")]
        left += [parent for parent, _ in node.next_functions]
    if moved and not named:
        named = ["the model's weights"]
    if named:
        raise UsageError(
            f"expected a loss of outputs and targets alone, found one that also depends on {named[0]}",
            fix="remove the term, since its curvature would be missing: a penalty c ||w||^2 adds 2c to every eigenvalue; "
            "the loss's own weights belong in the model, or get requires_grad_(False)",
        )


def _asked_again(
    value: Tensor, output: Tensor, target: Tensor, given: Callable[[Tensor, Tensor], Tensor], model: nn.Module
) -> tuple[Tensor, bool]:
    """The caller's loss with gradients enabled for the model's weights, and whether other weights change its value."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(True)
        original = given(output, target)
        with holding(model, {name: p.detach() * 1.5 + 0.1 for name, p in model.named_parameters()}):
            elsewhere = given(output, target)
    except Exception:  # another device or dtype; the copy of the loss was checked before
        return value, False
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
    same = bool((original == elsewhere).all()) or not bool(original.isfinite().all())
    return (original if original.requires_grad else value), not same


def check_classes_first(output: Tensor, target: Tensor) -> None:
    """Refuse outputs whose classes are on the last dimension, as a language model's; the loss takes them on the second."""
    if output.ndim < 3 or output.shape[1:-1] != target.shape[1:]:
        return
    found = f"(N, {', '.join(map(str, output.shape[1:]))}) for targets of (N, {', '.join(map(str, target.shape[1:]))})"
    raise UsageError(
        f"expected outputs with the classes on their second dimension, found {found}",
        fix="to predict the next token pass landscape.NextTokenLoss(); else flatten in the loss: lambda output, y: "
        "cross_entropy(output.flatten(0, -2), y.flatten())",
    )


def check_classes(network: ForwardPass, output: Tensor) -> int | None:
    """Number of classes if targets are certainly class indices; refuse labels without an output."""
    if not network.loss.takes_classes or any(b.target.is_floating_point() for b in network.batches):
        return None
    for i, batch in enumerate(network.batches):
        labels = batch.target[batch.target != network.loss.ignore_index]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < output.shape[1]:
            if 0 <= int(labels.min()) <= int(labels.max()) < output.shape[-1]:
                check_classes_first(output, batch.target)
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            every = torch.cat([b.target[b.target != network.loss.ignore_index].flatten() for b in network.batches])
            raise UsageError(
                f"expected labels from 0 to {output.shape[1] - 1}, found {wrong} in batch {i}",
                fix=from_one(every, output.shape[1]) or "give the model as many classes as the data have",
            )
    return int(output.shape[1])


def from_one(labels: Tensor, outputs: int) -> str | None:
    """What to do about labels that are counted from 1, with an output for each; None for others."""
    if not len(labels) or int(labels.min()) < 1 or int(labels.max()) != outputs:
        return None
    return f"labels count from 0, and these begin at {int(labels.min())}: subtract 1 from them"


def _takes_model(error: Exception, model: nn.Module) -> bool:
    """Whether a loss failed for treating an output as the model: it called it, or asked it for what only the model has."""
    if isinstance(error, AttributeError):
        return error.name is not None and not hasattr(Tensor, error.name) and hasattr(model, error.name)
    return isinstance(error, TypeError) and str(error) == "'Tensor' object is not callable"
