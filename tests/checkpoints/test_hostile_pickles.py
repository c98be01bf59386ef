"""Rows 1 to 9 and 14 to 19 of the table of bad inputs: what a torch file can try."""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from torch import nn

from landscape import checkpoints

pytestmark = pytest.mark.usefixtures("quick")
Place = Callable[..., Path]
Refuse = Callable[..., Any]
GOOD = {"w": torch.zeros(2)}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_call_of_os_system_is_named_in_every_protocol(place: Place, refuse: Refuse, canary: Path, protocol: int) -> None:
    evil = hostile.dumps(hostile.Evil(canary), protocol)
    refuse(place(hostile.archive(evil)), 3, r"posix\.system")
    refuse(place(hostile.legacy(evil)), 3, r"posix\.system")
    refuse(place(evil, "bare"), 3, r"posix\.system")


def test_a_call_hidden_beside_good_weights(place: Place, refuse: Refuse, canary: Path) -> None:
    value = {"state_dict": {"w": torch.zeros(2)}, "epoch": 3, "x": hostile.Evil(canary)}
    refuse(place(hostile.saved(value)), 3, r"posix\.system")
    refuse(place(hostile.saved(value, legacy=True)), 3, r"posix\.system")


def test_a_call_in_a_tar(place: Place, refuse: Refuse, canary: Path) -> None:
    evil = pickle.dumps(hostile.Evil(canary), 2)
    refuse(
        place(hostile.tar({"storages": pickle.dumps(0, 2), "tensors": evil, "pickle": pickle.dumps({}, 2)})),
        3,
        r"posix\.system",
    )


def test_a_tar_of_the_oldest_format_needs_code_even_if_it_is_good(place: Place, refuse: Refuse) -> None:
    zero = pickle.dumps(0, 2)
    refuse(place(hostile.tar({"storages": zero, "tensors": zero, "pickle": pickle.dumps({}, 2)})), 3, "oldest format")
    refuse(place(hostile.tar({"notes.txt": b"hello"})), 4, "a tar archive")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_under_another_name_is_told_by_its_bytes(
    place: Place, refuse: Refuse, canary: Path, name: str, protocol: int
) -> None:
    refuse(place(pickle.dumps(hostile.Evil(canary), protocol), name), 3, r"posix\.system")
    refuse(place(hostile.saved(hostile.Evil(canary)), name), 3, r"posix\.system")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x02c__builtin__\ngetattr\n.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02cos\nsystem\n",  # no STOP: broken, but what it wanted counts
        b"\x80\x02\x82\x01.",  # the extension registry
    ],
)
def test_other_ways_to_name_a_program(place: Place, refuse: Refuse, opcodes: bytes) -> None:
    refuse(place(hostile.archive(opcodes)), 3, "names")


def test_an_unknown_class_is_refused_by_name(place: Place, refuse: Refuse) -> None:
    refuse(place(hostile.archive(b"\x80\x02cmylib.config\nOptions\n)\x81}b.")), 3, r"mylib\.config\.Options")


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_before_and_after(place: Place, refuse: Refuse, legacy: bool, canary: Path) -> None:
    good = hostile.saved(GOOD, legacy=legacy)
    second = pickle.dumps(hostile.Evil(canary), 2)
    refuse(place(b"\0" * 8 + good), 4, "no known format")
    refuse(place(good + second), 4, "after")
    refuse(place(good + b"\0"), 4, "after")


def test_a_second_pickle_inside_the_record(place: Place, refuse: Refuse, canary: Path) -> None:
    data = hostile.dumps({"w": 1}) + pickle.dumps(hostile.Evil(canary), 2)
    refuse(place(hostile.archive(data)), 4, "one pickle, found .* bytes after it")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02)(K\x01K\x02u.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01K\x02s.",
        b"\x80\x02X\x01\x00\x00\x00aK\x01K\x02s.",
    ],
)
def test_setitem_on_what_is_no_dict(place: Place, refuse: Refuse, opcodes: bytes) -> None:
    refuse(place(hostile.archive(opcodes)), 4, "a dict to set items on")


def test_setitem_on_a_tensor(place: Place, refuse: Refuse) -> None:
    data = hostile.dumps(hostile.Rebuilt(hostile.Stored(4), 0, (4,), (1,)))
    refuse(place(hostile.archive(data[:-1] + b"K\x00K\x01s.", {"0": b"\0" * 16})), 4, "a dict to set items on, found a tensor")


