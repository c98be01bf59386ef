"""Dinh et al.: the flattest rescaling against dense references, and claims that follow the numbers."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

import landscape as ls
from experiments.common.options import Options
from experiments.reparameterization.claims import judged, pairs, table
from experiments.reparameterization.flattest import diagonal, flattest, scaled_trace
from experiments.reparameterization.runs import planned
from landscape.reparam import apply, trace_blocks

GIVEN = Options(None, 1000, 8, (0, 1, 2, 3, 4), Path("runs"), 1, "cpu", draw=False)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return model, torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])


def dense(model, x, y):
    """The diagonal of the Hessian of the loss, weight by weight in float64."""
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def loss(w):
        parts = w.split([s.numel() for s in shapes])
        own = {n: part.reshape(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, own, (x,)), y)

    return torch.autograd.functional.hessian(loss, flat).diagonal()


def test_the_diagonal_is_that_of_the_dense_hessian(network):
    model, x, y = network
    found = torch.cat([d.reshape(-1) for d in diagonal(model, x, chunk=4).values()])
    assert torch.allclose(found, dense(model, x, y), atol=1e-12)


@pytest.mark.parametrize("node", [False, True])
def test_the_trace_at_the_flattest_point_is_a_minimum(network, node):
    model, x, y = network
    symmetries, curvature = ls.find_symmetries(model), diagonal(model, x)
    scales = flattest(curvature, symmetries, node=node)
    smallest = float(scaled_trace(curvature, symmetries, scales))
    assert float(dense(apply(model, symmetries, scales), x, y).sum()) == pytest.approx(smallest, rel=1e-8)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        if node:
            near = scales * (0.3 * torch.randn(len(scales), generator=generator, dtype=torch.float64)).exp()
            near[0] = 1.0
        else:
            steps = {
                u.name: float(scales[u.neurons[0]]) * 1.2 ** float(torch.randn((), generator=generator)) for u in symmetries
            }
            near = symmetries.layerwise(steps)
        assert float(scaled_trace(curvature, symmetries, near)) >= smallest * (1 - 1e-9)


def test_neurons_reach_lower_than_layers_and_one_layer_its_formula(network):
    model, x, _ = network
    symmetries, curvature = ls.find_symmetries(model), diagonal(model, x)
    layer, node = (float(scaled_trace(curvature, symmetries, flattest(curvature, symmetries, node=n))) for n in (False, True))
    blocks = trace_blocks(symmetries, symmetries.default, curvature)
    assert node <= layer <= blocks.bound <= float(sum(c.sum() for c in curvature.values()))


def test_three_layers_without_biases_reach_the_geometric_mean():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)
    )
    model, x = model.double(), torch.randn(6, 3, dtype=torch.float64)
    symmetries, curvature = ls.find_symmetries(model), diagonal(model, x)
    traces = torch.stack([c.sum() for c in curvature.values()])
    scales = flattest(curvature, symmetries, node=False)
    assert float(scaled_trace(curvature, symmetries, scales)) == pytest.approx(float(3 * traces.prod() ** (1 / 3)), rel=1e-8)


MEASURES = {"lambda_max": ["shift"], "trace": ["shift"], "adaptive_trace": ["layer", "node"], "logit_norm": ["layer", "node"]}


def made_up(**changes):
    """Runs as the paper would have them, with BatchNorm left out; `changes` replace numbers."""
    runs = []
    for item in planned(GIVEN):
        if item["network"] != "mlp":
            continue
        noise, jitter = item["condition"] != "clean", 0.01 * item["seed"]
        start = {
            "lambda_max": 2.0,
            "trace": 30.0 if noise else 10.0,
            "adaptive_trace": 3.0 if noise else 1.0,
            "logit_norm": 5.0,
        }
        start |= {"frobenius": start["trace"], "sam": 1.0, "keskar": 1.0, "pac_bayes": 10.0}
        start["lambda_max"] += jitter + noise
        survives = {name: MEASURES.get(name, ["shift"]) for name in start}
        grown = {k: v if k in ("adaptive_trace", "logit_norm") else v * changes.get("growth", 20.0) for k, v in start.items()}
        flat = {k: v if k in ("adaptive_trace", "logit_norm") else v / changes.get("fall", 10.0) for k, v in start.items()}
        grown["adaptive_trace"] *= changes.get("moved", 1.0)
        verdicts = {k: "invariant" if "layer" in v else "moved" for k, v in survives.items()}
        verdicts["adaptive_trace"] = changes.get("verdict", "invariant")
        own = {"trained": start["trace"], "bound": 0.5 * start["trace"], "flattest layer": 0.4 * start["trace"]}
        own |= {
            "flattest node": changes.get("flat", 0.2) * start["trace"],
            "reached": 0.5 * start["trace"] * changes.get("off", 1.0),
            "around": [[2.0, changes.get("around", 0.8) * start["trace"]]],
        }
        common = {"delta": changes.get("delta", 1e-14), "verdicts": verdicts}
        runs.append(
            {"item": item, "values": start, "errors": {"trace": 1.0}, "survives": survives, "flattening": own}
            | {"moves": [{"family": "layer", "values": grown} | common, {"family": "node", "values": flat} | common]}
        )
    return runs


def lines(layer=1.0):
    """Lines on which filter normalization undoes a layer-wise rescaling up to a factor."""
    loss = {("trained", "none"): 1.0, ("layer", "none"): 3.0, ("node", "none"): 2.0}
    loss |= {("trained", "filter"): 1.0, ("layer", "filter"): layer, ("node", "filter"): 1.5}
    return [{"curves": [{"version": v, "norm": n, "loss": [x, x]} for (v, n), x in loss.items()]}]


def holds(words, surfaces=None, **changes):
    claims = judged(made_up(**changes), surfaces or lines(), GIVEN)["claims"]
    (claim,) = [c for c in claims if words in c["claim"]]
    return claim["holds"]


def test_the_paper_is_reproduced_by_runs_as_it_describes_them():
    assert judged(made_up(), lines(), GIVEN)["verdict"] == "reproduced"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("same function", {"delta": 1e-3}),
        ("clean network can be made", {"growth": 1.1}),
        ("flattening is bounded", {"off": 1.01}),
        ("flattening is bounded", {"around": 0.4}),
        ("smaller trace than", {"flat": 0.5}),
        ("the reverse", {"growth": 20.0, "fall": 1.01}),
        ("can be faked", {"moved": 1.5}),
        ("can be faked", {"growth": 1.1, "fall": 1.1}),
        ("survive a family", {"verdict": "CLAIM BROKEN"}),
        ("filter normalization", {"surfaces": lines(layer=1.2)}),
    ],
)
def test_a_claim_fails_when_its_numbers_do(words, changes):
    assert holds(words) is True
    expected = None if "growth" in changes and "network can be made" in words else False
    assert holds(words, **changes) is expected


def test_pairs_are_of_one_seed_and_the_table_counts_seeds():
    runs = made_up()
    assert all(c["item"]["seed"] == n["item"]["seed"] for c, n in pairs(runs)["digits"])
    row = next(r for r in table(runs) if r["measure"] == "trace")
    assert (row["clean_above_trained"], row["clean_above_moved"], row["noise_below_moved"], row["seeds"]) == (0, 5, 5, 5)
    assert not row["proven"]
