"""The mark of a measure: what this network has, what the measure is proven to survive, and what nobody could read."""

from typing import ClassVar

import pytest
import torch
from symmetric_networks import SYMMETRIC, Symmetric, families
from torch import Tensor, nn

import landscape as ls
from landscape.measures import MEASURES, measure_all
from landscape.measures.running.marks import mark_of, surviving
from landscape.measures.traced_network import found_symmetries, symmetries_for
from landscape.objective import Objective

CASES = {case.name: case for case in SYMMETRIC}


def objective_of(case: Symmetric) -> Objective:
    model, x, y, loss = case.make()
    return Objective(model, loss, (x, y), dtype="float64")


class Branching(nn.Module):
    """Its path depends on the data, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.b(x) if float(x.sum()) > -1.0 else self.b(-x)


class Both(nn.Module):
    """Two inputs, and a dictionary with more than the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.a(x) + self.b(z))
        return {"logits": self.head(hidden), "hidden": hidden}


class Watched(nn.Linear):
    """Notes at each call whether it is being traced."""

    traces: ClassVar[list[bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.traces.append(torch.compiler.is_exporting())
        return super().forward(x)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def classes(n: int) -> Tensor:
    return torch.arange(n) % 3


@pytest.mark.parametrize("name", ["grouped queries", "stacked", "layer norm", "batch norm", "post-norm"])
def test_marks_follow_from_the_families_of_the_network(name: str) -> None:
    """The families are those that the network was built with."""
    objective = objective_of(CASES[name])
    there = families(CASES[name].make()[0])
    assert symmetries_for(objective).families == there
    for measure in MEASURES.values():
        mark, claimed = mark_of(measure, objective), measure.claims(objective)
        assert mark["fakeable_by"] == tuple(family for family in there if family not in claimed)
        assert mark["unknown"] == ()
        if len(claimed) < 8:
            assert mark["survives"] == tuple(family for family in there if family in claimed)


def test_measures_to_ask_for_are_those_that_a_table_marks_with_no() -> None:
    objective = objective_of(CASES["grouped queries"])
    named = surviving(objective)
    assert 3 <= len(named) < len(MEASURES)
    marked = ls.sharpness(objective, named)
    assert [name for name, m in marked.measures.items() if m.defined] == marked.honest
    assert "trace" not in named
    hidden = surviving(Objective(Branching(), nn.CrossEntropyLoss(), (drawn(12, 4), classes(12))))
    assert "input_margin" in hidden, "it is a property of the function"
    assert "trace" not in hidden


def test_the_loss_decides_whether_all_outputs_may_move() -> None:
    net, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), drawn(12, 4)
    asked = {}
    for loss, target in ((nn.CrossEntropyLoss(), classes(12)), (nn.MSELoss(), drawn(12, 3))):
        objective = Objective(net, loss, (x, target))
        asked[type(loss)] = mark_of(MEASURES["adaptive_trace"], objective)["fakeable_by"]
    assert asked == {nn.CrossEntropyLoss: ("shift",), nn.MSELoss: ()}


def test_a_network_that_cannot_be_traced_is_measured_and_marked_as_not_known() -> None:
    result = ls.sharpness(Objective(Branching(), nn.CrossEntropyLoss(), (drawn(12, 4), classes(12))), ["trace", "input_margin"])
    assert {name: m.mark for name, m in result.measures.items()} == {"trace": "not known", "input_margin": "no"}
    assert result.measures["trace"].unknown == tuple(f for f in ls.symmetry.families.FAMILIES if f != "shift")
    assert sum("symmetries not known: expected a network that torch.export can trace" in line for line in result.reasons()) == 1


def test_what_the_loss_does_not_take_pins_nothing() -> None:
    """The hidden layer is returned beside the logits, and there are two inputs: its neurons can be rescaled all the same."""
    batch = [(drawn(12, 4), drawn(12, 3), classes(12))]
    found = found_symmetries(Objective(Both(), nn.CrossEntropyLoss(), batch))
    assert found.counts == {"layer": 1, "node": 5, "shift": 2}  # and the biases of the two summands


def test_nothing_is_traced_for_measures_that_survive_everything() -> None:
    Watched.traces.clear()
    objective = Objective(Watched(4, 3), nn.CrossEntropyLoss(), (drawn(12, 4), classes(12)))
    result = ls.sharpness(objective, ["input_margin", "critical_sample_ratio:iterations=2"])
    assert result.symmetries is None
    assert {m.mark for m in result.measures.values()} == {"no"}
    assert not any(Watched.traces)
    ls.sharpness(objective, ["logit_norm", "trace:probes=2"])
    assert sum(Watched.traces) == 1


def test_without_asking_the_network_the_rest_is_not_known() -> None:
    objective = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (drawn(12, 4), classes(12)))
    assert measure_all(objective, ["trace:probes=2"])["trace:probes=2"].mark == "not known"


