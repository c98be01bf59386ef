"""Checkpoints of our own: what goes in comes out, whole or not at all, with the same bytes every time."""

import os
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from safetensors.torch import save_file

from landscape import checkpoints
from landscape.errors import MalformedError, MismatchError, UsageError

pytestmark = pytest.mark.usefixtures("quick")
RECIPE: dict[str, Any] = {
    "task": "digits",
    "model": {"name": "mlp", "widths": [64, 32]},
    "lr": 0.1,
    "history": [[1, 2.5], None],
    "é": "\u202e",
}
ENDINGS = [".safetensors", ".pt", ".pth"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_round_trip(tmp_path: Path, ending: str) -> None:
    state = hostile.network() | {"bn.num_batches_tracked": torch.tensor(7), "half": torch.ones(2, dtype=torch.bfloat16)}
    extras = {"mask": torch.tensor([True, False]), "labels": torch.arange(5), "noise": torch.ones(2, dtype=torch.int8)}
    checkpoints.save(tmp_path / f"a{ending}", state, recipe=RECIPE, extras=extras)
    found = checkpoints.read(tmp_path / f"a{ending}")
    assert found.recipe == RECIPE
    assert found.meta == {}
    assert found.notices == ()
    assert list(found.candidates) == ["state_dict"]
    got = found.candidates["state_dict"]
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], item) and got[key].dtype is item.dtype for key, item in state.items())
    assert found.extras.keys() == extras.keys()
    assert all(torch.equal(found.extras[key], item) and found.extras[key].dtype is item.dtype for key, item in extras.items())
    assert torch.equal(found.weights().state["fc1.weight"], state["fc1.weight"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_extras(tmp_path: Path, ending: str) -> None:
    checkpoints.save(tmp_path / f"a{ending}", hostile.network(), recipe={})
    found = checkpoints.read(tmp_path / f"a{ending}")
    assert (found.recipe, found.extras) == ({}, {})


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_content_gives_equal_bytes(tmp_path: Path, ending: str) -> None:
    def content(shared: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        word = "extras"
        key = word if shared else "".join(["ext", "ras"])  # equal text, another object
        return {key: torch.arange(6.0), "w": torch.ones(2, 3)}, {
            key: word if shared else "".join(["extr", "as"]),
            "a": [key, 1.0],
        }

    for name, shared in (("one", True), ("other", False)):
        state, recipe = content(shared)
        checkpoints.save(tmp_path / f"{name}{ending}", state, recipe=recipe, extras={"x": torch.ones(1)})
    assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"other{ending}").read_bytes()
    checkpoints.save(
        tmp_path / f"third{ending}", {"extras": torch.arange(12.0)[::2] / 2, "w": torch.ones(2, 3)}, recipe=content(True)[1]
    )
    assert (tmp_path / f"one{ending}").read_bytes() != (tmp_path / f"third{ending}").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_tied_views_and_parameters_are_written_whole(tmp_path: Path, ending: str) -> None:
    base = torch.arange(1000.0)
    state = {
        "a": base[:3],
        "b": base[:3],
        "c": torch.nn.Parameter(torch.ones(2)),
        "d": torch.ones(2, 3).t(),
        "e": torch.tensor(1.0).expand(4),
    }
    checkpoints.save(tmp_path / f"a{ending}", state, recipe={})
    assert (tmp_path / f"a{ending}").stat().st_size < 4000
    got = checkpoints.read(tmp_path / f"a{ending}").weights().state
    assert all(torch.equal(got[key], item) for key, item in state.items())


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    state = {"w": torch.ones(2)}
    for name, arguments, words in (
        ("a.ckpt", (state, {}), "ending in .safetensors, .pt or .pth"),
        ("a.pt", ({}, {}), "found none"),
        ("a.pt", ({"landscape.x": torch.ones(1)}, {}), "reserved for extras"),
        ("a.pt", (state, {"a": float("nan")}), "a recipe of JSON values"),
        ("a.pt", (state, {"a": object()}), "a recipe of JSON values"),
        ("a.pt", (state, {"a": list(range(300_000))}), "modest size"),
        ("a.pt", ({"w": torch.ones(2, dtype=torch.complex128)}, {}), "dense tensors"),
        ("a.pt", ({"w": torch.ones(2, 2).to_sparse()}, {}), "dense tensors"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            checkpoints.save(tmp_path / name, arguments[0], recipe=arguments[1])
        assert caught.value.exit_code == 2
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(UsageError, match=r"expected to write .*a folder that exists and can be written"):
        checkpoints.save(tmp_path / "a.pt", {"w": torch.ones(2)}, recipe={})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"], "a temporary file was left behind"


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "new" / "runs" / "a.pt", {"w": torch.ones(2)}, recipe={})
    assert checkpoints.read(tmp_path / "new" / "runs" / "a.pt").weights().state["w"].tolist() == [1.0, 1.0]


def test_a_file_is_replaced_whole_with_the_usual_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    checkpoints.save(path, {"w": torch.ones(2)}, recipe={})
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert checkpoints.read(path).candidates


def test_a_file_of_others_with_our_keys_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(hostile.saved({"state_dict": {"w": torch.ones(2)}, "landscape": "mountains"}))
    found = checkpoints.read(path)
    assert found.recipe is None
    assert found.meta == {"landscape": "mountains"}


def test_saved_weights_fit_the_model_that_they_came_from(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    checkpoints.save(tmp_path / "a.pt", model.state_dict(), recipe={})
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    assert checkpoints.fit(other, checkpoints.read(tmp_path / "a.pt").weights()) == ()
    assert torch.equal(other[0].weight, model[0].weight)
    with pytest.raises(MismatchError):
        checkpoints.fit(torch.nn.Linear(1, 1), checkpoints.read(tmp_path / "a.pt").weights())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_one_flipped_bit_anywhere_in_the_tensors_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    state = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    checkpoints.save(path, state, recipe={"lr": 0.1}, extras={"mask": torch.tensor([True, False])})
    assert checkpoints.read(path).recipe == {"lr": 0.1}
    content = path.read_bytes()
    for item in (state["w"].numpy().tobytes(), state["n"].numpy().tobytes()):
        place = content.rindex(item)
        for bit in (0, 7):
            flipped = bytearray(content)
            flipped[place + len(item) // 2] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(MalformedError, match=r"their SHA-256 differs|CRC"):
                checkpoints.read(path)


def test_a_file_from_before_there_was_a_digest_is_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"landscape": '{"lr": 0.1}'})
    assert checkpoints.read(tmp_path / "a.safetensors").recipe == {"lr": 0.1}
