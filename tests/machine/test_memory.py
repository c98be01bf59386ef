"""The budget of memory: read, planned and said; and results that do not depend on it."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from landscape.curvature.footprint import Live
from landscape.errors import UsageError
from landscape.machine import memory
from landscape.machine.memory import Affine, Basis, Plan, allowed, parsed, plan
from landscape.machine.sizes import said
from landscape.measures import sharpness
from landscape.objective import Objective
from landscape.spectra import eigenpairs, spectral_density, spectrum

MIB = 1 << 20


def network(batchnorm=True):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if batchnorm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


def data(n=101, side=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, side, side, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def objective(budget=None, **options):
    return Objective(network(), nn.CrossEntropyLoss(), data(), dtype="float64", memory=budget, **options)


def least(**options):
    with pytest.raises(UsageError) as refused:
        objective(budget=MIB, **options)
    return parsed(refused.value.fix.removeprefix("pass --memory "))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20), ("8GiB", 8 << 30), ("8GB", 8 * 10**9), ("8589934592", 8 << 30), ("1.5 GiB", 3 << 29),
        ("2g", 2 << 30), ("100kB", 10**5), ("7 b", 7),
    ],
)  # fmt: skip
def test_sizes_are_read(text, size):
    assert parsed(text) == size


@pytest.mark.parametrize("text", ["", "lots", "8 GiB please", "-1GiB", "0", "1e9", "8QiB", "GiB", "0.0MiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"expected a memory size, found .*; for example 512MiB, 8GiB, 8GB, or plain bytes"):
        parsed(text)


def test_sizes_are_said():
    assert [said(x) for x in (10, 5 << 20, 1 << 30, 12.4 * 2**30)] == ["1 MiB", "5 MiB", "1.0 GiB", "12 GiB"]


def test_what_is_free_respects_a_control_group(tmp_path, monkeypatch):
    def left(limit, used, stat):
        for name, value in (("memory.max", limit), ("memory.current", used), ("memory.stat", stat)):
            (tmp_path / name).write_text(value)
        return list(memory._left(tmp_path, "memory.max", "memory.current"))

    assert left("1000\n", "900\n", "anon 1\ninactive_file 300\n") == [400]
    assert left("1000\n", "1500\n", "inactive_file 0\n") == [0]
    assert left("max\n", "900\n", "inactive_file 300\n") == []
    assert list(memory._left(tmp_path / "none", "memory.max", "memory.current")) == []
    cpu = torch.device("cpu")
    whole = allowed(cpu)
    monkeypatch.setattr(memory, "_free", lambda: iter([10**9, 10**6]))
    assert allowed(cpu) == 800_000 < whole
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # processes of one machine share it
    assert allowed(cpu) == 200_000


def test_tensors_are_counted_as_they_come_and_go():
    with Live() as live:
        a = torch.ones(1000)  # 4,000 bytes
        view = a[10:].reshape(-1, 10)
        assert live.now == 4000
        b = a.double()
        assert live.now == live.peak == 12_000
        del a
        assert live.now == 12_000  # the view holds it
        del view, b
        gc.collect()
        assert (live.now, live.peak) == (0, 12_000)
        weights = torch.ones(50, 50, requires_grad=True)
        loss = (weights @ weights).square().sum()
        before = live.now
        torch.autograd.grad(loss, weights)
        assert live.peak > before + 10_000  # the backward pass is seen too


BUDGETS = st.integers(1, 1 << 36)


@given(
    budget=BUDGETS,
    fixed=st.integers(0, 1 << 30),
    once=st.integers(0, 1 << 28),
    each=st.integers(0, 1 << 26),
    sizes=st.lists(st.integers(1, 512), min_size=1, max_size=20),
    dim=st.integers(41, 10**7),
    cut=st.booleans(),
)
def test_no_plan_exceeds_its_budget_and_a_refusal_says_what_would_do(budget, fixed, once, each, sizes, dim, cut):
    peak, held = Affine(once, 2 * each), Affine(once // 2, each)

    def made(budget):
        return plan(budget, fixed, peak, held, sizes, dim, 4 * dim, check=2 * (16 * dim + peak.of(1)), cut=cut, host=0)

    try:
        found = made(budget)
    except UsageError as error:
        enough = parsed(error.fix.removeprefix("pass --memory ").removesuffix(", or a smaller --batch-size"))
        assert enough > budget
        found = made(enough)
        budget = enough
    assert found.fixed + found.graphs <= budget
    assert 1 <= found.batch <= max(sizes)
    assert cut or found.batch == max(sizes)
    assert 1 <= found.block <= 8
    for wanted, processes in ((2, 1), (10, 1), (10, 3)):
        basis = found.basis(wanted, processes)
        assert min(wanted + 6, dim - 1) <= basis.size < dim
        if basis.where == "device":
            assert found.forecast(basis, vectors=found.beside(basis, wanted)) <= budget
        else:
            assert basis.size >= min(40, dim - 1)
    together, bases = found.probes(80, 10)
    assert 1 <= together <= 10
    assert bases.size in (80 * together, 2 * together)
    # Beside the graphs there is room for eight vectors, and one probe takes six.
    assert found.forecast(bases, vectors=4 * together + (10 if bases.size > 2 * together else 0)) <= budget


def test_a_plan_keeps_graphs_where_they_fit_and_halves_batches_where_not():
    def made(mib):
        peak, held = Affine(0, 2 * MIB), Affine(0, MIB)
        return plan(int(mib * MIB), 100 * MIB, peak, held, [256, 256], 1000, 4000, check=2 * peak.of(1), cut=True, host=0)

    assert (made(2000).kept, made(2000).batch) == (True, 256)
    roomy, tight, tiny = made(800), made(400), made(120)
    assert (roomy.kept, roomy.batch) == (True, 128)
    assert (tight.kept, tight.batch) == (False, 128)
    assert (tiny.kept, tiny.batch) == (False, 8)
    with pytest.raises(UsageError, match="for one pass of 1 sample, found 101 MiB; pass --memory 11"):
        made(101)


def test_a_basis_is_shorter_or_goes_to_host_memory_or_disk_where_the_device_has_no_room():
    # 50 million weights: 200 MB a vector, 8 GB for forty.
    small = Plan(4 << 30, 0, 0, False, 1, 50_000_000, 200_000_000)
    assert small.basis(2) == Basis(17, "device", 18 * 200_000_000)  # 21 fit: three at work, one to multiply next
    assert small.beside(small.basis(2), 2) == 3
    assert small.basis(20) == Basis(56, "disk", 57 * 200_000_000)
    assert replace(small, host=64 << 30).basis(20).where == "host"
    assert replace(small, budget=16 << 30).basis(2) == Basis(40, "device", 41 * 200_000_000)
    assert small.basis(2, processes=20) == Basis(40, "device", 41 * 10_000_000)
    assert " of 4.0 GiB: " in small.line()
    assert small.line(vectors=100).startswith(
        "memory: about 19 GiB, more than the budget of 4.0 GiB; it is tried all the same: "
    )
    assert "basis of 56 vectors 11 GiB on disk" in small.line(small.basis(20))
    assert small.probes(80, 10) == (3, Basis(6, "device", 6 * 200_000_000))  # a basis of 80 is 16 GB
    assert replace(small, host=64 << 30).probes(80, 10)[1].where == "host"
    assert replace(small, budget=1 << 40).probes(80, 10)[0] == 10
    assert small.block == 5


def test_results_do_not_depend_on_the_budget():
    roomy, tight = objective(), objective(least())
    v = torch.randn(3, roomy.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for name in ("hvp", "ggnvp", "fishervp"):
        torch.testing.assert_close(getattr(tight, name)(v), getattr(roomy, name)(v), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(tight.gradient(), roomy.gradient(), rtol=1e-10, atol=1e-13)
    assert tight.value().value == pytest.approx(roomy.value().value, rel=1e-12)
    (a, c), (b, d) = (spectrum(o, 2, probes=3, steps=20) for o in (roomy, tight))
    np.testing.assert_allclose(a.values, b.values, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(c.nodes, d.nodes, atol=1e-8)
    names = ["trace", "lambda_max"]
    for one, other in zip(*(sharpness(o, names).measures.values() for o in (roomy, tight)), strict=True):
        assert other.estimate.value == pytest.approx(one.estimate.value, rel=1e-7)


def test_a_tight_budget_makes_batches_smaller_but_never_those_of_a_loss_that_does_not_come_apart():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    x, y = data(256, 32)
    whole = Objective(net, nn.CrossEntropyLoss(), (x, y))
    assert whole.plan.kept
    tight = Objective(net, nn.CrossEntropyLoss(), (x, y), memory=100 * MIB)
    assert not tight.plan.kept
    assert sum(tight.batch_sizes) == 256
    assert max(tight.batch_sizes) <= tight.plan.batch < 256
    assert tight.fingerprints == whole.fingerprints

    def contrast(output, target):
        return (output - output.mean(0)).square().mean() + nn.functional.cross_entropy(output, target)

    with pytest.raises(UsageError, match=r"for one pass of 256 samples, found 100 MiB; .*smaller --batch-size"):
        Objective(net, contrast, (x, y), memory=100 * MIB)
    assert Objective(net, contrast, (x, y)).plan.batch == 256


def test_the_plan_of_some_of_the_weights_is_theirs():
    whole = objective()
    part = whole.only("5.*")
    assert (whole.plan.dim, part.plan.dim) == (whole.dim, part.dim)
    assert part.plan.basis(2).size < part.dim or part.dim <= 40
    exact = np.linalg.eigvalsh(part.hvp(torch.eye(part.dim, dtype=torch.float64)).numpy())
    assert eigenpairs(part, 1).values[0] == pytest.approx(exact[-1], rel=1e-7)


def test_one_process_shards_a_basis_by_holding_all_of_it():
    plain, sharded = objective(), objective(shard_basis=True)
    assert torch.equal(eigenpairs(plain, 2).vectors, eigenpairs(sharded, 2).vectors)
    assert torch.equal(eigenpairs(plain, 2).vectors, eigenpairs(plain, 2, shard_basis=True).vectors)
    a, b = (spectral_density(plain, probes=2, steps=9, shard_basis=s) for s in (False, True))
    assert np.array_equal(a.density, b.density)


def test_probes_that_do_not_fit_together_run_in_turns_and_on_disk_if_need_be(monkeypatch):
    o = objective()
    expected = spectral_density(o, probes=5, steps=12)
    monkeypatch.setattr(Plan, "probes", lambda self, steps, wanted, processes=1: (2, Basis(24, "disk", 24 * self.row)))
    before = o.spent.sweeps
    found = spectral_density(o, probes=5, steps=12)
    assert o.spent.sweeps - before == 3 * 12
    np.testing.assert_allclose(found.nodes, expected.nodes, rtol=1e-9, atol=1e-12)


def test_as_many_probes_as_planned_advance_together_where_no_basis_is_stored(monkeypatch):
    o, blocks = objective(), []
    monkeypatch.setattr(Plan, "probes", lambda self, steps, wanted, processes=1: (2, Basis(4, "device", 4 * self.row)))
    before = Objective.hvp
    monkeypatch.setattr(Objective, "hvp", lambda self, v: blocks.append(len(v)) or before(self, v))
    spectral_density(o, probes=5, steps=6)
    assert blocks == [2] * 6 + [2] * 6 + [1] * 6


def test_a_network_that_cannot_be_differentiated_is_told_so_and_not_the_plan():
    class Dead(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(Exception, match="does not depend on the weights through autograd"):
        Objective(Dead(4, 3), nn.CrossEntropyLoss(), (torch.randn(9, 4), torch.arange(9) % 3)).hvp(torch.ones(15))
