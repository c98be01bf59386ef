"""Whether two networks compute the same function, on an example."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError
from landscape.network.graph import Example, arguments, to_evaluate
from landscape.symmetry.graph_calls import values_in

# Tolerance of the outputs, relative to the largest, for rounding of the new weights to their dtype.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
# Largest change of the outputs, relative to the largest, that the eps of a normalization may make.
NEARLY = 1e-2


def outputs_of(model: nn.Module, example: Example, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Every floating-point tensor that a copy of the network in eval mode returns for the example, on the CPU."""
    args, kwargs = arguments(example)

    def cast(value: Any) -> Any:
        return value.to(dtype) if dtype and isinstance(value, Tensor) and value.is_floating_point() else value

    own = to_evaluate(model)
    with torch.no_grad():
        result = (own.to(dtype) if dtype else own)(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})
    listed = values_in(list(result.values()) if isinstance(result, Mapping) else result)
    return [v for v in listed if isinstance(v, Tensor) and v.is_floating_point()]


def tolerance_of(model: nn.Module) -> float:
    """The tolerance for the coarsest of the network's weights."""
    return max((TOLERANCE.get(p.dtype, 0.0) for p in model.parameters()), default=0.0)


def compare(
    before: nn.Module,
    after: nn.Module,
    example: Example,
    *,
    tolerance: float | None = None,
    classes: Sequence[int] = (),
    along: str = "",
    fix: str = "use a factor closer to 1",
    inexact: bool = False,
) -> float:
    """Largest change of an output on the example, relative to the largest output.

    Args:
        before, after: the two networks.
        example: an input of both.
        tolerance: the largest change that is accepted; None for rounding of the weights.
        classes: numbers of classes whose outputs may all move by one constant, which a softmax ignores.
        along: what the weights were moved along, for the message.
        fix: what to do where the change is larger.
        inexact: whether an eps lets the function hold only nearly, for the message.

    Raises:
        NumericalError: a change is above the tolerance, as a safeguard against a wrong rule.
    """
    accepted = tolerance_of(before) if tolerance is None else tolerance
    try:
        pairs = list(zip(outputs_of(before, example, torch.float64), outputs_of(after, example, torch.float64), strict=True))
    except RuntimeError:  # a network that creates float32 tensors cannot run in float64
        pairs = list(zip(outputs_of(before, example), outputs_of(after, example), strict=True))
    largest = 0.0
    for x, y in pairs:
        moved, scale = float(moved_by(x, y, classes).abs().max()), float(x.abs().max())
        if not moved <= accepted * scale and inexact:
            raise too_far(moved / scale if scale else math.inf, along, fix)
        if not moved <= accepted * scale:
            raise NumericalError(
                f"expected outputs to change by at most {accepted:.0e} of the largest{f' along {along}' if along else ''}, "
                f"found {moved:.2e} against {scale:.2e}",
                fix=f"{fix}; if that does not help, tracing missed an operation of the network",
            )
        largest = max(largest, moved / scale if scale else 0.0)
    return largest


def too_far(change: float, along: str, fix: str) -> NumericalError:
    """The refusal of moves with norm-in, which an eps lets hold only nearly, by the relative change of the outputs."""
    which = "which" if along == "norm-in" else "of which norm-in"
    return NumericalError(
        f"expected outputs to change by at most {NEARLY:.0%} of the largest along {along}, {which} holds only nearly because "
        f"of an eps, found {change:.2%}",
        fix=fix,
    )


def moved_by(before: Tensor, after: Tensor, classes: Sequence[int] = ()) -> Tensor:
    """after - before, without its mean over an axis of so many classes (not the first axis) if that makes it smaller."""
    moved = after - before
    axes = [axis for axis in range(1, moved.ndim) if moved.shape[axis] in classes]
    return min((moved, *(moved - moved.mean(axis, keepdim=True) for axis in axes)), key=lambda d: float(d.abs().max()))
