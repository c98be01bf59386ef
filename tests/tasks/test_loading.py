"""From checkpoints and names to tasks: what is found, what is verified, what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from landscape import checkpoints
from landscape.errors import MismatchError, UsageError
from landscape.tasks import Recipe, Task, build, load, parse_options, resolve, train
from landscape.tasks.data.by_name import read_data

RECIPE = Recipe(network="digits-cnn", network_options={"width": 2}, data="safetensors", batch_size=16, epochs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run on 60 digits from a file, and the file."""
    folder = tmp_path_factory.mktemp("run")
    data = read_data("digits")
    replace(data, train_x=data.train_x[:60].flip(0), train_y=data.train_y[:60].flip(0)).save(folder / "data.safetensors")
    train(
        replace(RECIPE, samples=50, corruption="random-labels"),
        out=folder / "net.safetensors",
        data_path=folder / "data.safetensors",
    )
    return folder


def opened(folder: Path, path: Path) -> Task:
    """A checkpoint of the run with its data named, as a user must."""
    return load(path, data=f"safetensors:{folder / 'data.safetensors'}")


def rewritten(folder: Path, out: Path, change) -> Path:
    """The run's checkpoint with a changed description or extras."""
    old = checkpoints.read(folder / "net.safetensors")
    recipe, extras = json.loads(json.dumps(old.recipe)), dict(old.extras)
    change(recipe, extras)
    checkpoints.save(out, old.weights().state, recipe=recipe, extras=extras)
    return out


def test_self_describing(folder):
    task = load(folder / "net.safetensors", data=f"safetensors:{folder / 'data.safetensors'}")
    assert task.size("train") == 50
    assert task.size("test") == 450
    assert task.name == "safetensors-digits-cnn"
    assert task.notices == ()
    assert task.recipe["training"]["network"] == "digits-cnn"
    assert torch.equal(task.train[1], task.extras["train_labels"])


def test_a_path_that_only_the_checkpoint_names_is_not_read(folder, tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError(f"read {arguments}")

    def change(recipe, extras):
        recipe["training"]["data"], recipe["data"]["path"] = "imagefolder", "/"

    monkeypatch.setattr("landscape.tasks.loading.read_data", never)
    hostile = rewritten(folder, tmp_path / "net.safetensors", change)
    with pytest.raises(UsageError, match=r"they were at '/'.*; name them with --data imagefolder:PATH"):
        load(hostile)
    with pytest.raises(UsageError, match=r"they were at '.*data\.safetensors'.*; name them with --data safetensors:PATH"):
        load(folder / "net.safetensors")
    with pytest.raises(UsageError, match="found only the checkpoint's description of them; name"):
        load(rewritten(folder, tmp_path / "3.safetensors", lambda recipe, extras: recipe["data"].update(path=3)))


def test_data_moved_and_replaced(folder, tmp_path):
    moved = tmp_path / "moved.safetensors"
    content = (folder / "data.safetensors").read_bytes()
    moved.write_bytes(content)
    net = rewritten(
        folder, tmp_path / "net.safetensors", lambda r, e: r["data"].update(path=str(tmp_path / "gone.safetensors"))
    )
    assert load(net, data=f"safetensors:{moved}").notices == ()
    other = load(net, data="digits")
    assert "does not hold the data that the network was trained on" in other.notices[0]
    assert torch.equal(other.train[1], read_data("digits").train_y)  # as they are, not corrupted


def test_labels_are_verified(folder, tmp_path):
    def change(recipe, extras):
        extras["train_labels"] = (extras["train_labels"] + 1) % 10

    with pytest.raises(MismatchError, match="expected the training labels that the recipe's seed gives, found others"):
        opened(folder, rewritten(folder, tmp_path / "a.safetensors", change))
    bare = opened(folder, rewritten(folder, tmp_path / "b.safetensors", lambda recipe, extras: extras.clear()))
    assert bare.notices == ("training labels recomputed from the seed; the checkpoint has none to compare them with",)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda r: r["training"].update(network="os.system"), UsageError, "expected a built-in network .*, found 'os.system'"),
        (lambda r: r["training"].update(_target_="os.system"), UsageError, "expected a training recipe, found _target_"),
        (lambda r: r["network"]["options"].update(width=10**9), UsageError, "expected width between 1 and 4096"),
        (
            lambda r: r["network"]["options"].update(width=4096),
            MismatchError,
            "expected .* values for the recipe's digits-cnn, found",
        ),
        (lambda r: r["network"]["options"].update(width=3), MismatchError, "expected weights that fit the model"),
        (
            lambda r: r["network"].update(options=[1]),
            MismatchError,
            "expected weights that fit the model|values for the recipe",
        ),
        (lambda r: r["training"].update(seed="x"), UsageError, "expected seed as an integer of at least 0, found 'x'"),
        (lambda r: r.update(schema=99), UsageError, "expected a recipe of schema 1, found 99"),
        (lambda r: r.pop("training"), UsageError, "expected the model and data of .* to be given, .*; add --model NAME"),
    ],
)
def test_hostile_descriptions(folder, tmp_path, change, kind, text):
    path = rewritten(folder, tmp_path / "a.safetensors", lambda recipe, extras: change(recipe))
    with pytest.raises(kind, match=text):
        opened(folder, path)


