"""What the peers are judged by: the plain product against a dense Hessian, the reference loop against a surface of ours."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

import landscape as ls
from benchmarks.cases import Case
from benchmarks.networks import GPT, NETWORKS, initialised, trained
from benchmarks.parts.surface import places
from benchmarks.peers.plan import planned
from benchmarks.reference import Product, flat, largest_difference, rayleigh_ritz, surface_loop
from landscape.surfaces import Direction


def tiny() -> Case:
    """A network of 67 weights on uneven batches of made-up data, in float64."""
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    x, y = torch.randn(150, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (150,), generator=g)
    return Case("tiny", "tiny", model, nn.CrossEntropyLoss(), x, y, ("tiny", None, None))


def dense(case: Case) -> torch.Tensor:
    """The Hessian by torch.func on the whole batch at once."""
    names = [n for n, _ in case.model.named_parameters()]
    shapes = [p.shape for p in case.model.parameters()]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = theta.split([s.numel() for s in shapes])
        return case.loss(
            functional_call(case.model, {n: t.view(s) for n, t, s in zip(names, parts, shapes, strict=True)}, case.x), case.y
        )

    return hessian(loss)(flat([p.detach() for p in case.model.parameters()]))


def test_the_plain_product_is_the_dense_hessian():
    case = tiny()
    assert [len(x) for x, _ in case.batches()] == [128, 22]
    product, h = Product(case, torch.float64), dense(case)
    found = torch.stack([product(e) for e in torch.eye(case.weights, dtype=torch.float64)])
    assert (found - h).abs().max() < 1e-12 * h.abs().max()


def test_rayleigh_ritz_finds_what_two_tools_have_together():
    case = tiny()
    h = dense(case)
    values, vectors = torch.linalg.eigh(h)
    vectors = vectors.T.flip(0)
    # One tool has the first and third pair, the other the second and, once more, the first: doubled vectors are no harm.
    held = torch.stack([vectors[0], vectors[2], vectors[1], (vectors[0] + 1e-3 * vectors[1]) / (1 + 1e-6) ** 0.5])
    assert np.allclose(rayleigh_ritz(held, held @ h, 3), values.flip(0)[:3].numpy(), rtol=1e-9)


@pytest.mark.parametrize(("name", "samples"), [("mlp", 24), ("resnet20", 2)])
def test_the_reference_loop_is_our_plane_to_rounding(name, samples):
    case = Case.of(name).first(samples)
    g = torch.Generator().manual_seed(1)
    theta = flat([p.detach() for p in case.model.parameters()])
    d1, d2 = (0.1 * theta.abs() * torch.randn(len(theta), generator=g) for _ in range(2))
    theirs = surface_loop(case, (d1, d2), places(3))
    ours = ls.plane(ls.Objective(case.model, case.loss, case.batches()), (Direction("a", d1), Direction("b", d2)), grid=3)
    assert largest_difference(ours.values["loss"].ravel(), theirs) < 1e-5
    exact = surface_loop(case, (d1, d2), places(3), torch.float64)
    assert largest_difference(theirs, exact) < 1e-4
    assert np.ptp(exact) > 1e-3 * exact.max()  # the plane is not flat, so that agreement says something


def test_the_plan_finds_the_spread_of_every_estimator():
    g = torch.Generator().manual_seed(2)
    dim, rank = 300, 3
    basis = torch.linalg.qr(torch.randn(dim, rank, generator=g, dtype=torch.float64))[0]
    h = basis @ torch.diag(torch.tensor([50.0, 30.0, 20.0], dtype=torch.float64)) @ basis.T + 0.01 * torch.eye(dim).double()
    plan = planned(lambda v: (v.double() @ h).float(), dim, 0.05, generator=g)
    assert abs(plan.value / float(h.trace()) - 1) < 1e-4
    # Of rank three and a multiple of the identity: from a range of four columns on nothing is left to chance.
    assert plan.hutchpp is not None
    assert plan.hutchpp <= 3 * (rank + 1)
    assert plan.xtrace is not None
    assert plan.xtrace <= 2 * (rank + 2)
    # Hutchinson's variance for signs is 2 (|H|_F^2 - sum of H_ii^2).
    spread = (2 * (h.square().sum() - h.diagonal().square().sum())).sqrt() / h.trace()
    assert 0.3 < plan.hutchinson / float(1.96 * spread / 0.05) ** 2 < 3
    assert 0.5 < plan.spread / spread < 2


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_committed_networks_are_trained(name):
    model, x, y = trained(name)
    with torch.inference_mode():
        hits = (model(x[:200]).argmax(1) == y[:200]).float().mean()
    assert hits > 0.9


def test_the_gpt_sees_no_character_ahead():
    model = initialised(lambda: GPT(45), seed=1).eval()
    x = torch.randint(0, 45, (1, 32), generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[0, 20] = (other[0, 20] + 1) % 45
    with torch.inference_mode():
        a, b = model(x), model(other)
    assert torch.allclose(a[..., :20], b[..., :20], atol=1e-6)
    assert not torch.allclose(a[..., 20:], b[..., 20:], atol=1e-6)
    assert len(list(itertools.chain(model.blocks))) == 3
