"""Shards of transformers copied into a model tensor by tensor: the same weights, digest and refusals as reading them whole."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_language_models import library, small
from torch import nn

from landscape import checkpoints
from landscape.errors import MalformedError, NumericalError

library()
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers on its own arguments


@pytest.fixture
def folder(tmp_path) -> Path:
    small("qwen2").to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    return tmp_path


def blank(name: str = "qwen2") -> nn.Module:
    model = small(name)
    for p in model.parameters():
        p.data.fill_(torch.nan)
    return model


def test_the_weights_are_those_of_the_whole_files(folder):
    one, two = blank(), blank()
    streamed, read = checkpoints.stream(folder, one), checkpoints.read(folder)
    notices = checkpoints.fit(two, read.weights())
    assert streamed.sha256 == read.sha256
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.lm_head.weight is one.model.embed_tokens.weight
    assert [n for n in streamed.notices if "bfloat16" in n] == [n for n in notices if "bfloat16" in n] != []
    assert not any("lm_head.weight" in n for n in streamed.notices), "a tied weight is nothing to be told"


def test_a_single_file(tmp_path):
    small("gpt2").save_pretrained(tmp_path)
    model = blank("gpt2")
    streamed = checkpoints.stream(tmp_path, model)
    assert streamed.sha256 == checkpoints.read(tmp_path).sha256
    assert torch.equal(model.transformer.wte.weight, small("gpt2").transformer.wte.weight)


def test_only_one_tensor_is_held_at_a_time(folder, monkeypatch):
    read, counts = checkpoints.streaming.safetensors_file.read_tensors, []

    def counting(file, header):
        counts.append(len(header.entries))
        return read(file, header)

    monkeypatch.setattr(checkpoints.streaming.safetensors_file, "read_tensors", counting)
    checkpoints.stream(folder, blank())
    assert set(counts) == {1}
    assert len(counts) == sum(len(load_file(path)) for path in folder.glob("model-*.safetensors"))


def test_names_that_are_not_the_model_s_are_left_to_fit(folder):
    model = blank("llama")
    assert checkpoints.stream(folder, model) is None
    assert all(bool(p.isnan().all()) for p in model.parameters())
    moe = small("mixtral")  # its file has every expert's matrices apart
    moe.save_pretrained(folder / "moe")
    assert checkpoints.stream(folder / "moe", blank("mixtral")) is None
    torch.save(small("gpt2").state_dict(), folder / "model.pt")
    assert checkpoints.stream(folder / "model.pt", blank("gpt2")) is None


def index_of(folder: Path) -> dict:
    return json.loads((folder / "model.safetensors.index.json").read_text())


def test_shards_that_are_refused(folder):
    index, text = folder / "model.safetensors.index.json", (folder / "model.safetensors.index.json").read_text()
    key, shard = next(iter(index_of(folder)["weight_map"].items()))
    for change, message in (
        ({key: "../elsewhere.safetensors"}, "names of files beside the index"),
        ({key: "gone.safetensors"}, "the shard 'gone.safetensors' beside the index, found none"),
        ({"more.weight": shard}, r"'more\.weight' in its shard, found no such tensor"),
    ):
        index.write_text(json.dumps({"weight_map": index_of(folder)["weight_map"] | change}))
        with pytest.raises(MalformedError, match=message):
            checkpoints.stream(folder, blank())
        index.write_text(text)
    tensors = load_file(folder / shard)
    save_file({name: t * float("nan") for name, t in tensors.items()}, folder / shard)
    with pytest.raises(NumericalError, match="expected finite weights, found NaN or infinity in"):
        checkpoints.stream(folder, blank())
    save_file({name: t.to(torch.int8) for name, t in tensors.items()}, folder / shard)
    assert checkpoints.stream(folder, blank()) is None  # `read` says that they are quantized
    with pytest.raises(MalformedError, match="quantized, its scale unknown"):
        checkpoints.read(folder).weights()