def test_foreign_checkpoint_with_model_and_data(tmp_path):
    trained = build("mlp", seed=5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}, "epoch": 3}, tmp_path / "a.pth")
    task = load(tmp_path / "a.pth", model="mlp", data="digits")
    assert all(torch.equal(p, q) for p, q in zip(task.model.parameters(), trained.parameters(), strict=True))
    assert task.name == "mlp"
    with pytest.raises(
        UsageError, match=r"expected the model and data of .*a.pth to be given, found a checkpoint that does not name them"
    ):
        load(tmp_path / "a.pth")
    with pytest.raises(MismatchError, match="expected weights that fit the model"):
        load(tmp_path / "a.pth", model="mlp", data="digits", model_kwargs={"widths": [7]})


def test_torchvision_checkpoint(tmp_path):
    from landscape.tasks.torchvision_import import torchvision

    images = {"train_x": torch.randn(4, 3, 32, 32), "train_y": torch.tensor([0, 1, 2, 3])}
    save_file(images, str(tmp_path / "d.safetensors"))
    network = torchvision.models.resnet18(num_classes=4)
    save_file(network.state_dict(), str(tmp_path / "net.safetensors"))
    data = f"safetensors:{tmp_path / 'd.safetensors'}"
    task = load(tmp_path / "net.safetensors", model="torchvision:resnet18", model_kwargs={"num_classes": 4}, data=data)
    expected = torch.nn.functional.cross_entropy(network.eval()(images["train_x"]), images["train_y"]).item()
    assert task.objective().evaluate().loss.value == pytest.approx(expected, rel=1e-5)


def test_user_task_file(tmp_path):
    (tmp_path / "task.py").write_text(
        "import torch\nfrom landscape.tasks import Task\n\n"
        "def task():\n    x = torch.eye(3)\n"
        "    return Task(torch.nn.Linear(3, 3, bias=False), torch.nn.CrossEntropyLoss(), train=(x, torch.arange(3)))\n"
    )
    save_file({"weight": 2 * torch.eye(3)}, str(tmp_path / "w.safetensors"))
    task = load(tmp_path / "w.safetensors", task=str(tmp_path / "task.py"))
    value = -torch.tensor([2.0, 0.0, 0.0]).log_softmax(0)[0].item()
    assert task.objective().evaluate().loss.value == pytest.approx(value, rel=1e-6)
    assert task.name == "w"
    with pytest.raises(UsageError, match="expected either --task, or --model with --data; found both"):
        load(tmp_path / "w.safetensors", task=str(tmp_path / "task.py"), data="digits")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "expected --task FILE, or --model NAME with --data KIND:PATH; found no --model"),
        ({"model": "mlp"}, "found no --data; add --data"),
        ({"model": "alexnet9", "data": "digits"}, "expected a built-in network .*, found 'alexnet9'"),
        ({"model": "keras:resnet", "data": "digits"}, "or one of torchvision:NAME, timm:NAME, hf:NAME, found 'keras:resnet'"),
        (
            {"model": "torchvison:resnet18", "data": "digits"},
            r"found 'torchvison:resnet18'; did you mean torchvision:resnet18\?",
        ),
        (
            {"model": "torchvision:resnet81", "data": "digits"},
            "expected a model of torchvision, found 'resnet81'; did you mean .*resnet18",
        ),
        (
            {"model": "torchvision:resnet18", "data": "digits"},
            r"expected a network that accepts samples of shape \(1, 8, 8\), found: Given groups",
        ),
        (
            {"model": "torchvision:resnet18", "data": "digits", "model_kwargs": {"weights": "DEFAULT"}},
            "expected a model without weights",
        ),
        (
            {"model": "torchvision:resnet18", "data": "digits", "model_kwargs": {"depth": 3}},
            "unexpected keyword argument 'depth'",
        ),
        (
            {"model": "torchvision:resnet18", "data": "digits", "model_kwargs": {"num_clases": 10}},
            r"unexpected keyword argument 'num_clases'.*; did you mean -M num_classes=\.\.\.\?$",
        ),
        (
            {"model": "mlp", "data": "digits", "model_kwargs": {"clases": 10}},
            r"found 'clases'; did you mean classes\?$",
        ),
        (
            {"model": "mlp", "data": "digits", "model_kwargs": {"classes": 9}},
            "expected an output for each of 10 classes, found 9",
        ),
        ({"model": torch.nn.Linear(3, 3), "data": "digits"}, r"expected a network that accepts samples of shape \(1, 8, 8\)"),
    ],
)
def test_names_that_do_not_fit(arguments, text):
    with pytest.raises(UsageError, match=text):
        resolve(**arguments)


