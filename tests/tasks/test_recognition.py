"""Which `--model` a file's weights fit, and the refusals that say so."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landscape.checkpoints import Weights
from landscape.errors import MismatchError, UsageError
from landscape.tasks import load, read_data, recognition, resolve, torchvision_table
from landscape.tasks.recognition import recognize
from landscape.tasks.torchvision_import import torchvision

SMALL = "shufflenet_v2_x0_5"  # 1.4 million weights


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return getattr(torchvision.models, SMALL)(num_classes=7).state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("hand") / "net.v1.safetensors"
    save_file(state, path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v3_small", "regnet_y_400mf"])
def test_a_network_of_torchvision_is_told_with_its_classes(name):
    state = torchvision.models.get_model(name, num_classes=11).state_dict()
    found = recognize(Weights(state, "all"), "x.pth")
    assert found is not None
    assert found.arguments == ("--model", f"torchvision:{name}", "-M", "num_classes=11")
    assert found.tensors == len(state)


def test_another_network_is_not_told(state):
    assert recognize(Weights({**state, "more.weight": torch.zeros(2, 2)}, "all"), "x.pth") is None
    assert recognize(Weights(nn.Linear(3, 2).state_dict(), "all"), "x.pth") is None


def test_a_name_in_the_file_is_looked_up_and_compared(state):
    """torchvision's and timm's training scripts keep it under "arch"."""
    bare = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert recognize(Weights(bare, "all"), "x.pth", {"arch": SMALL}) is None  # it lacks the head
    found = recognize(Weights(state, "all"), "x.pth", {"arch": SMALL})
    assert found is not None
    assert found.model.endswith(f":{SMALL}")
    assert recognize(Weights(nn.Linear(3, 2).state_dict(), "all"), "x.pth", {"arch": SMALL}) is None


def test_a_hugging_face_folder_is_named_by_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"], "model_type": "vit"}')
    found = recognize(Weights(nn.Linear(3, 2).state_dict(), "all"), tmp_path / "model.safetensors")
    assert found is not None
    assert found.arguments == ("--model", f"hf:{tmp_path}")


def test_a_checkpoint_without_a_task_says_what_it_fits(file):
    with pytest.raises(UsageError, match=rf"fit torchvision:{SMALL}; add .* -M num_classes=7 --data KIND:PATH, with") as found:
        load(file)
    assert found.value.options == ("--model", f"torchvision:{SMALL}", "-M", "num_classes=7", "--data", "KIND:PATH")
    with pytest.raises(UsageError, match=r"-M num_classes=7 --data digits$"):
        load(file, data="digits")


def test_a_model_without_data_says_how_to_name_them(file):
    with pytest.raises(UsageError, match=rf"--model torchvision:{SMALL} -M num_classes=7 --data KIND:PATH"):
        load(file, model=SMALL)


def test_a_head_of_another_size_says_the_classes_of_the_file(file, tmp_path):
    digits = read_data("digits")
    images = digits.train_x[:14].float().expand(-1, 3, 8, 8).repeat(1, 1, 4, 4).contiguous()
    save_file({"train_x": images, "train_y": torch.arange(14) % 7}, tmp_path / "data.safetensors")
    data = f"safetensors:{tmp_path / 'data.safetensors'}"
    with pytest.raises(MismatchError, match=r"add --model .* -M num_classes=7, which they fit") as found:
        load(file, model=SMALL, data=data)
    assert found.value.table
    task = load(file, model=SMALL, model_kwargs={"num_classes": 7}, data=data)
    assert task.size("train") == 14


def test_a_bare_name_is_that_of_torchvision_and_a_wrong_one_is_told_its_neighbours():
    with pytest.raises(UsageError, match=r"found 'resnet81'; did you mean .*resnet18"):
        resolve(model="resnet81", data="digits")


def test_the_table_of_shapes_is_that_of_the_installed_torchvision():
    table = torchvision_table.known()
    if table is None:
        pytest.skip("another version of torchvision than that of the table")
    assert list(table) == torchvision.models.list_models(module=torchvision.models)
    for name in ("squeezenet1_1", "googlenet", "vit_b_32", "densenet121", "convnext_tiny"):
        assert table[name] == torchvision_table.shapes_of(name), name


@pytest.mark.slow
def test_every_entry_of_the_table_is_that_of_its_network():
    table = torchvision_table.known()
    if table is None:
        pytest.skip("another version of torchvision than that of the table")
    assert table == {name: torchvision_table.shapes_of(name) for name in table}


def test_a_refusal_builds_no_network_and_imports_no_torchvision(file):
    """An exact file, one of a size that no network has, and a bare name."""
    program = f"""
import sys
from landscape.errors import LandscapeError
from landscape.tasks import load
for options in ({{}}, {{"model": "{SMALL}"}}, {{"model": "torchvision:{SMALL}"}}):
    try:
        load({str(file)!r}, **options)
    except LandscapeError as error:
        assert "{SMALL}" in str(error) and "num_classes=7" in str(error), error
assert not {{"torchvision", "timm", "torch._dynamo", "landscape.measures"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_table_the_networks_themselves_are_compared(state, monkeypatch):
    monkeypatch.setattr(torchvision_table, "known", lambda: None)
    monkeypatch.setattr(recognition, "known", lambda: None)
    found = recognize(Weights(state, "all"), "x.pth")
    assert found is not None
    assert found.arguments == ("--model", f"torchvision:{SMALL}", "-M", "num_classes=7")
    assert found.tensors == len(state)


def test_old_files_without_counters_of_batches_are_told(state):
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    found = recognize(Weights(old, "all"), "x.pth")
    assert found is not None
    assert (found.model, found.tensors) == (f"torchvision:{SMALL}", len(state))
