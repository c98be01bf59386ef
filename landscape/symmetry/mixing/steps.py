"""One call of a network's graph, in the form that the rules about channels use.

An activation is a `Tracked`, a parameter or buffer a `Leaf`. An operation that is known not to be linear breaks the channels of
its inputs. One that no rule knows is noted as not read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from landscape.symmetry.graph_calls import GraphCall, Leaf, values_in
from landscape.symmetry.mixing.channels import Channels, Numbers, Taken
from landscape.symmetry.mixing.tracked import Codes, Mark, Tracked, distinct, opaque, vector_axis, vectors
from landscape.symmetry.operation_kinds import COMPARISONS, INERT, RECTIFYING, SHAPE_ONLY


@dataclass(frozen=True)
class Step(GraphCall):
    """A call whose activations are `Tracked`, with the channels of the network."""

    store: Channels

    def values(self) -> list["Tracked | Leaf"]:
        """All arguments that are activations, parameters or buffers; lists are searched."""
        return [v for arg in self.args.values() for v in values_in(arg) if isinstance(v, (Tracked, Leaf))]

    @property
    def varies(self) -> bool:
        """Whether a value depends on the input of the network, and not on its shape alone."""
        return self.name not in SHAPE_ONLY and any(isinstance(v, Tracked) and not v.given for v in self.values())

    def tracked(self, value: Any) -> Tracked:
        """A value as an activation; a parameter starts channels of its own, one for each element of its last axis."""
        if isinstance(value, Tracked):
            return value
        if isinstance(value, Leaf):
            own = value.parameter and value.shape
            start = written(self, value) if own else opaque(value.shape, learned=value.parameter)
            return replace(start, given=True)
        return replace(opaque((), learned=False), given=True)

    def result(self, codes: Codes, learned: bool = True) -> Any:
        """Results: the first with these codes, the others without channels."""
        first = Tracked(codes, learned)
        rest = [opaque(shape, learned) for shape in self.shapes[1:]]
        return [first, *rest] if rest else first

    def nothing(self, learned: bool | None = None) -> Any:
        """Results without channels."""
        if learned is None:
            learned = any(is_learned(v) for v in self.values())
        results = [opaque(shape, learned) for shape in self.shapes]
        return results[0] if len(results) == 1 else results

    def breaks(self, *values: Any, reason: str | None = None, constants: bool = False, linear: bool = False) -> None:
        """The channels of these values cannot be mixed; see `Channels.break_`."""
        for value in values:
            for v in values_in(value):
                if isinstance(v, Tracked) and not v.opaque:
                    why = reason or f"{self.place} is not linear"
                    self.store.break_(distinct(v.codes), why, constants=constants, linear=linear)

    def adds(self, bias: Any, channels: Numbers) -> None:
        """Note a learned vector that is added to these channels; anything else is none."""
        if isinstance(bias, Leaf) and bias.parameter:
            self.store.writes(bias.name, bias.elements().reshape(1, -1), channels, constant=True)

    def nonlinear(self) -> Any:
        """The result of an operation that is known not to be linear; what it makes of parameters alone is not worked out."""
        if not self.varies and any(is_learned(v) for v in self.values()):
            self.store.give_up(f"{self.place} is applied to parameters")
        self.breaks(*self.args.values())
        return self.nothing()

    def unread(self) -> Any:
        """The result of an operation that no rule knows; without a parameter before it there is nothing to know."""
        if any(is_learned(v) for v in self.values()):
            self.store.give_up(self.place)
            for value in self.values():
                if isinstance(value, Tracked) and not value.opaque:
                    self.store.doubt(distinct(value.codes), self.place)
        return self.nothing()


Rule = Callable[[Step], Any]
RULES: dict[str, Rule] = {}
ACCEPTS: dict[str, frozenset[str]] = {}


def rule(*names: str, accepts: tuple[str, ...] = ()) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these ATen operations; `accepts` are the marks that it understands."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        ACCEPTS.update(dict.fromkeys(names, frozenset(accepts)))
        return function

    return enter


def is_learned(value: Any) -> bool:
    """Whether a value depends on a parameter."""
    return value.parameter if isinstance(value, Leaf) else isinstance(value, Tracked) and value.learned


def written(step: Step, leaf: Leaf, axis: int = -1) -> Tracked:
    """A parameter used as an activation: it writes new channels along one axis."""
    axis %= len(leaf.shape)
    index = leaf.elements().movedim(axis, -1)
    own = step.store.fresh(index.shape[-1], leaf.producer)
    rows = index.reshape(-1, index.shape[-1])
    once = rows if leaf.index is None else torch.unique(rows, dim=0)  # a class token, expanded, stands in every image
    step.store.writes(leaf.name, once, own, constant=True)
    return Tracked(vectors(leaf.shape, own, axis))


def settle(step: Step) -> None:
    """Draw the conclusion of marks that this call's rule does not understand."""
    understood = ACCEPTS.get(step.name, frozenset())
    for value in step.values():
        if not isinstance(value, Tracked) or value.mark is None or value.mark.kind in understood:
            continue
        mark = value.mark
        if mark.kind == "turned":
            step.store.doubt(distinct(value.codes), f"{step.place} reads channels times fixed numbers")
        elif mark.kind == "scores" and step.name in INERT | COMPARISONS:
            ends_in_kept(step, mark)
        elif mark.kind == "scores" and step.name in {*RECTIFYING, "matmul", "bmm", "mm"}:
            ends_in_kept(step, replace(mark, place=""))  # a factor passes
        elif mark.kind == "scores":
            lose_scores(step, mark)


def taken_by_softmax(step: Step, mark: Mark) -> None:
    """Scores go into a softmax over their last axis: it ignores a constant in what changes along that, and needs the rest."""
    if mark.codes is not None:
        step.store.taken.append(Taken(distinct(mark.codes), "softmax"))
    ends_in_kept(step, replace(mark, codes=None))


def ends_in_kept(step: Step, mark: Mark) -> None:
    """Nothing but a matrix between the two sides passes what reads these scores."""
    step.store.open_scores.pop(mark.number, None)
    for codes in (mark.codes, mark.others):
        if codes is not None:
            step.store.fixed.update(distinct(codes).tolist())
    if mark.place:
        both = [distinct(codes) for codes in (mark.codes, mark.others) if codes is not None]
        step.store.contracted.setdefault(mark.place, []).extend(both)


def lose_scores(step: Step, mark: Mark) -> None:
    """Scores are read in a way that nobody has worked out."""
    step.store.open_scores.pop(mark.number, None)
    for codes in (mark.codes, mark.others):
        if codes is not None:
            step.store.lose(distinct(codes), f"{step.place} reads products with it")


def lose_all(step: Step, values: list[Any]) -> None:
    """Scores among these values are joined to others."""
    for value in values:
        if isinstance(value, Tracked) and value.mark is not None and value.mark.kind == "scores":
            lose_scores(step, value.mark)


def axis_of(codes: Codes) -> int:
    """The axis of vectors, the last one if that cannot be told."""
    found = vector_axis(codes)
    return codes.ndim - 1 if found is None else found
