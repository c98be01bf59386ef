"""Folders of torch.distributed.checkpoint: real ones of real processes, and broken and hostile ones."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import metadata as names
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.stateful import Stateful

from landscape import checkpoints
from landscape.errors import LandscapeError, UsageError

pytestmark = pytest.mark.usefixtures("quick")
Refuse = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def save(state: dict[str, Any], folder: Path) -> None:
    """`dcp.save` in this process alone, which it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one process, as `dcp.save` writes it."""
    model = net()
    state = {"model": model.state_dict(), "epoch": 3, "optimizer": {"state": {"0": {"exp_avg": torch.ones(4, 4)}}}}
    save(state, tmp_path / "plain")
    return tmp_path / "plain"


def cut(folder: Path, tensors: dict[str, Tensor], rows: int = 2) -> Path:
    """A folder in the format of several processes: each has `rows` rows of every tensor in a file of its own."""
    folder.mkdir()
    entries, places, files = {}, {}, {}
    for name, tensor in tensors.items():
        chunks = []
        for rank, part in enumerate(tensor.split(rows)):
            where = torch.Size([rank * rows] + [0] * (tensor.ndim - 1))
            chunks.append(names.ChunkStorageMetadata(where, part.shape))
            content = io.BytesIO()
            torch.save(part.clone(), content)
            file = files.setdefault(f"__{rank}_0.distcp", bytearray())
            place = _StorageInfo(f"__{rank}_0.distcp", len(file), len(content.getvalue()))
            places[names.MetadataIndex(name, where)] = place
            file += content.getvalue()
        entries[name] = names.TensorStorageMetadata(names.TensorProperties(tensor.dtype), tensor.shape, chunks)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write(folder, names.Metadata(entries, storage_data=places))
    return folder


def write(folder: Path, content: Any) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(content))


def plan(folder: Path) -> names.Metadata:
    return pickle.loads((folder / ".metadata").read_bytes())


def test_a_folder_of_one_process(folder: Path) -> None:
    found = checkpoints.read(folder)
    assert found.format == "torch distributed checkpoint in 1 file"
    assert list(found.candidates) == ["model"]
    assert equal(found.weights().state, net().state_dict())
    assert found.notices == ("left out 1 entries that are no tensors (epoch)",)


def test_a_bare_state_dict(tmp_path: Path) -> None:
    save(net().state_dict(), tmp_path / "bare")
    found = checkpoints.read(tmp_path / "bare")
    assert list(found.candidates) == ["(top level)"]
    assert equal(found.weights().state, net().state_dict())


def test_parts_are_put_together(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(7, 3), "b": torch.randn(5, dtype=torch.float64), "n": torch.arange(3)}
    found = checkpoints.read(cut(tmp_path / "cut", tensors))
    assert found.format.endswith("in 4 files")
    assert equal(found.candidates["(top level)"], tensors)
    other = checkpoints.read(cut(tmp_path / "other", tensors | {"n": torch.arange(1, 4)}))
    assert other.sha256 != found.sha256
    with pytest.raises(UsageError, match="memory budget"):
        checkpoints.read(tmp_path / "cut", budget=100)


def test_two_sets_of_weights_are_two_candidates(tmp_path: Path) -> None:
    state = {"model": net(0).state_dict(), "ema": net(1).state_dict()}
    for name, more in (("alone", {}), ("beside", {"step": torch.tensor(3)})):
        save(state | more, tmp_path / name)
        found = checkpoints.read(tmp_path / name)
        assert sorted(found.candidates) == ["ema", "model"]
        assert equal(found.weights("ema").state, net(1).state_dict())


class AppState(Stateful):
    """PyTorch's recipe: the network and its optimizer as one object."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optim": optimizer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise NotImplementedError


def test_the_app_state_of_pytorchs_recipe(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    save({"app": AppState(model, optimizer)}, tmp_path / "app")
    assert any("optim.state" in key for key in plan(tmp_path / "app").state_dict_metadata)
    found = checkpoints.read(tmp_path / "app")
    assert list(found.candidates) == ["app.model"]
    assert equal(found.weights().state, model.state_dict())
    assert not any("optim" in notice for notice in found.notices)


def test_a_layer_with_the_name_of_a_loss_is_a_weight(tmp_path: Path) -> None:
    save({"model": {"loss": {"w": torch.ones(2)}}, "ema": {"hist.w": torch.ones(3)}}, tmp_path / "l")
    assert checkpoints.read(tmp_path / "l").candidates.keys() == {"model.loss", "ema"}


def test_an_optimizer_alone_is_no_checkpoint_of_weights(tmp_path: Path, refuse: Refuse) -> None:
    save({"optimizer": {"exp_avg": torch.ones(3)}}, tmp_path / "o")
    refuse(tmp_path / "o", 4, "found no weights; the checkpoint holds optimizer.exp_avg")


def test_a_file_that_is_cut_short_or_missing(folder: Path, refuse: Refuse) -> None:
    path = folder / "__0_0.distcp"
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 10):
        path.write_bytes(whole[:length])
        refuse(folder, 4, f"found a file of {length} bytes")
    path.unlink()
    refuse(folder, 4, "the file '__0_0.distcp' beside .metadata, found none")


