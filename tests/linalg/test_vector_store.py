import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import multiprocessing

from landscape.errors import UsageError
from landscape.linalg import Place, block_eigenvalues, eigenpairs, lanczos, spectral_density, vector_store
from landscape.linalg.vector_store import Rows, orthonormal_rows

PLACES = [Place(), Place("host"), Place("disk")]
DIM = 1003
OUTLIERS = torch.tensor([9.0, 5.0, 5.0, 3.0, -2.0, -2.5, -3.0, -4.0], dtype=torch.float64)


def spectrum(dim):
    return torch.cat((OUTLIERS, torch.linspace(-0.5, 0.5, dim - len(OUTLIERS), dtype=torch.float64)))


DIAGONAL = spectrum(DIM)


def names(place):
    return place.where


@pytest.mark.parametrize("place", PLACES, ids=names)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_every_operation_is_that_of_a_plain_matrix(place, dtype, tol, monkeypatch):
    monkeypatch.setattr(vector_store, "STREAM", 1 << 14)  # several column chunks
    dim, m = 3 * 8192 + 5, 7
    matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, m)))[0].T
    store = Rows(m, dim, dtype, "cpu", place)
    for i, row in enumerate(matrix):
        store[i] = store.part(torch.from_numpy(row).to(dtype))
    matrix = torch.from_numpy(matrix).to(dtype).double().numpy()
    np.testing.assert_array_equal(store[: len(store)].double().numpy(), matrix)
    w = np.random.default_rng(1).standard_normal(dim)
    rest, coefficients = store.orthogonalize(torch.from_numpy(w).to(dtype), 5)
    np.testing.assert_allclose(coefficients.numpy(), matrix[:5] @ w, atol=50 * tol)
    np.testing.assert_allclose(rest.double().numpy(), w - matrix[:5].T @ (matrix[:5] @ w), atol=50 * tol)
    assert store.norm(rest) == pytest.approx(np.linalg.norm(rest.double().numpy()), rel=1e-7)
    weights = np.random.default_rng(2).standard_normal((3, 4))
    np.testing.assert_allclose(store.combine(2, weights).double().numpy(), weights @ matrix[2:6], atol=tol)
    np.testing.assert_allclose(store.combine(2, weights[0]).double().numpy(), weights[0] @ matrix[2:6], atol=tol)
    store.rotate(1, weights.T)
    np.testing.assert_allclose(store[1:4].double().numpy(), weights @ matrix[1:5], atol=tol)
    np.testing.assert_array_equal(store[4:].double().numpy(), matrix[4:])
    store.move(6, 0)
    np.testing.assert_array_equal(store[:1].double().numpy(), matrix[6:])


@pytest.mark.parametrize("place", PLACES[1:], ids=names)
def test_solvers_find_the_same_wherever_the_basis_lies(place, monkeypatch):
    monkeypatch.setattr(vector_store, "STREAM", 1 << 12)
    dim = 3 * 8192 + 5
    diagonal = spectrum(dim)
    options = {"dtype": torch.float64}

    def matvec(v):
        return v * diagonal

    for which in ("largest", "both"):
        here, there = (
            eigenpairs(matvec, dim, k=3, which=which, basis_size=20, tol=1e-8, place=p, **options) for p in (None, place)
        )
        np.testing.assert_allclose(there.values, here.values, rtol=1e-12)
        assert there.converged.all()
        assert there.matvecs == here.matvecs
    a, b = (lanczos(matvec, dim, steps=12, place=p, locked=torch.eye(2, dim), **options) for p in (None, place))
    np.testing.assert_allclose(a.alpha, b.alpha, rtol=1e-11)
    torch.testing.assert_close(a.basis, b.basis)
    tops = []
    c, d = (
        spectral_density(
            matvec, dim, probes=3, steps=9, place=p, seen=lambda run: tops.append(run.combine(np.eye(run.size)[0])), **options
        )
        for p in (None, place)
    )
    np.testing.assert_allclose(c.density, d.density, rtol=1e-9, atol=1e-12)
    assert len(tops) == 6
    torch.testing.assert_close(tops[0], tops[3])


def test_a_float32_basis_on_disk_stays_orthonormal(monkeypatch):
    monkeypatch.setattr(vector_store, "STREAM", 1 << 20)
    dim = 200_000
    run = lanczos(lambda v: v * torch.linspace(-1, 1, dim), dim, steps=20, place=Place("disk"))
    wide = run.basis.double()
    assert (wide @ wide.T - torch.eye(20)).abs().max() < 1e-5


def test_the_file_lies_in_the_folder_without_a_name(tmp_path):
    store = Rows(3, 1000, torch.float64, "cpu", Place("disk", folder=tmp_path))
    store[0] = torch.ones(1000, dtype=torch.float64)
    maps = Path("/proc/self/maps")
    assert list(tmp_path.iterdir()) == []
    if maps.exists():
        assert str(tmp_path) in maps.read_text()


