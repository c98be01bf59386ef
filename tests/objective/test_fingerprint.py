"""The hash of an Objective: the same where nothing changed, in any process; another one, in its part, where something did."""

import copy
import functools
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import torch
from cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape.network.identity.definition import definition
from landscape.objective import Objective

PARTS = ("network", "weights", "buffers", "data", "loss", "metric")


def made(index: int = 3, batch_size: int = 10, change=lambda m, x, y: None, loss=None, **options) -> Objective:
    model, own, x, y = CASES[index].make(0)
    with torch.no_grad():
        change(model, x, y)
    return Objective(model, loss or own, (x, y), batch_size=batch_size, **options)


def changed(a: Objective, b: Objective) -> set[str]:
    """The parts that differ."""
    parts = {name for name in PARTS if a.fingerprints[name] != b.fingerprints[name]}
    assert set(a.fingerprints) == set(PARTS)
    return parts


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
def test_the_same_for_every_micro_batch(index):
    for size in (1, 7, 23):
        assert changed(made(index), made(index, size)) == set()
    assert {len(digest) for digest in made(index).fingerprints.values()} == {64}


@functools.cache
def elsewhere(seed: str) -> list[str]:
    """Lines of another process, whose names are hashed in another order: fingerprints, and the hash of all definitions."""
    here = Path(__file__).parent
    code = "import test_fingerprint as t; print(t.made().fingerprints, t.made(2).fingerprints); print(t.all_of_them())"
    code = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; {code}"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


def test_the_same_in_another_process():
    assert elsewhere("1")[0] == f"{made().fingerprints} {made(2).fingerprints}"


CHANGES = [
    (lambda m, x, y: x[5, 0, 2].add_(1e-6), "data"),
    (lambda m, x, y: y[7].copy_((y[7] + 1) % 4), "data"),
    (lambda m, x, y: x[:2].copy_(x[:2].flip(0).clone()), "data"),
    (lambda m, x, y: m[4].weight[0, 0, 0, 0].mul_(1.0001), "weights"),
    (lambda m, x, y: m[1].running_var[1].add_(0.01), "buffers"),
    (lambda m, x, y: setattr(m[1], "eps", 1e-3), "network"),
    (lambda m, x, y: setattr(m, "2", nn.LeakyReLU(0.1)), "network"),
    (lambda m, x, y: m[0].weight.requires_grad_(False), "frozen"),
]


@pytest.mark.parametrize(("change", "part"), CHANGES, ids=[f"{i}-{p}" for i, (_, p) in enumerate(CHANGES)])
def test_any_change_is_seen_and_named(change, part):
    found = changed(made(), made(change=change))
    assert found == {part} if part != "frozen" else found >= {"network", "weights"}


def test_one_sample_less_and_another_dtype_are_other_data():
    whole = made()
    assert changed(whole, whole.subset(22)) == {"data"}
    assert changed(whole, whole.to("float64")) == {"weights", "buffers", "data"}
    assert changed(whole, whole.only("7.*")) == {"network", "weights"}


def test_weights_that_are_held_count():
    """A block's loss depends on the others' weights."""
    one = made(change=lambda m, x, y: [p.requires_grad_(False) for p in m[0].parameters()])

    def moved(m, x, y):
        for p in m[0].parameters():
            p.requires_grad_(False).mul_(2)

    assert changed(one, made(change=moved)) == {"weights"}


@pytest.mark.parametrize(
    "other",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 1.0, 2.0])),
        nn.MultiMarginLoss(),
        functools.partial(F.cross_entropy, label_smoothing=0.2),
    ],
    ids=["smoothing", "ignored class", "class weights", "another", "partial"],
)
def test_the_loss_counts_with_its_settings(other):
    assert changed(made(), made(loss=other)) == {"loss"}
    assert changed(made(loss=copy.deepcopy(other)), made(loss=other)) == set()


def test_what_is_done_to_outputs_and_the_metric_count():
    def half(z):
        return z / 2

    def score(output, target):
        return output[:, 0]

    assert changed(made(), made().of_outputs(half)) == {"loss"}
    assert changed(made(), made(metric=score)) == {"metric"}
    smooth = [functools.partial(F.cross_entropy, label_smoothing=s) for s in (0.1, 0.1, 0.3)]
    assert changed(made(loss=smooth[0]), made(loss=smooth[1])) == set()
    assert changed(made(loss=smooth[0]), made(loss=smooth[2])) == {"loss"}