def outcome(folder: Path) -> int:
    """0 if the folder is read, else the exit code."""
    try:
        found = checkpoints.read(folder)
    except LandscapeError as error:
        return error.exit_code
    assert all(t.ndim < 3 for state in found.candidates.values() for t in state.values())
    return 0


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_are_found_or_give_valid_tensors(folder: Path, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    for name in (".metadata", "__0_0.distcp"):
        path = folder / name
        whole = path.read_bytes()
        for _ in range(8):
            at = int(torch.randint(len(whole), (1,), generator=drawn))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << seed)]) + whole[at + 1 :])
            assert outcome(folder) in (0, 2, 3, 4)
        path.write_bytes(whole)
    assert outcome(folder) == 0


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "sub/x", "..", "", "a\\b", "x" * 300, "a\0b", "c:x"])
def test_names_that_leave_the_folder(folder: Path, refuse: Refuse, name: str) -> None:
    shutil.copy(folder / "__0_0.distcp", folder.parent / "evil")
    changed = plan(folder)
    for place in changed.storage_data.values():
        place.relative_path = name
    write(folder, changed)
    refuse(folder, 4, "names of files beside .metadata")


def test_a_link_that_leads_out(folder: Path, refuse: Refuse) -> None:
    os.rename(folder / "__0_0.distcp", folder.parent / "elsewhere")
    (folder / "__0_0.distcp").symlink_to(folder.parent / "elsewhere")
    refuse(folder, 4, "a link that leads out of its folder")


def _shifted(found: names.Metadata) -> None:
    found.state_dict_metadata["w"].chunks[1].offsets = torch.Size([1, 0])
    found.storage_data[names.MetadataIndex("w", (1, 0))] = found.storage_data.pop(names.MetadataIndex("w", (2, 0)))


def _outside(found: names.Metadata) -> None:
    found.state_dict_metadata["w"].size = torch.Size([3, 3])


def _larger(found: names.Metadata) -> None:
    found.state_dict_metadata["w"].size = torch.Size([5, 3])


def _retyped(found: names.Metadata) -> None:
    found.state_dict_metadata["w"].properties.dtype = torch.int32


def _unplaced(found: names.Metadata) -> None:
    found.storage_data.pop(names.MetadataIndex("w", (2, 0)))


def _transformed(found: names.Metadata) -> None:
    for place in found.storage_data.values():
        place.transform_descriptors = ["zstd"]


def _swapped(found: names.Metadata) -> None:
    one, two = names.MetadataIndex("w", (0, 0)), names.MetadataIndex("v", (0,))
    found.storage_data[one], found.storage_data[two] = found.storage_data[two], found.storage_data[one]


def _far(found: names.Metadata) -> None:
    found.storage_data[names.MetadataIndex("w", (0, 0))].offset = 10**12


def _huge(found: names.Metadata) -> None:
    found.state_dict_metadata["w"].size = torch.Size([10**9, 10**6])


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (_shifted, 4, "found gaps or parts that overlap"),
        (_outside, 4, r"parts inside 'w' of shape \[3, 3\]"),
        (_larger, 4, "found gaps or parts that overlap"),
        (_retyped, 4, "to be int32"),
        (_unplaced, 4, "a file for the part of 'w'"),
        (_transformed, 4, "transformed by an extension"),
        (_swapped, 4, "as .metadata says, found"),
        (_far, 4, "found a file of"),
        (_huge, 2, "memory budget"),
    ],
)
def test_metadata_that_does_not_fit_the_files(tmp_path: Path, refuse: Refuse, change: Any, code: int, words: str) -> None:
    folder = cut(tmp_path / "cut", {"w": torch.randn(4, 3), "v": torch.randn(2)})
    changed = plan(folder)
    change(changed)
    write(folder, changed)
    refuse(folder, code, words)


