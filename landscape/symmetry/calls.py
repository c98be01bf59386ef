"""One call of a network's graph, as the rules about scales see it.

An activation is a tensor of ids (see `variables`), a parameter or buffer a `Leaf`. An operation without a rule fixes the
scale of all that enters it: where a rule is missing a symmetry is overlooked, but no operation is taken for homogeneous
because it is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from landscape.symmetry.scale_variables import PINNED, Variables

Ids = Int[Tensor, "..."]


@dataclass(frozen=True)
class Leaf:
    """A parameter or buffer, or a view of one.

    Attributes:
        name: of the tensor.
        shape: of the view.
        parameter: False for a buffer.
        index: which element of the flat tensor each entry of the view is; None for the tensor as it is.
    """

    name: str
    shape: torch.Size
    parameter: bool
    index: Ids | None = None

    @property
    def producer(self) -> str:
        """The layer it belongs to, as reports name it."""
        layer, _, own = self.name.rpartition(".")
        return layer if layer and own in {"weight", "bias"} else self.name

    def elements(self) -> Ids:
        """`index`, made explicit."""
        return torch.arange(self.shape.numel()).view(self.shape) if self.index is None else self.index


@dataclass(frozen=True)
class Use:
    """One place where a leaf is used: there its elements have to scale by s[num] / s[den].

    Attributes:
        leaf: the parameter or buffer.
        num, den: ids that broadcast to the leaf's shape.
        where: the layer of the network.
        eps: of a running variance, for which (value + eps) scales by the square of that; None for anything else.
    """

    leaf: Leaf
    num: Ids
    den: Ids
    where: str
    eps: float | None = None


@dataclass(frozen=True)
class Call:
    """A call: operation, arguments by name (tensors as ids or leaves), shapes of the results, and where it stands."""

    op: Any
    args: dict[str, Any]
    shapes: list[torch.Size]
    where: str
    variables: Variables
    uses: list[Use]

    @property
    def name(self) -> str:
        """Of the operation, without its overload."""
        return str(getattr(self.op, "overloadpacket", self.op)).removeprefix("aten.")

    @property
    def first(self) -> Any:
        """The first argument."""
        return next(iter(self.args.values()))

    @property
    def shape(self) -> torch.Size:
        """Of the first result."""
        return self.shapes[0]

    def results(self, ids: Ids) -> Any:
        """What the graph expects back: the first result, and beside it those that have no scale (indices, statistics)."""
        rest = [fixed(shape) for shape in self.shapes[1:]]
        return [ids.expand(self.shape), *rest] if rest else ids.expand(self.shape)

    def ids(self, value: Any) -> Ids:
        """A value as ids. A parameter that is used like an activation brings in a variable for each of its elements."""
        if isinstance(value, Leaf):
            if not value.parameter:
                self._note(value)
                return fixed(value.shape)
            ids = self.variables.fresh(value.shape.numel(), value.producer).view(value.shape)
            self._note(value, num=ids)
            return ids
        return value if isinstance(value, Tensor) else fixed()

    def use(self, value: Any, *, num: Ids, den: Ids | None = None) -> None:
        """Scale this parameter by num / den; where a fixed or computed value stands in its place, that has to be 1."""
        if isinstance(value, Leaf) and value.parameter:
            self._note(value, num=num, den=den)
        elif value is not None:
            self.pin(value)
            self.variables.equate(
                num, fixed() if den is None else den, f"{self.name} in {self.where} uses a fixed or computed value as a weight"
            )

    def use_statistic(self, buffer: Leaf, *, num: Ids, eps: float | None = None) -> None:
        """Let a running mean, or with `eps` a running variance, take up a scale."""
        self._note(buffer, num=num, eps=eps)

    def _note(self, leaf: Leaf, *, num: Ids | None = None, den: Ids | None = None, eps: float | None = None) -> None:
        """Write down a use; without ids it keeps the leaf's values as they are."""
        self.uses.append(Use(leaf, fixed() if num is None else num, fixed() if den is None else den, self.where, eps))

    def mix(self, ids: Ids, dims: Any) -> Ids:
        """Equate over axes that the operation treats alike; see `Variables.mix`."""
        return self.variables.mix(ids, list(dims), f"{self.name} in {self.where} treats all positions alike")

    def pin(self, *values: Any, reason: str | None = None) -> None:
        """Fix the scale of values of any kind; lists are searched."""
        for value in values:
            if isinstance(value, Tensor):
                self.variables.pin(value, reason or f"{self.name} in {self.where} is not positively homogeneous")
            elif isinstance(value, Leaf):
                self._note(value)
            elif isinstance(value, (list, tuple)):
                self.pin(*value, reason=reason)

    def unknown(self, reason: str | None = None) -> Any:
        """What an operation without a rule does: all that goes in and comes out has a fixed scale."""
        self.pin(*self.args.values(), reason=reason)
        results = [fixed(shape) for shape in self.shapes]
        return results[0] if len(results) == 1 else results


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of these ATen operations."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def fixed(shape: torch.Size | tuple[int, ...] = ()) -> Ids:
    """Ids of something that is never scaled."""
    return torch.full((), PINNED, dtype=torch.int64).expand(shape)


def along(ids: Ids, axis: int, ndim: int) -> Ids:
    """A vector of ids, shaped to broadcast along one axis of a tensor of `ndim` axes."""
    return ids.reshape([-1 if d == axis % ndim else 1 for d in range(ndim)])
