"""Rows 20 to 22: what a safetensors file can try."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import safetensors.torch
import torch

from landscape import checkpoints

Place = Callable[..., Path]
Refuse = Callable[..., Any]
NAME = "model.safetensors"


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    """One entry of a header."""
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def head(**entries: Any) -> bytes:
    """A header as JSON."""
    return json.dumps(entries).encode()


def test_every_dtype_reads_as_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {"scalar": torch.tensor(3.5), "none": torch.empty(0, 4), "odd": torch.ones(3, dtype=torch.uint8)}
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool):
        tensors[str(dtype)] = torch.arange(6).reshape(2, 3).to(dtype)
    safetensors.torch.save_file(tensors, tmp_path / NAME, {"format": "pt"})
    found = checkpoints.read(tmp_path / NAME)
    state = found.candidates["(top level)"]
    expected = safetensors.torch.load_file(tmp_path / NAME)
    assert found.format == "safetensors"
    assert found.meta == {"format": "pt"}
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert state[key].dtype is tensor.dtype
        assert torch.equal(state[key], tensor)
        assert state[key].is_contiguous()


def test_a_tensor_survives_its_file(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / NAME, {"w": torch.ones(100_000)}, recipe={})
    state = checkpoints.read(tmp_path / NAME).weights().state
    (tmp_path / NAME).write_bytes(b"")  # a mapped file would end the process here
    state["w"] += 1
    assert state["w"].sum() == 200_000


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0, "length 0"),
        (2**63, "at most 100 MB"),
        (2**64 - 1, "at most 100 MB"),
        (100_000_001, "at most 100 MB"),
        (1000, "inside the file"),
    ],
)
def test_the_length_of_the_header(place: Place, refuse: Refuse, length: int, words: str) -> None:
    refuse(place(hostile.safetensors(b"{}", length=length), NAME), 4, words)


def test_a_file_shorter_than_its_length(place: Place, refuse: Refuse) -> None:
    refuse(place(b"\1\0\0", NAME), 4, "a file of 3 bytes")


def test_a_header_over_100_mb_that_is_really_there(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001) + b"{")
        file.truncate(8 + 100_000_001)
    refuse(path, 4, "at most 100 MB")


def test_a_header_that_would_not_fit_the_budget_as_objects(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / NAME
    path.write_bytes(hostile.safetensors(b'{"a":[' + b"[]," * 10**6 + b"[]]}"))
    refuse(path, 4, "over the memory budget")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "nested too deep"),
        (b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested too deep"),
        (b'{"\xff\xfe": 1}', "UTF-8"),
        (b'{"w": 1, "w": 2}', "every key once, found 'w' twice"),
        (b'{"w": {"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "'dtype' twice"),
        (b'{"__metadata__": {"a": 1}}', "strings to strings"),
        (b'{"__metadata__": [1]}', "strings to strings"),
        (b'{"__metadata__": {"a": {"b": "c"}}}', "strings to strings"),
        (b"{]", "JSON"),
        (b'{"w": ' + b"9" * 5000 + b"}", "JSON|something else"),
        (b'{"w": 3}', "dtype, shape and data_offsets"),
        (b'{"w": {"dtype":"F32","shape":[0]}}', "dtype, shape and data_offsets"),
        (b"{}", "no weights"),
    ],
)
def test_the_header_s_json(place: Place, refuse: Refuse, header: bytes, words: str) -> None:
    refuse(place(hostile.safetensors(header), NAME), 4, words)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (head(a=entry(0, 8), b=entry(4, 12)), "an overlap before 'b'"),
        (head(a=entry(0, 8), b=entry(0, 8)), "an overlap before 'b'"),
        (head(a=entry(0, 4), b=entry(8, 12)), "a hole before 'b'"),
        (head(a=entry(4, 12)), "a hole before 'a'"),
        (head(a=entry(0, 8)), "nothing after the last tensor, found 4 bytes"),
        (head(a=entry(0, 16)), "cut short"),
        (head(a=entry(8, 0, [2])), "rising offsets"),
        (head(a=entry(0, 12, dtype="Q4_K")), "a known dtype for 'a', found Q4_K"),
        (head(a=entry(0, 12, dtype="f32")), "a known dtype"),
        (head(a={"dtype": 3, "shape": [3], "data_offsets": [0, 12]}), "a known dtype"),
        (head(a=entry(0, 12, [4])), "16 bytes for 'a', found offsets 12 bytes apart"),
        (head(a=entry(0, 12, [-3])), "whole numbers"),
        (head(a=entry(0, 12, [3.0])), "whole numbers"),
        (head(a=entry(0, 12, [True, 3])), "whole numbers"),
        (head(a=entry(0, 12, [2**63, 2**63, 0])), "whole numbers"),
        (head(a=entry(0, 12, [2**33, 2**33, 2**33])), "whole numbers"),
        (head(a=entry(0, 12), b={"dtype": "F32", "shape": [2**40, 2**40, 0], "data_offsets": [12, 12]}), "whole numbers"),
        (head(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 12, 24]}), "two rising offsets"),
        (head(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 2**70]}), "two rising offsets"),
        (head(a={"dtype": "BOOL", "shape": [12], "data_offsets": [0, 12]}), "truth values"),
    ],
)
def test_offsets_shapes_and_dtypes(place: Place, refuse: Refuse, header: bytes, words: str) -> None:
    refuse(place(hostile.safetensors(header, b"\2" * 12), NAME), 4, words)


def test_a_name_of_a_megabyte_with_escapes_is_cut_and_escaped(place: Place, refuse: Refuse) -> None:
    name = "\x1b[31m<script>\n=cmd()" + "x" * 10**6
    error = refuse(place(hostile.safetensors(head(**{name: entry(4, 12)}), b"\0" * 12), NAME), 4, r"\\x1b\[31m")
    assert "(1000020 characters)" in str(error)
