"""`landscape init` writes a task.py that runs unchanged where the network is recognized and the data are named."""

import json

import pytest
import torch
from in_process import landscape
from safetensors.torch import save_file

from landscape.tasks.torchvision_import import torchvision

SMALL = "squeezenet1_1"


@pytest.fixture
def folder(tmp_path):
    """Images of seven classes, 32 x 32, in a file."""
    images = torch.randn(14, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_file({"train_x": images, "train_y": torch.arange(14) % 7}, tmp_path / "data.safetensors")
    return tmp_path


def measured(folder, file: str) -> dict:
    """From the file to a number by two commands; nothing is edited in between."""
    done = landscape("init", file, "--data", "safetensors:data.safetensors", "--out", "task.py", cwd=folder)
    command = done.out.partition("run: landscape ")[2].split()
    assert command == ["sharpness", file, "--task", "task.py"]
    found = landscape(*command, "--measures", "logit_norm", "--json", cwd=folder)
    return json.loads(found.out)["results"][0]["measures"]["logit_norm"]


def expected(net: torch.nn.Module, folder) -> float:
    """The mean norm of the outputs, from the library's own network."""
    from safetensors.torch import load_file

    with torch.no_grad():
        return float(net.eval().double()(load_file(folder / "data.safetensors")["train_x"].double()).norm(dim=1).mean())


def test_a_file_of_torchvision(folder):
    net = torchvision.models.get_model(SMALL, num_classes=7)
    save_file(net.state_dict(), folder / "net.safetensors")
    assert measured(folder, "net.safetensors")["value"] == pytest.approx(expected(net, folder), rel=1e-4)


def test_a_file_of_lightning(folder):
    net = torchvision.models.get_model(SMALL, num_classes=7)
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5.0", "loops": {}}, folder / "last.ckpt")
    assert measured(folder, "last.ckpt")["value"] == pytest.approx(expected(net, folder), rel=1e-4)


def test_a_file_of_timm(folder):
    timm = pytest.importorskip("timm")
    net = timm.create_model("lcnet_035", num_classes=7)
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "lcnet_035", "num_classes": 7}))
    assert measured(folder, "model.safetensors")["value"] == pytest.approx(expected(net, folder), rel=1e-4)


def test_a_folder_of_hugging_face(folder):
    transformers = pytest.importorskip("transformers")
    shape = {"image_size": 32, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**shape, intermediate_size=16, num_labels=7)
    net = transformers.ViTForImageClassification(config)
    net.save_pretrained(folder)
    net.register_forward_hook(lambda module, inputs, output: output.logits)
    assert measured(folder, "model.safetensors")["value"] == pytest.approx(expected(net, folder), rel=1e-4)


def test_what_is_missing_is_to_be_filled_in(folder):
    save_file(torch.nn.Linear(3, 2).state_dict(), folder / "own.safetensors")
    done = landscape("init", "own.safetensors", "--out", "own.py", cwd=folder)
    assert "add your model and data to own.py" in done.out
    text = (folder / "own.py").read_text()
    assert "from mymodels import MyNet" in text
    assert "from mydata import" in text
    done = landscape("init", "own.safetensors", "--out", "half.py", "--data", "digits", cwd=folder)
    assert "add your model to half.py" in done.out
    assert "read_data('digits')" in (folder / "half.py").read_text()


def test_a_checkpoint_that_names_its_model_and_data_needs_no_file(folder):
    landscape("train", "digits-mlp", "--epochs", 1, "-M", "widths=[4]", "--samples", 64, "--out", "own.safetensors", cwd=folder)
    refused = landscape("init", "own.safetensors", cwd=folder, code=2).error
    assert refused.endswith("it needs no task file; run: landscape sharpness own.safetensors")
    assert not (folder / "task.py").exists()
    landscape(*refused.partition("run: landscape ")[2].split(), "--measures", "logit_norm", cwd=folder)


def test_what_is_imported_from_one_place_is_imported_once(folder):
    net = torchvision.models.get_model(SMALL, num_classes=7)
    save_file(net.state_dict(), folder / "net.safetensors")
    landscape("init", "net.safetensors", "--data", "safetensors:data.safetensors", "--out", "task.py", cwd=folder)
    lines = [line for line in (folder / "task.py").read_text().splitlines() if line.startswith("from landscape")]
    assert lines == ["from landscape import Task", "from landscape.tasks import model_by_name, read_data"]