@pytest.mark.parametrize("content", [{}, [], names.BytesStorageMetadata(), names.Metadata({}, storage_data=None), 3])
def test_metadata_of_another_kind(folder: Path, refuse: Refuse, content: Any) -> None:
    write(folder, content)
    refuse(folder, 4, r"in \.metadata, found something else")


def test_hostile_pickles_in_either_place(folder: Path, refuse: Refuse, canary: Path) -> None:
    whole = (folder / ".metadata").read_bytes()
    write(folder, hostile.Evil(canary))
    refuse(folder, 3, "could run code")
    (folder / ".metadata").write_bytes(whole + pickle.dumps(1))
    refuse(folder, 4, "bytes after it")
    (folder / ".metadata").write_bytes(whole)
    content = io.BytesIO()
    torch.save(hostile.Evil(canary), content)
    (folder / "__0_0.distcp").write_bytes(content.getvalue())
    changed = plan(folder)
    for place in changed.storage_data.values():
        place.offset, place.length = 0, len(content.getvalue())
    write(folder, changed)
    refuse(folder, 3, "could run code")
    (folder / ".metadata").unlink()
    (folder / ".metadata").mkdir()
    refuse(folder, 2, "a directory")


def test_folders_of_deepspeed_and_megatron_say_what_converts_them(tmp_path: Path, refuse: Refuse) -> None:
    zero = tmp_path / "zero"
    step = zero / "global_step5"
    step.mkdir(parents=True)
    (step / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    (zero / "latest").write_text("global_step5")
    refuse(zero, 3, f"run: python -m deepspeed.utils.zero_to_fp32 {zero} OUT, and pass OUT")
    (zero / "zero_to_fp32.py").touch()
    refuse(zero, 3, f"run: python {zero}/zero_to_fp32.py {zero} OUT, and pass OUT")
    refuse(step, 3, f"run: python {zero}/zero_to_fp32.py {zero} OUT -t global_step5, and pass OUT")
    (tmp_path / "megatron" / "mp_rank_00_001").mkdir(parents=True)
    refuse(tmp_path / "megatron", 3, "found a Megatron checkpoint")


def test_a_series_of_folders_is_read_in_order(tmp_path: Path) -> None:
    for step in (10, 2):
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, step)
        nn.init.zeros_(model.bias)
        save({"model": model.state_dict()}, tmp_path / f"step-{step}")
    series = checkpoints.CheckpointFiles(tmp_path, nn.Linear(1, 1))
    assert series.names == ("step-2", "step-10")
    assert [flat[0].item() for flat in series] == [2.0, 10.0]


WRITER = """
import os, sys, torch
import torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, StateDictOptions
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

out = sys.argv[1]
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
mesh = init_device_mesh("cpu", (size,))

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

expected = net().state_dict()
sharded = net()
for layer in (sharded[0], sharded[2]):
    fully_shard(layer, mesh=mesh)
fully_shard(sharded, mesh=mesh)
optimizer = torch.optim.AdamW(sharded.parameters(), lr=0.0, weight_decay=0.0)
sharded(torch.randn(4, 3)).sum().backward()
optimizer.step()
model_state, optimizer_state = get_state_dict(sharded, optimizer)
dcp.save({"model": model_state, "optimizer": optimizer_state, "epoch": 1}, checkpoint_id=f"{out}/fsdp2")

columns = {k: distribute_tensor(t, mesh, [Shard(t.ndim - 1)]) for k, t in expected.items()}
dcp.save(columns, checkpoint_id=f"{out}/columns")

old = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True)
for kind in ("SHARDED_STATE_DICT", "FULL_STATE_DICT"):
    with FullyShardedDataParallel.state_dict_type(old, StateDictType[kind]):
        state = old.state_dict()
    if kind.startswith("SHARDED"):
        dcp.save({"model": state}, checkpoint_id=f"{out}/fsdp1")
    elif rank == 0:
        torch.save(state, f"{out}/fsdp1.pt")
if rank == 0:
    torch.save(expected, f"{out}/expected.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow  # processes that import torch.distributed
@pytest.mark.parametrize("processes", [2, 3])
def test_what_fsdp_and_tensor_parallel_processes_write(tmp_path: Path, processes: int) -> None:
    (tmp_path / "writer.py").write_text(WRITER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*torchrun, "writer.py", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = torch.load(tmp_path / "expected.pt", weights_only=True)
    for name in ("fsdp2", "columns", "fsdp1", "fsdp1.pt"):
        found = checkpoints.read(tmp_path / name)
        assert len(found.candidates) == 1, name
        assert equal(found.weights().state, expected), name
    assert len(list((tmp_path / "fsdp2").glob("*.distcp"))) == processes
