"""The twelve-bit task, the networks side by side, and the rule by which a layer compresses."""

import itertools

import numpy as np
import pytest
import torch

from experiments.information_plane.claims import ESTIMATES, THRESHOLD, Known
from experiments.information_plane.networks import data, labels_of, logarithmic, trained, twelve_bits
from experiments.information_plane.table import table


def test_no_rotation_of_the_icosahedron_changes_a_label():
    x, y = twelve_bits()
    golden = (1 + 5**0.5) / 2
    pairs = list(itertools.product((-1.0, 1.0), (-golden, golden)))
    vertices = np.array([v for a, b in pairs for v in ((0, a, b), (a, b, 0), (b, 0, a))])
    fifth = 2 * np.pi / 5
    axis = vertices[0] / np.linalg.norm(vertices[0])  # a fifth of a turn about a vertex
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(fifth) * k + (1 - np.cos(fifth)) * k @ k
    cycle = np.roll(np.eye(3), 1, axis=0)  # a third of a turn about a face
    number = {tuple(row.int().tolist()): i for i, row in enumerate(x)}
    for symmetry in (turn, cycle, -np.eye(3)):
        to = [int(np.linalg.norm(vertices - v @ symmetry.T, axis=1).argmin()) for v in vertices]
        assert sorted(to) == list(range(12))
        moved = torch.empty_like(x)
        moved[:, to] = x
        assert torch.equal(y[[number[tuple(row.int().tolist())] for row in moved]], y)
    assert float(y.double().mean()) == pytest.approx(0.497, abs=5e-4)


def test_a_network_does_not_depend_on_its_neighbours():
    how = {"epochs": 1, "batch": 1024, "lr": 2e-3, "at": [0, 1]}
    alone = list(trained("bits", "relu", [3], **how))
    beside = list(trained("bits", "relu", [7, 3], **how))
    for one, two in zip(alone, beside, strict=True):
        for a, b in zip(one.layers, two.layers, strict=True):
            torch.testing.assert_close(a, b[[1, 3]])
        assert one.train == pytest.approx([two.train[1], two.train[3]], abs=2e-3)
    assert not torch.equal(alone[0].layers[0], alone[1].layers[0])


def test_random_labels_are_the_true_ones_in_another_order():
    y = labels_of("bits", [0, 1])
    assert torch.equal(y[0], y[1])
    for true, drawn in zip(y[:2], y[2:], strict=True):
        assert torch.equal(true.sort().values, drawn.sort().values)
        assert 0.4 < float((true == drawn).double().mean()) < 0.6
    assert not torch.equal(y[2], y[3])
    assert len(data("bits", 0)[2]) == 3277
    assert logarithmic(100, 3) == [0, 1, 10, 100]


def run_of(falls: dict[str, float], most: float) -> dict:
    """A run of five seeds in which I(T; X) falls from `most` - 2 by a little more or less for every seed."""
    networks = []
    for labels in ("true", "random"):
        for seed in range(5):
            fall = falls[labels] * (1 + 0.02 * seed)
            layer = {e: {"inputs": [1.0, most - 2, most - 2 - fall], "labels": [0.0, 0.5, 0.9]} for e in ESTIMATES}
            full = {e: {"inputs": [12.0] * 3, "labels": [1.0] * 3} for e in ESTIMATES}
            networks.append({"labels": labels, "seed": seed, "layers": [full, layer]})
    return {"item": {"task": "bits", "activation": "tanh"}, "epochs": [0, 5, 9], "samples": 4096, "networks": networks}


def test_a_layer_compresses_if_its_fall_exceeds_the_threshold_and_full_layers_are_not_judged():
    rows = table([run_of({"true": 1.0, "random": 0.19}, 12.0)])
    known = Known(rows, [])
    for estimate in ESTIMATES:
        first, second = known.layers("bits", "tanh", "true", estimate)
        assert first["compresses"] is None
        assert second["compresses"] is True
        assert second["fall"]["value"] == pytest.approx(1.04)
        assert second["rise_of_labels"]["value"] == pytest.approx(0.9)
        assert second["epoch_of_largest"] == [5] * 5
        assert second["detectable"] > THRESHOLD
        assert known.counts("bits", "tanh", "true", estimate) == (1, 1)
        assert known.compresses("bits", "tanh", "true", estimate)
        assert known.layers("bits", "tanh", "random", estimate)[1]["compresses"] is False
        assert not known.compresses("bits", "tanh", "random", estimate)


def test_the_order_of_fit_and_compression_is_read_at_the_peak():
    known = Known(table([run_of({"true": 1.0, "random": 0.1}, 12.0)]), [])
    share = known.done_at_largest("bits", "tanh", "true", "binned")
    assert share is not None
    assert share.value == pytest.approx(5 / 9)
    assert known.done_at_largest("bits", "tanh", "random", "binned") is None


def test_a_network_of_mostly_full_layers_is_not_judged():
    run = run_of({"true": 1.0, "random": 0.1}, 12.0)
    assert Known(table([run]), []).answer("bits", "tanh", "true", "binned") is True
    for network in run["networks"]:
        network["layers"].append(network["layers"][0])
    known = Known(table([run]), [])
    assert known.answer("bits", "tanh", "true", "binned") is None
    assert known.told("bits", "tanh", "true", "binned").startswith("1 of 1 judged layers (2 of 3 saturated)")