@pytest.mark.parametrize(
    ("numel", "offset", "size", "stride", "words"),
    [
        (4, 0, (5,), (1,), "claims more"),
        (4, 1, (4,), (1,), "claims more"),
        (4, 0, (2, 2), (3, 1), "claims more"),
        (4, 2**62, (1,), (1,), "claims more"),
        (4, 0, (2**40,), (2**40,), "claims more"),
        (4, -1, (1,), (1,), "something else"),
        (4, 0, (-1,), (1,), "whole numbers"),
        (4, 0, (2,), (-1,), "whole numbers"),
        (4, 0, (2, 2), (1,), "something else"),
        (5, 0, (5,), (1,), "20 bytes for storage '0', found a record of 16"),
        (400, 0, (400,), (1,), "1600 bytes for storage '0', found a record of 16"),
    ],
)
def test_a_tensor_that_claims_more_than_its_record(
    place: Place, refuse: Refuse, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], words: str
) -> None:
    refuse(place(hostile.claims(numel, offset, size, stride)), 4, words)


def test_a_storage_without_a_record(place: Place, refuse: Refuse) -> None:
    refuse(place(hostile.claims(4, 0, (4,), (1,), key="7")), 4, "a record for storage '7', found none")


def test_one_storage_of_two_sizes(place: Place, refuse: Refuse) -> None:
    pair = [hostile.Rebuilt(hostile.Stored(n), 0, (n,), (1,)) for n in (2, 4)]
    refuse(place(hostile.archive(hostile.dumps(pair), {"0": b"\0" * 16})), 4, "one size for storage 0")


def test_a_legacy_storage_that_is_not_there(place: Place, refuse: Refuse) -> None:
    stored = hostile.Stored(4)
    stored.reference = (*stored.reference, None)  # type: ignore[assignment]  # the legacy form has a sixth item
    value = hostile.dumps({"w": hostile.Rebuilt(stored, 0, (4,), (1,))})
    assert checkpoints.read(place(hostile.legacy(value, [("0", b"\0" * 16, 4)]))).candidates
    refuse(place(hostile.legacy(value, [("0", b"\0" * 12, 4)])), 4, "cut short")
    refuse(place(hostile.legacy(value, [("0", b"\0" * 16, 3)])), 4, "a record of 3 elements")
    refuse(place(hostile.legacy(value, [("1", b"\0" * 16, 4)])), 4, "another list")
    refuse(place(hostile.legacy(value)), 4, "another list")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
        b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85R.",
        b"\x80\x02ctorch\nFloatTensor\n\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85\x81.",
        b"\x80\x02ctorch.storage\nUntypedStorage\n\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85R.",
    ],
)
def test_an_allocation_that_the_file_does_not_hold(place: Place, refuse: Refuse, opcodes: bytes) -> None:
    refuse(place(hostile.archive(opcodes)), 4, "over the memory budget")
    refuse(place(hostile.legacy(opcodes)), 4, "over the memory budget")


def test_a_huge_legacy_storage_in_a_tiny_file(place: Place, refuse: Refuse) -> None:
    stored = hostile.Stored(10**12)
    stored.reference = (*stored.reference, None)  # type: ignore[assignment]  # the legacy form has a sixth item
    refuse(place(hostile.legacy(hostile.dumps({"w": hostile.Rebuilt(stored, 0, (1,), (1,))}))), 4, "over the memory budget")


def test_a_stride_of_zero_is_counted_by_its_shape(place: Place, refuse: Refuse) -> None:
    refuse(place(hostile.claims(1, 0, (10**6, 10**6), (0, 0), held=4)), 4, "4000000000000 bytes: over the memory budget")
    many = [hostile.Rebuilt(hostile.Stored(1), 0, (1000, 1000), (0, 0)) for _ in range(20)]
    refuse(place(hostile.archive(hostile.dumps(many), {"0": b"\0" * 4})), 4, "over the memory budget")


def test_a_small_stride_of_zero_is_copied_with_a_notice(place: Place) -> None:
    found = checkpoints.read(place(hostile.saved({"w": torch.tensor([1.5]).expand(3, 4)})))
    assert torch.equal(found.weights().state["w"], torch.full((3, 4), 1.5))
    assert found.weights().state["w"].is_contiguous()
    assert any("overlap" in notice for notice in found.notices)


@pytest.mark.parametrize("legacy", [False, True])
def test_overlapping_views_are_copied_with_a_notice(place: Place, legacy: bool) -> None:
    base = torch.arange(10.0)
    found = checkpoints.read(place(hostile.saved({"a": base[:6], "b": base[4:], "c": torch.ones(2)}, legacy=legacy)))
    state = found.weights().state
    assert torch.equal(state["a"], base[:6])
    assert torch.equal(state["b"], base[4:])
    state["a"].zero_()
    assert torch.equal(state["b"], base[4:]), "the copies still share memory"
    assert [notice for notice in found.notices if "copied 2 tensors" in notice and "(a, b)" in notice]


def test_views_side_by_side_and_tied_tensors_need_no_notice(place: Place) -> None:
    base = torch.arange(10.0)
    found = checkpoints.read(place(hostile.saved({"a": base[:5], "b": base[5:], "c": base[:5]})))
    assert found.notices == ()
    assert found.weights().state["c"] is found.weights().state["a"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 3}])