def written(text: str, name: str = "loss", **known):
    """What a name is after a file with this text was run."""
    space = {"__name__": "task", "torch": torch, "nn": nn, "F": F} | known
    exec(compile(text, "task.py", "exec"), space)
    return space[name]


EDITS = {
    "constant": ("def loss(z, y):\n    return {} * F.cross_entropy(z, y)", "1.0", "5.0"),
    "operation": ("def loss(z, y):\n    return {}", "F.cross_entropy(z, y)", "F.cross_entropy(z, y).square()"),
    "function": ("def loss(z, y):\n    return F.cross_entropy(z, y).{}()", "exp", "abs"),
    "default": ("def loss(z, y, c={}):\n    return c * F.cross_entropy(z, y)", "1.0", "2.0"),
    "keyword": ("def loss(z, y, *, c={}):\n    return c * F.cross_entropy(z, y)", "1.0", "2.0"),
    "inner": ("def loss(z, y):\n    def f(c):\n        return {} * c\n    return f(F.cross_entropy(z, y))", "1.0", "2.0"),
    "closure": ("def made(c):\n    return lambda z, y: c * F.cross_entropy(z, y)\nloss = made({})", "1.0", "2.0"),
    "number": ("C = {}\ndef loss(z, y):\n    return C * F.cross_entropy(z, y)", "1.0", "2.0"),
    "numbers": ("C = {{'c': [{}]}}\ndef loss(z, y):\n    return C['c'][0] * F.cross_entropy(z, y)", "1.0", "2.0"),
    "tensor": ("C = torch.tensor([{}])\ndef loss(z, y):\n    return (C * F.cross_entropy(z, y)).sum()", "1.0", "2.0"),
    "helper": ("def h(x):\n    return {} * x\ndef loss(z, y):\n    return h(F.cross_entropy(z, y))", "1.0", "2.0"),
    "deep": ("def g(x):\n    return x * {}\ndef h(x):\n    return g(x)\ndef loss(z, y):\n"
             "    return (lambda: h(F.cross_entropy(z, y)))()", "1.0", "2.0"),
    "circle": ("def a(x, n):\n    return b(x, n)\ndef b(x, n):\n    return a({} * x, n - 1) if n else x\ndef loss(z, y):\n"
               "    return a(F.cross_entropy(z, y), 2)", "1.0", "2.0"),
    "method": ("class Loss:\n    def __call__(self, z, y):\n        return {} * F.mse_loss(z, y)\nloss = Loss()", "1.0", "2.0"),
    "attribute": ("class Loss:\n    def __init__(self):\n        self._c = {}\n    def __call__(self, z, y):\n"
                  "        return self._c * F.cross_entropy(z, y)\nloss = Loss()", "1.0", "2.0"),
    "slot": ("class Loss:\n    __slots__ = ('c',)\n    def __call__(self, z, y):\n        return self.c * F.l1_loss(z, y)\n"
             "loss = Loss()\nloss.c = {}", "1.0", "2.0"),
    "parent": ("class A:\n    def h(self):\n        return {}\nclass Loss(A):\n    def __call__(self, z, y):\n"
               "        return self.h() * F.cross_entropy(z, y)\nloss = Loss()", "1.0", "2.0"),
    "class": ("class Loss:\n    c = {}\n    def __call__(self, z, y):\n        return self.c * F.mse_loss(z, y)\nloss = Loss()",
              "1.0", "2.0"),
    "property": ("class Loss:\n    @property\n    def c(self):\n        return {}\n    def __call__(self, z, y):\n"
                 "        return self.c * F.cross_entropy(z, y)\nloss = Loss()", "1.0", "2.0"),
    "bound": ("class Loss:\n    def f(self, z, y):\n        return {} * F.cross_entropy(z, y)\nloss = Loss().f", "1.0", "2.0"),
    "module": ("class Loss(nn.Module):\n    def forward(self, z, y):\n        return {} * F.cross_entropy(z, y)\nloss = Loss()",
               "1.0", "2.0"),
    "decorated": ("@torch.no_grad()\ndef loss(z, y):\n    return {} * F.cross_entropy(z, y)", "1.0", "2.0"),
    "set": ("def loss(z, y):\n    return F.cross_entropy(z, y) * (1 if 'a' in {{'a', 'b', '{}'}} else 2)", "c", "d"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "a", "b"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_loss_is_another_one(text, a, b):
    one, same, other = (definition(written(text.format(x))) for x in (a, a, b))
    assert one == same
    assert one != other
    commented = "# what it is\n\n" + text.format(a).replace("return", "return  ")
    assert definition(written(commented)) == one


def test_the_forward_of_a_layer_counts_as_the_network():
    text = (
        "class Net(nn.Sequential):\n    def forward(self, x):\n        return {} * self.scale(super().forward(x))\n"
        "    def scale(self, x):\n        return x * {}"
    )

    def net(*factors: float) -> Objective:
        torch.manual_seed(0)
        own = written(text.format(*factors), "Net")(nn.Linear(3, 4))
        x = torch.linspace(-1, 1, 15).reshape(5, 3)
        return Objective(own, nn.CrossEntropyLoss(), (x, torch.arange(5) % 4))

    assert changed(net(1.0, 1.0), net(1.0, 1.0)) == set()
    assert changed(net(1.0, 1.0), net(2.0, 1.0)) == {"network"}
    assert changed(net(1.0, 1.0), net(1.0, 3.0)) == {"network"}


def test_another_module_counts_with_what_is_used_of_it(tmp_path):
    def loss(c: float, unused: float):
        module = types.ModuleType("mine")
        module.__file__ = str(tmp_path / "mine.py")
        exec(f"def half(x):\n    return {c} * x\ndef other(x):\n    return {unused} * x", vars(module))
        return written("def loss(z, y):\n    return mine.half(F.cross_entropy(z, y))", mine=module)

    assert definition(loss(0.5, 1.0)) == definition(loss(0.5, 2.0))
    assert definition(loss(0.5, 1.0)) != definition(loss(0.6, 1.0))


def test_what_a_call_leaves_behind_does_not_count():
    text = """
class Loss:
    def __init__(self):
        self.calls, self.scale = 0, 1.0
    def __call__(self, z, y):
        self.calls += 1
        self.note(z)
        return self.scale * F.cross_entropy(z, y)
    def note(self, z):
        self.last = z
calls = 0
def counted(z, y):
    global calls
    calls += 1
    return F.cross_entropy(z, y)
"""
    for name in ("Loss", "counted"):
        loss = written(text, name)
        loss = loss() if name == "Loss" else loss
        before = definition(loss)
        loss(torch.ones(2, 3), torch.tensor([0, 1]))
        assert definition(loss) == before
    other = written(text, "Loss")()
    other.scale = 2.0
    assert definition(other) != definition(written(text, "Loss")())


def test_what_cannot_be_looked_into_is_told_by_its_name(tmp_path):
    with open(tmp_path / "log", "w") as log:
        odd = [log, threading.Lock(), torch.Generator(), sys, iter([1]), object(), torch.device("cpu"), re.compile("a")]
        assert definition(odd) == definition([*odd[:1], threading.Lock(), torch.Generator().manual_seed(3), *odd[3:]])
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    ring: list = [1]
    ring.append(ring)
    assert len({definition(nested), definition(ring), definition([1, [1]])}) == 3


def test_definitions_are_the_same_in_every_process():
    """Also where names are hashed in another order, and where things lie elsewhere."""
    assert {elsewhere(seed)[1] for seed in ("1", "2")} == {all_of_them()}


def all_of_them() -> str:
    return definition([written(text.format(a)) for text, a, _ in EDITS.values()])


def test_at_is_the_hash_of_a_network_with_those_weights():
    objective = made()
    theta = objective.theta * 1.5
    assert changed(objective, objective.at(theta)) == {"weights"}
    assert changed(objective, objective.at(theta, {"1.running_mean": torch.ones(3)})) == {"weights", "buffers"}
    assert changed(objective, objective.at(theta).at(objective.theta)) == set()


def test_named_inputs_and_changing_shapes():
    """Sequences of two lengths as dictionaries: the cut into batches does not matter, the place of each length does."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, *, tokens):
            return self.table(tokens).mean(1)

    torch.manual_seed(0)
    net = Mean()
    short = [{"tokens": torch.randint(0, 5, (1, 2)), "labels": torch.tensor([i])} for i in range(3)]
    long = [{"tokens": torch.randint(0, 5, (1, 4)), "labels": torch.tensor([i])} for i in range(2)]
    joined = {"tokens": torch.cat([b["tokens"] for b in short]), "labels": torch.tensor([0, 1, 2])}
    a, b = (Objective(net, nn.CrossEntropyLoss(), data) for data in ([*short, *long], [joined, *long]))
    assert changed(a, b) == set()
    assert changed(a, Objective(net, nn.CrossEntropyLoss(), [*long, *short])) == {"data"}