@pytest.mark.parametrize(
    ("labels", "fix"),
    [
        ([1, 2, 3, 10], "labels count from 0, and these begin at 1: subtract 1 from them"),
        ([2, 3, 10], "labels count from 0, and these begin at 2: subtract 1 from them"),
        ([0, 2, 10], "pass the number of classes, e.g. -M num_classes=11"),
        ([1, 2, 12], "pass the number of classes, e.g. -M num_classes=13"),
    ],
)
def test_labels_from_one_are_told(tmp_path, labels, fix):
    save_file({"train_x": torch.rand(len(labels), 3, 32, 32), "train_y": torch.tensor(labels)}, tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match=r"expected an output for each of 1[13] classes, found 10") as caught:
        resolve(model="mlp", data=f"safetensors:{tmp_path / 'd.safetensors'}", model_kwargs={"classes": 10})
    assert caught.value.fix == fix


@pytest.mark.parametrize(("model", "channels"), [("torchvision:resnet18", 3), ("resnet20", 3), ("torchvision:resnet18", 1)])
def test_images_with_channels_last_are_told(tmp_path, model, channels):
    save_file({"train_x": torch.rand(4, 32, 32, channels), "train_y": torch.arange(4)}, tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match=rf"channels come first: permute\(0, 3, 1, 2\) to \(N, {channels}, 32, 32\)$"):
        resolve(model=model, data=f"safetensors:{tmp_path / 'd.safetensors'}")


@pytest.mark.parametrize(("name", "module"), [("timm:vit_tiny", "timm"), ("hf:somewhere", "transformers")])
def test_optional_libraries(name, module):
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(UsageError, match=f"expected the library {module} for .*; pip install {module}"):
            resolve(model=name, data="digits")
    else:
        pytest.skip(f"{module} is installed here")


def test_resolve_a_recipe():
    task = resolve(Recipe(samples=20, corruption="random-labels"), seed=3)
    assert task.size("train") == 20
    expected = build("mlp", seed=3).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in task.model.state_dict().items())


def test_options():
    assert parse_options(["a=1", "b=x=y", "c=[1, 2]", "d=true", "e="]) == {"a": 1, "b": "x=y", "c": [1, 2], "d": True, "e": ""}
    for bad, text in (("a", "found 'a'"), ("1a=3", "found '1a=3'")):
        with pytest.raises(UsageError, match=text):
            parse_options([bad])
    with pytest.raises(UsageError, match="expected each model option once, found a twice"):
        parse_options(["a=1", "a=2"])


def test_options_nested_too_deeply():
    for text, found in (("[" * 100_000, "100000 characters"), ("-" * 4000 + "1", "a value that is nested too deeply")):
        with pytest.raises(UsageError, match=f"expected -M a as a number, .*, found {found}"):
            parse_options([f"a={text}"])


def test_a_pipe_as_a_model_s_configuration(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UsageError, match=r"expected a file config\.json in .*, found something else"):
        resolve(model=f"hf:{tmp_path}", data="digits")
