"""The hash of an Objective: the same where nothing changed, in any process; another one, in its part, where something did."""

import copy
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import CASES
from torch import nn
from torch.nn import functional as F

from landscape.objective import Objective

PARTS = ("network", "weights", "buffers", "data", "loss", "metric")


def made(index: int = 3, batch_size: int = 10, change=lambda m, x, y: None, loss=None, **options) -> Objective:
    model, own, x, y = CASES[index].make(0)
    with torch.no_grad():
        change(model, x, y)
    return Objective(model, loss or own, (x, y), batch_size=batch_size, **options)


def changed(a: Objective, b: Objective) -> set[str]:
    """The parts that differ; the whole hash must differ exactly if a part does."""
    parts = {name for name in PARTS if a.fingerprints[name] != b.fingerprints[name]}
    assert set(a.fingerprints) == set(PARTS)
    assert (a.fingerprint != b.fingerprint) == bool(parts)
    return parts


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
def test_the_same_for_every_micro_batch(index):
    for size in (1, 7, 23):
        assert changed(made(index), made(index, size)) == set()
    assert len(made(index).fingerprint) == 64


def test_the_same_in_another_process():
    here = Path(__file__).parent
    code = "import test_fingerprint as t; print(t.made().fingerprint, t.made(2).fingerprint)"
    code = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [made().fingerprint, made(2).fingerprint]


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