def test_a_whole_network_is_refused_with_the_lines_that_convert_it(
    place: Place, refuse: Refuse, legacy: bool, wrap: Callable[[Any], Any]
) -> None:
    import warnings

    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = hostile.saved(wrap(model), legacy=legacy)
    error = refuse(place(content), 3, "whole pickled network")
    assert "Sequential" in error.problem
    assert "m = torch.load(PATH, weights_only=False); torch.save(m.state_dict(), NEW)" in error.fix


def test_torchscript_and_exported_programs_are_code(place: Place, refuse: Refuse) -> None:
    refuse(
        place(hostile.archive(b"\x80\x02}.", more={"archive/constants.pkl": b"\x80\x02).", "archive/code/x.py": b""})),
        3,
        "TorchScript.*this is code",
    )
    refuse(place(hostile.archive(b"\x80\x02}.", more={"archive/archive_format": b"pt2"})), 3, "export.*this is code")


def test_real_torchscript_is_code(tmp_path: Path, refuse: Refuse) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "m.pt"))
    refuse(tmp_path / "m.pt", 3, "TorchScript.*this is code")


def test_a_real_exported_program_is_code(tmp_path: Path, refuse: Refuse) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "m.pt2")
    refuse(tmp_path / "m.pt2", 3, "export.*this is code")


def test_hostile_metadata_of_a_distributed_checkpoint_is_refused(tmp_path: Path, refuse: Refuse, canary: Path) -> None:
    directory = tmp_path / "dcp"
    directory.mkdir()
    (directory / ".metadata").write_bytes(pickle.dumps(hostile.Evil(canary)))
    (directory / "__0_0.distcp").write_bytes(b"\0")
    refuse(directory, 3, "reading it could run code")


def test_names_of_classes_in_hyper_parameters_stay_data(place: Place, canary: Path) -> None:
    hyper = {
        "_class_path": "os.system",
        "_instantiator": "pytorch_lightning.cli.instantiate_module",
        "model": {"_target_": "os.system", "command": f"touch {canary}"},
    }
    found = checkpoints.read(place(hostile.saved({"state_dict": GOOD, "hyper_parameters": hyper})))
    assert found.meta["hyper_parameters"] == hyper
    assert found.recipe is None


def test_attributes_of_a_pickled_dict_cannot_mislead(place: Place) -> None:
    class Misleading:
        def __reduce__(self) -> tuple[Any, ...]:
            return OrderedDict, (), {"items": 3, "keys": "x", "get": None}, None, iter(GOOD.items())

    found = checkpoints.read(place(hostile.saved(Misleading())))
    assert torch.equal(found.weights().state["w"], GOOD["w"])


def test_lists_that_multiply_are_cut(place: Place) -> None:
    bomb: list[Any] = ["x" * 1000]
    for _ in range(60):
        bomb = [bomb] * 10
    found = checkpoints.read(place(hostile.saved({"state_dict": GOOD, "bomb": bomb})))
    assert found.meta["bomb"]


def test_a_list_in_a_list_100_000_times_is_cut(place: Place) -> None:
    deep = b"X\x01\x00\x00\x00d" + b"]" * 100_000 + b"a" * 99_999
    tensor = hostile.dumps(hostile.Rebuilt(hostile.Stored(4), 0, (4,), (1,)))[2:-1]
    data = b"\x80\x02}(X\x01\x00\x00\x00w" + tensor + deep + b"u."
    found = checkpoints.read(place(hostile.archive(data, {"0": b"\0" * 16})))
    assert "..." in str(found.meta["d"])


def test_a_tower_of_tuples_brings_no_process_down(place: Place, refuse: Refuse) -> None:
    tower = b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s."  # hashing the key recurses in C
    refuse(place(hostile.archive(tower)), 4, ".")


def test_a_number_of_a_million_bits(place: Place) -> None:
    number = b"\x8a\xff" + b"\xff" * 254 + b"\x01"
    data = b"\x80\x02}(X\x01\x00\x00\x00w" + hostile.dumps(hostile.Rebuilt(hostile.Stored(4), 0, (4,), (1,)))[2:-1]
    data += b"X\x01\x00\x00\x00n" + number + b"u."
    found = checkpoints.read(place(hostile.archive(data, {"0": b"\0" * 16})))
    assert isinstance(found.meta["n"], str)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "Git-LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "HTML page"),
        (b"\n <html><body>Sign in</body></html>", "HTML page"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"\x93NUMPY\x01\0", r"NumPy array \(\.npy\)"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"PK\x05\x06" + b"\0" * 18, "empty zip"),
        (b'{"a": 1}', "JSON"),
        (struct.pack("<d", 1.0) * 10, "no known format"),
        (b"count the words\nof this text\n", "format|pickle"),
    ],
)
def test_what_people_pass_by_mistake_is_named(place: Place, refuse: Refuse, content: bytes, words: str) -> None:
    refuse(place(content), 4, words)
