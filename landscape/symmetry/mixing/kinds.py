"""Rules for whole kinds of operations: activations, questions about a shape, and pooling."""

from typing import Any

from landscape.symmetry.mixing.steps import Step, axis_of, rule
from landscape.symmetry.mixing.tracked import channel, columns, vectors
from landscape.symmetry.operation_kinds import AVERAGES, INERT, MAXIMA, RECTIFYING, SHAPE_ONLY


@rule(*INERT, *RECTIFYING)
def activation(step: Step) -> Any:
    """Nothing but a factor passes."""
    return step.nonlinear()


@rule(*SHAPE_ONLY)
def of_the_shape(step: Step) -> Any:
    """A value that depends on the shape of the input alone."""
    return step.nothing(learned=False)


@rule(*AVERAGES)
def average(step: Step) -> Any:
    """The same channels; constants are not followed, because of padding."""
    return _pooled(step, constants=False)


@rule(*MAXIMA)
def maximum(step: Step) -> Any:
    """A constant passes, a matrix does not."""
    step.breaks(step.first, constants=True)
    return _pooled(step, constants=True)


def _pooled(step: Step, *, constants: bool) -> Any:
    """The same channels, in new vectors."""
    x = step.tracked(step.first)
    if x.opaque:
        return step.nothing()
    axis = axis_of(x.codes)
    codes = x.codes.movedim(axis, -1)
    found = columns(step.store, codes, step.place)
    own = channel(codes.reshape(-1, codes.shape[-1]))[0]
    if len(found) != 1 or (own < 0).any() or len(step.shape) != len(x.shape):
        return step.unread()
    if not constants:
        step.store.lose(own, f"{step.place} takes its mean, perhaps with zeros around it")
    return step.result(vectors(step.shape, own, axis))