def test_accuracy_of_ones_own_takes_the_claim_of_pac_bayes_away() -> None:
    def size(output: Tensor, target: Tensor) -> Tensor:
        return output.sum(1)

    data = (drawn(12, 4), classes(12))
    plain, own = (Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data, metric=metric) for metric in (None, size))
    assert MEASURES["pac_bayes"].claims(plain) == ("shift",)
    assert MEASURES["pac_bayes"].claims(own) == ()


def test_measures_of_outputs_are_not_offered_to_a_loss_of_model_and_batch():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x, y = torch.rand(6, 4), torch.arange(6) % 2
    offered = surviving(Objective(net, nn.CrossEntropyLoss(), (x, y)))
    assert "input_margin" in offered
    whole = Objective(net, ls.ModelLoss(lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])), (x, y))
    left = surviving(whole)
    assert "input_margin" not in left
    marks = {name: mark_of(MEASURES[name], whole) for name in offered}
    proven = [name for name, mark in marks.items() if not mark["fakeable_by"] and not mark["unknown"]]
    assert len(proven) >= 3
    for name in proven:  # those that are left out are those that refuse it
        refused = "expected a loss of (output, target)" in (ls.sharpness(whole, [name]).measures[name].estimate.reason or "")
        assert (name in left) != refused


class Classes(nn.Module):
    """Tokens to classes, with the axis of the classes where a loss may take it."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end, self.body = end, nn.Sequential(nn.Embedding(5, 8), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(8, n) for n in ([2, 3] if end == "two heads" else [5]))

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        if self.end == "two heads":
            return torch.cat([head(z[:, i]) for i, head in enumerate(self.heads)], -1)
        logits: Tensor = self.heads[0](z)
        ends = {"last": logits[:, -1], "transposed": logits.transpose(1, 2), "mT": logits[:, :-1].mT}
        return ends[self.end]


@pytest.mark.parametrize("end", ["last", "transposed", "mT", "two heads"])
def test_a_constant_in_all_logits_is_seen_wherever_the_classes_are(end: str) -> None:
    """Of two heads beside each other it is not found, and said to be not known."""
    tokens = torch.randint(0, 5, (12, 6), generator=torch.Generator().manual_seed(0))
    target = {"last": tokens[:, 0], "transposed": tokens, "mT": tokens[:, 1:], "two heads": tokens[:, 0]}[end]
    objective = Objective(Classes(end), nn.CrossEntropyLoss(), (tokens, target))
    mark = mark_of(MEASURES["logit_norm"], objective)
    assert mark["unknown" if end == "two heads" else "fakeable_by"] == ("shift",)
    squares = Objective(Classes(end), nn.MSELoss(), (tokens, torch.zeros_like(objective.outputs())))
    mark = mark_of(MEASURES["logit_norm"], squares)
    assert mark["unknown"] == mark["fakeable_by"] == ()


def test_a_constant_in_vectors_that_several_layers_write_is_not_known() -> None:
    """A LayerNorm, or a softmax, takes it away from both of them together."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.norm, self.head = nn.Linear(4, 2), nn.Linear(4, 3), nn.LayerNorm(5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(self.norm(torch.cat([self.one(x), self.other(x.sin())], -1)))
            return found

    found = found_symmetries(Objective(Beside(), nn.CrossEntropyLoss(), (drawn(12, 4), classes(12))))
    assert any("one.bias" in place and "other.bias" in place for place in found.unread)