def test_a_process_that_is_killed_leaves_nothing_on_disk(tmp_path):
    code = (
        "import sys, time, torch; from pathlib import Path; from landscape.linalg import Place; "
        "from landscape.linalg.vector_store import Rows; "
        "r = Rows(9, 10**6, torch.float32, 'cpu', Place('disk', Path(sys.argv[1]))); "
        "r[0] = torch.ones(10**6); print('there', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"there\n"
        os.kill(child.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_no_room_on_disk_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"expected .* GiB of disk in .* for a basis of vectors, found .*; set TMPDIR"):
        Rows(1000, 10**13, torch.float64, "cpu", Place("disk", folder=tmp_path))
    with pytest.raises(UsageError, match=r"found No such file or directory"):
        Rows(2, 3, torch.float64, "cpu", Place("disk", folder=tmp_path / "none"))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_basis_on_disk_takes_little_memory():
    """What the process may hold beside its files is limited to a third of the basis."""
    code = """
import resource, torch, numpy as np
from landscape.linalg import Place, lanczos
from landscape.linalg.krylov.lanczos import KrylovBasis
dim, steps = 1_000_000, 60
slope = torch.linspace(-1, 1, dim)
lanczos(lambda v: v * slope, dim, steps=3)
turn = np.linalg.qr(np.random.default_rng(0).standard_normal((steps, 10)))[0]
data = int(dict(line.split(":", 1) for line in open("/proc/self/status"))["VmData"].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (data + (100 << 20),) * 2)
options = {"dtype": torch.float32, "device": "cpu", "place": Place(PLACE)}
krylov = KrylovBasis(steps + 10, dim, generator=torch.Generator().manual_seed(0), **options)
krylov.begin(None)
for _ in range(steps):
    krylov.absorb(krylov.next_row[0] * slope)
krylov.restart(turn, np.arange(10.0))
"""
    for place, code_of in (("disk", 0), ("device", 1)):
        command = [sys.executable, "-c", code.replace("PLACE", repr(place))]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == code_of, done.stderr
        assert code_of == 0 or "alloc" in done.stderr, "and in memory it does not go"


def _on_rank(rank, folder):
    torch.set_num_threads(1)
    for size in range(rank + 1, 4):
        _spread(rank, size, folder)


def _spread(rank, size, folder):
    import torch.distributed as dist

    from landscape.machine.distributed import Group

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{size}", rank=rank, world_size=size)
    group = Group(rank, size)

    def matvec(v):
        return v * DIAGONAL

    place = Place("disk" if rank == 1 else "device", group=group)  # where a process keeps its columns is its own affair
    options = {"dtype": torch.float64, "place": place}
    pairs = eigenpairs(matvec, DIM, k=4, which="both", basis_size=24, tol=1e-9, **options)
    density = spectral_density(matvec, DIM, probes=2, steps=12, **options)
    before = group.collectives
    run = lanczos(matvec, DIM, steps=10, **options)
    waits = group.collectives - before
    few = lanczos(lambda v: v * DIAGONAL[:2], 2, steps=2, **options)  # fewer columns than processes
    store = Rows(50, DIM, torch.float64, "cpu", place)
    torch.save(
        {
            "values": pairs.values, "vectors": pairs.vectors, "matvecs": pairs.matvecs, "converged": pairs.converged,
            "density": density.density, "alpha": run.alpha, "basis": run.basis, "few": few.alpha.sum(), "waits": waits,
            "width": store._store.block.shape[1],
        },
        f"{folder}/{size}-{rank}.pt",
    )  # fmt: skip
    dist.destroy_process_group()


def test_a_basis_spread_over_processes_gives_the_same(tmp_path):
    multiprocessing.spawn(_on_rank, (tmp_path,), nprocs=3)
    found = {
        (size, rank): torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=False)
        for size in (1, 2, 3)
        for rank in range(size)
    }
    alone = found[1, 0]
    np.testing.assert_allclose(alone["values"], OUTLIERS, atol=1e-10)
    for own in found.values():
        assert own["converged"].all()
        assert abs(own["matvecs"] - alone["matvecs"]) < 4  # rounding decides when the copy of the double one shows
        np.testing.assert_allclose(own["values"], alone["values"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(own["density"], alone["density"], rtol=1e-9)
        np.testing.assert_allclose(own["alpha"], alone["alpha"], atol=1e-12)
        torch.testing.assert_close(own["basis"], alone["basis"])
        assert own["vectors"].shape == (8, DIM)
        assert own["few"] == pytest.approx(14.0)
    for rank in range(3):
        assert torch.equal(found[3, rank]["vectors"], found[3, 0]["vectors"])  # to the bit: each makes the same decisions
    assert [found[3, rank]["width"] for rank in range(3)] == [335, 334, 334]
    assert alone["waits"] == 0
    assert found[2, 0]["waits"] <= 10 * 4 + 8  # a step: two for the projection, one for the length, one to read the vector


def test_blocks_and_bases_of_rows_that_depend_on_each_other_are_as_before():
    v = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = orthonormal_rows(torch.cat((v, v[:1] + v[1:2])))
    assert basis.shape == (3, 50)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64))
    diagonal = torch.arange(50.0, dtype=torch.float64)
    found = block_eigenvalues(lambda v: v * diagonal, 50, [torch.arange(20)], dtype=torch.float64)
    assert found[0].value == pytest.approx(19, rel=1e-5)


def test_on_the_device_rows_cost_no_more_than_plain_tensors():
    """The on-device path must stay one tensor: reading a row is a view of it, and taking a part is the vector itself."""
    store = Rows(4, 100, torch.float32, "cpu")
    w = torch.randn(100)
    store[2] = store.part(w)
    assert store.part(w).data_ptr() == w.data_ptr()
    assert store[2:3].data_ptr() == store[0:4][2].data_ptr()
