"""`landscape sharpness` on a folder that transformers saved: sharded, tied, in bfloat16, with its tokenizer."""

import json
from pathlib import Path

import pytest
import torch
from in_process import landscape
from small_language_models import library, saved, text
from torch import nn

library()
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers on its own arguments


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("saved")
    saved(place / "model", "qwen2", torch.bfloat16, shards="8KB")
    (place / "a.txt").write_text(text(12))
    return place


def test_sharpness_of_a_folder(place):
    transformers = library()
    assert len(list((place / "model").glob("model-*.safetensors"))) > 1
    names = ("--model", f"hf:{place / 'model'}", "--data", f"text:{place / 'a.txt'},block=24")
    measured = ("--measures", "lambda_max", "--params", "model.norm", "--dtype", "float64", "--json")
    done = landscape("sharpness", place / "model", *names, *measured)
    (result,) = json.loads(done.out)["results"]
    # The same by transformers alone.
    model = transformers.Qwen2ForCausalLM.from_pretrained(place / "model", dtype=torch.float32, attn_implementation="eager")
    ids = transformers.AutoTokenizer.from_pretrained(place / "model")(text(12))["input_ids"]
    plain = model.double().eval()
    weight = plain.model.norm.weight
    losses, counted = [], 0
    for i in range(0, len(ids), 24):
        block = torch.tensor([ids[i : i + 24]])
        logits = plain(input_ids=block, use_cache=False).logits
        losses.append(nn.functional.cross_entropy(logits[0, :-1], block[0, 1:], reduction="sum"))
        counted += block.shape[1] - 1
    loss = sum(losses) / counted
    (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, weight, retain_graph=True)[0] for g in slope])
    assert result["samples"] == len(losses)
    assert result["provenance"]["loss_per"] == "token"
    assert result["loss"]["value"] == pytest.approx(float(loss), rel=1e-6)
    assert result["measures"]["lambda_max"]["value"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-4)
    told = result["provenance"]["notices"]
    assert any("of bfloat16 upcast to float32" in notice for notice in told)
    assert any("; a sample is a block, and the loss a mean over predicted tokens" in notice for notice in told)
    tied = sum(p.numel() for p in plain.parameters())  # the embedding once
    assert result["provenance"]["weights"] + result["provenance"]["held_weights"] == tied
    assert f"perplexity {torch.exp(loss):.4g}" in done.err
    assert f"{counted:,} predicted tokens" in done.err


def test_an_entry_that_the_configuration_does_not_have_is_refused(place):
    """The library alone would ignore it."""
    named = ("sharpness", place / "model", "--model", f"hf:{place / 'model'}", "--data", f"text:{place / 'a.txt'},block=24")
    done = landscape(*named, "-M", "num_hiden_layers=1", code=2)
    assert "expected -M num_hiden_layers as an entry of the configuration of qwen2" in done.error
    assert done.error.endswith("did you mean num_hidden_layers?")
    done = landscape(*named, "-M", "flavour=sweet", code=2)
    assert "; its entries are " in done.error
    assert "hidden_size" in done.error
    # One that it has is taken: then the weights do not fit.
    assert "entry of the configuration" not in landscape(*named, "-M", "intermediate_size=6", code=5).error


def test_a_task_file_that_runs_unchanged(place, tmp_path):
    text_of = f"text:{place / 'a.txt'},block=24"
    done = landscape("init", place / "model", "--data", text_of, "--out", "task.py", cwd=tmp_path)
    command = done.out.partition("run: landscape ")[2].split()
    assert command == ["sharpness", str(place / "model"), "--task", "task.py"]
    quick = ("--measures", "logit_norm", "--json")
    named = landscape("sharpness", place / "model", "--model", f"hf:{place / 'model'}", "--data", text_of, *quick)
    one, two = (json.loads(d.out)["results"][0] for d in (landscape(*command, *quick, cwd=tmp_path), named))
    assert one["loss"] == two["loss"]
    assert one["measures"]["logit_norm"]["value"] == two["measures"]["logit_norm"]["value"]
    done = landscape("init", place / "model", "--data", "digits", "--out", "other.py", cwd=tmp_path, code=2)
    assert "as text:FILE.txt, found digits" in done.error


def test_inspect_says_what_the_folder_says(place):
    done = landscape("inspect", place / "model")
    for line in (
        'meta.config.architectures: ["Qwen2ForCausalLM"]',
        'meta.config.dtype: "bfloat16"',
        "meta.config.tie_word_embeddings: true",
        'meta.tokenizer: "tokenizer.json"',
    ):
        assert line in done.out.splitlines()


def test_a_folder_alone_prints_the_whole_command(place):
    done = landscape("sharpness", place / "model", code=2)
    assert f"run: landscape sharpness {place / 'model'} --model hf:{place / 'model'} --data text:FILE.txt" in done.err
