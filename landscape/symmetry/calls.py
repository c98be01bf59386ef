"""One call of a network's graph, in the form that the scale rules use.

An activation is a tensor of ids (see `landscape.symmetry.scale_variables`), a parameter or buffer a `Leaf`. An operation
without a rule fixes the scale of all its inputs. A missing rule can therefore hide a symmetry, but no unknown operation is
taken for a homogeneous one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from landscape.symmetry.graph_calls import GraphCall, Leaf, values_in
from landscape.symmetry.operation_kinds import COMPARISONS, INERT, NO_FACTOR, RECTIFYING
from landscape.symmetry.scale_variables import PINNED, Variables

Ids = Int[Tensor, "..."]


@dataclass(frozen=True)
class Use:
    """One use of a leaf, in which its elements must scale by s[num] / s[den].

    Attributes:
        leaf: the parameter or buffer.
        num, den: ids that broadcast to the leaf's shape.
        where: the layer of the network.
        eps: of a running variance, where (value + eps) scales by the square of s[num] / s[den]; None otherwise.
    """

    leaf: Leaf
    num: Ids
    den: Ids
    where: str
    eps: float | None = None


@dataclass(frozen=True)
class Call(GraphCall):
    """A call whose tensors are ids or leaves."""

    variables: Variables
    uses: list[Use]

    def results(self, ids: Ids) -> Any:
        """Results for the graph: the first with these ids, the others (indices, statistics) with fixed scale."""
        rest = [fixed(shape) for shape in self.shapes[1:]]
        return [ids.expand(self.shape), *rest] if rest else ids.expand(self.shape)

    def ids(self, value: Any) -> Ids:
        """A value as ids. A parameter used as an activation gets a new variable for each of its elements."""
        if isinstance(value, Leaf):
            if not value.parameter:
                self._note(value)
                return fixed(value.shape)
            ids = self.variables.fresh(value.shape.numel(), value.producer).view(value.shape)
            self._note(value, num=ids)
            return ids
        return value if isinstance(value, Tensor) else fixed()

    def use(self, value: Any, *, num: Ids, den: Ids | None = None) -> None:
        """Require this parameter to scale by num / den; for a fixed or computed value the ratio must be 1."""
        if isinstance(value, Leaf) and value.parameter:
            self._note(value, num=num, den=den)
        elif value is not None:
            self.pin(value)
            self.variables.equate(
                num, fixed() if den is None else den, f"{self.place} uses a fixed or computed value as a weight"
            )

    def use_statistic(self, buffer: Leaf, *, num: Ids, eps: float | None = None) -> None:
        """Let a running mean, or with `eps` a running variance, absorb a scale."""
        self._note(buffer, num=num, eps=eps)

    def _note(self, leaf: Leaf, *, num: Ids | None = None, den: Ids | None = None, eps: float | None = None) -> None:
        """Record a use; without ids the leaf's values are fixed."""
        self.uses.append(Use(leaf, fixed() if num is None else num, fixed() if den is None else den, self.where, eps))

    def mix(self, ids: Ids, dims: Any) -> Ids:
        """Equate ids over axes that the operation treats alike; see `Variables.mix`."""
        return self.variables.mix(ids, list(dims), f"{self.place} treats all positions alike")

    def pin(self, *values: Any, reason: str | None = None) -> None:
        """Fix the scale of values of any type; lists are searched."""
        for value in values:
            if isinstance(value, Tensor):
                self.variables.pin(value, reason or f"{self.place} is not positively homogeneous")
            elif isinstance(value, Leaf):
                self._note(value)
            elif isinstance(value, (list, tuple)):
                self.pin(*value, reason=reason)

    def unknown(self, reason: str | None = None) -> Any:
        """The result of an operation without a rule: all its inputs and outputs have fixed scale."""
        if self.name not in COMPARISONS | INERT | NO_FACTOR | RECTIFYING:
            for value in values_in(list(self.args.values())):
                if isinstance(value, Tensor):
                    self.variables.note(value, place=self.place)
        self.pin(*self.args.values(), reason=reason)
        results = [fixed(shape) for shape in self.shapes]
        return results[0] if len(results) == 1 else results


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these ATen operations."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def fixed(shape: torch.Size | tuple[int, ...] = ()) -> Ids:
    """Ids of a value that is never scaled."""
    return torch.full((), PINNED, dtype=torch.int64).expand(shape)


def along(ids: Ids, axis: int, ndim: int) -> Ids:
    """A vector of ids, shaped to broadcast along one axis of a tensor with `ndim` axes."""
    return ids.reshape([-1 if d == axis % ndim else 1 for d in range(ndim)])
