"""LoRA with the real peft on small transformers: only the adapters vary, and curvature is that of a dense Hessian."""

import importlib
import json

import pytest
import torch
from in_process import landscape
from torch import nn
from torch.func import functional_call, hessian

import landscape as ls
from landscape.checkpoints.fitting.adapter import check_plain
from landscape.errors import MismatchError

# Both libraries import torchvision, which beside a CPU build of torch needs its missing operators tolerated.
importlib.import_module("landscape.tasks.torchvision_import")
pytest.importorskip("peft", reason="the extra [architectures] is not installed")
pytest.importorskip("transformers", reason="the extra [architectures] is not installed")

# Written to task.py too: what a user of the command line would have.
MODELS = """
import peft
import torch
import transformers


def bert():
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8, num_labels=3, attn_implementation="eager",
    )
    return transformers.BertForSequenceClassification(config), ["query", "value"]


def gpt():
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
    config._attn_implementation = "eager"
    return transformers.GPT2ForSequenceClassification(config), ["c_attn"]


def adapted(make, **options):
    torch.manual_seed(0)
    base, targets = make()
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=6, target_modules=targets, **options))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(0.4 * torch.randn_like(p))  # those of B begin at zero
    return model.eval()


def data():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, (12, 5), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(12) % 3}
"""
TASK = """
from landscape import Task


def task():
    return Task(model=adapted(bert), loss=torch.nn.CrossEntropyLoss(), train=[data()], test=None)
"""
made: dict = {}
exec(MODELS, made)


def dense(model: nn.Module, names: list[str], batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The Hessian of the mean loss with respect to these weights, by torch.func alone."""
    named = {n: p.detach() for n, p in model.named_parameters()}
    sizes = [named[n].numel() for n in names]
    inputs = {n: t for n, t in batch.items() if n != "labels"}

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = {n: t.view(named[n].shape) for n, t in zip(names, theta.split(sizes), strict=True)}
        return nn.functional.cross_entropy(functional_call(model, named | parts, (), inputs).logits, batch["labels"])

    return hessian(loss)(torch.cat([named[n].reshape(-1) for n in names]))


@pytest.mark.filterwarnings("ignore")  # of peft and transformers, on their own arguments
@pytest.mark.parametrize("make", ["bert", "gpt"])
def test_only_the_adapters_vary_and_curvature_is_that_of_their_dense_hessian(make):
    model, batch = made["adapted"](made[make]).double(), made["data"]()
    names = [n for n, _ in model.named_parameters() if "lora_" in n]
    assert len(names) == (8 if make == "bert" else 4)
    before = {n: p.clone() for n, p in model.named_parameters()}
    objective = ls.Objective(model, nn.CrossEntropyLoss(), [batch], dtype="float64", params="lora")
    assert list(objective.layout.names) == names
    reference = dense(model, names, batch)
    values = torch.linalg.eigvalsh(reference)
    found = ls.sharpness(objective, ["lambda_max", "lambda_min", "trace:probes=200"])
    assert found["lambda_max"].value == pytest.approx(float(values[-1]), rel=1e-5)
    assert found["lambda_min"].value == pytest.approx(float(values[0]), abs=1e-5 * float(values[-1]))
    low, high = found["trace:probes=200"].interval(0.9999)
    assert low <= float(values.sum()) <= high
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.filterwarnings("ignore")  # as above
def test_a_trained_head_beside_the_adapters_is_left_out_by_lora_and_kept_by_default():
    model, batch = made["adapted"](made["bert"], task_type="SEQ_CLS").double(), made["data"]()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in n for n in trained)
    adapters = ls.Objective(model, nn.CrossEntropyLoss(), [batch], dtype="float64", params="lora")
    assert all("lora_" in n for n in adapters.layout.names)
    assert set(ls.Objective(model, nn.CrossEntropyLoss(), [batch], dtype="float64").layout.names) == trained


@pytest.mark.filterwarnings("ignore")  # as above
def test_the_command_line_on_a_folder_that_peft_saved(tmp_path):
    made["adapted"](made["bert"]).save_pretrained(str(tmp_path / "adapter"))
    (tmp_path / "task.py").write_text(MODELS + TASK)
    names = [n for n, _ in made["adapted"](made["bert"]).named_parameters() if "lora_" in n]
    values = torch.linalg.eigvalsh(dense(made["adapted"](made["bert"]).double(), names, made["data"]()))
    arguments = ("--task", tmp_path / "task.py", "--params", "lora", "--measures", "lambda_max", "--dtype", "float64", "--json")
    found = json.loads(landscape("sharpness", tmp_path / "adapter" / "adapter_model.safetensors", *arguments).out)
    (result,) = found["results"]
    assert result["measures"]["lambda_max"]["value"] == pytest.approx(float(values[-1]), rel=1e-4)
    assert result["provenance"]["params"] == ["lora"]


@pytest.mark.filterwarnings("ignore")  # as above
@pytest.mark.parametrize("began", [True, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora"])
def test_adapters_that_began_by_changing_their_base_are_refused_until_converted(began, tmp_path):
    peft = importlib.import_module("peft")
    torch.manual_seed(0)
    base, targets = made["bert"]()
    before = {n: p.clone() for n, p in base.state_dict().items()}
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=began))
    now = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in model.state_dict().items()}
    moved = any(not torch.equal(p, now[n]) for n, p in before.items())
    assert moved == (began in ("pissa", "pissa_niter_4", "olora"))
    model.peft_config["default"].init_lora_weights = True  # as PEFT asks for, before it saves the beginning
    model.save_pretrained(str(tmp_path / "initial"))
    model.peft_config["default"].init_lora_weights = began
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(0.1 * torch.randn_like(p) if "lora_" in name else 0)
    model.save_pretrained(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    if not moved:
        check_plain(config)
        return
    with pytest.raises(MismatchError, match=rf"that began as {began}, .*path_initial_model_for_weight_conversion=INITIAL"):
        check_plain(config)
    model.save_pretrained(str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    check_plain(json.loads((tmp_path / "plain" / "adapter_config.json").read_text()), patterns=True)
    # What was converted is right on the base as it was.
    fresh = made["bert"]()[0]
    fresh.load_state_dict(before)
    converted = peft.PeftModel.from_pretrained(fresh, str(tmp_path / "plain"))
    inputs = {n: t for n, t in made["data"]().items() if n != "labels"}
    torch.testing.assert_close(converted.eval()(**inputs).logits, model.eval()(**inputs).logits, rtol=1e-4, atol=1e-5)
