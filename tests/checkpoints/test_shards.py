"""Row 23: an index of shards, honest and hostile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from landscape import checkpoints

Refuse = Callable[..., Any]
INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A directory of two shards and an index."""
    directory = tmp_path / "model"
    directory.mkdir()
    safetensors.torch.save_file({"a": torch.ones(2), "b": torch.zeros(3)}, directory / ONE)
    safetensors.torch.save_file({"c": torch.ones(4)}, directory / TWO)
    write(directory, {"a": ONE, "b": ONE, "c": TWO})
    return directory


def write(directory: Path, weight_map: Any) -> Path:
    path = directory / INDEX
    path.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}))
    return path


def test_the_index_or_its_directory(sharded: Path) -> None:
    for path in (sharded, sharded / INDEX):
        found = checkpoints.read(path)
        assert found.format == "sharded safetensors"
        assert list(found.weights().state) == ["a", "b", "c"]
        assert torch.equal(found.weights().state["c"], torch.ones(4))
    whole = found.sha256
    safetensors.torch.save_file({"c": torch.zeros(4)}, sharded / TWO)
    assert checkpoints.read(sharded).sha256 != whole


def test_a_directory_of_one_file(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert list(checkpoints.read(tmp_path).weights().state) == ["a"]


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\b", "x" * 300, "a\0b", "c:x"]
)
def test_names_that_leave_the_directory(sharded: Path, refuse: Refuse, name: str) -> None:
    safetensors.torch.save_file({"c": torch.ones(4)}, sharded.parent / "evil.safetensors")
    refuse(write(sharded, {"a": ONE, "b": ONE, "c": name}), 4, "names of files beside the index")


def test_a_link_that_leads_out(sharded: Path, refuse: Refuse) -> None:
    safetensors.torch.save_file({"c": torch.ones(4)}, sharded.parent / "evil.safetensors")
    (sharded / TWO).unlink()
    (sharded / TWO).symlink_to(sharded.parent / "evil.safetensors")
    refuse(sharded, 4, "leads out of its directory")


def test_a_link_inside_is_fine(sharded: Path) -> None:
    (sharded / TWO).rename(sharded / "real.safetensors")
    (sharded / TWO).symlink_to("real.safetensors")
    assert len(checkpoints.read(sharded).weights().state) == 3


def test_shards_that_do_not_agree(sharded: Path, refuse: Refuse) -> None:
    refuse(write(sharded, {"a": ONE, "b": ONE, "c": "model-00003.safetensors"}), 4, "found none")
    refuse(write(sharded, {"a": ONE, "b": ONE, "c": ONE}), 4, "'c' in its shard, found no such tensor")
    refuse(write(sharded, {"a": ONE, "c": TWO}), 4, "found 'b' in another shard")
    refuse(write(sharded, {"a": ONE, "b": ONE, "c": TWO, "d": TWO}), 4, "'d' in its shard")
    safetensors.torch.save_file({"c": torch.ones(4), "a": torch.ones(2)}, sharded / TWO)
    refuse(write(sharded, {"a": ONE, "b": ONE, "c": TWO}), 4, "found 'a' in two")


@pytest.mark.parametrize("weight_map", [{}, [], None, {"a": 3}, {"a": None}, "x"])
def test_a_map_that_is_none(sharded: Path, refuse: Refuse, weight_map: Any) -> None:
    refuse(write(sharded, weight_map), 4, "weight_map")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":' * 10**5 + b"}" * 10**5, "nested too deep"),
        (b'{"weight_map": {"a": "x", "a": "y"}}', "every key once"),
        (b"\xff\xff", "UTF-8"),
        (b"[]", "a JSON object"),
        (b"{", "JSON"),
    ],
)
def test_the_index_s_json(sharded: Path, refuse: Refuse, text: bytes, words: str) -> None:
    (sharded / INDEX).write_bytes(text)
    refuse(sharded, 4, words)


def test_a_broken_shard(sharded: Path, refuse: Refuse) -> None:
    (sharded / TWO).write_bytes((sharded / TWO).read_bytes()[:-1])
    refuse(sharded, 4, "cut short")
    (sharded / TWO).write_bytes(b"")
    refuse(sharded, 2, "empty file")


def test_all_shards_together_are_held_against_the_budget(tmp_path: Path, refuse: Refuse) -> None:
    safetensors.torch.save_file({"a": torch.ones(3000)}, tmp_path / ONE)
    safetensors.torch.save_file({"b": torch.ones(3000)}, tmp_path / TWO)
    write(tmp_path, {"a": ONE, "b": TWO})
    refuse(tmp_path, 2, "memory budget", budget=15_000)
    assert checkpoints.read(tmp_path, budget=30_000).size > 24_000
