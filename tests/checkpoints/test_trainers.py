"""The files that common trainers write, read as they are (rows 17, 19 and 26)."""

import argparse
import pathlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from torch import nn

from landscape import checkpoints
from landscape.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick")
Place = Callable[..., Path]


def network() -> nn.Module:
    return nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), flat=nn.Flatten(), linear=nn.Linear(64, 10))
    )


def optimizer(model: nn.Module) -> dict[str, Any]:
    made = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 3, 6, 6)).sum().backward()
    made.step()
    return made.state_dict()


def same(model: nn.Module, path: Path, name: str | None = None) -> checkpoints.Checkpoint:
    """The file's weights fit a fresh network and equal the model's."""
    found = checkpoints.read(path)
    other = network()
    checkpoints.fit(other, found.weights(name))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    return found


@pytest.mark.parametrize("legacy", [False, True])
def test_a_dataparallel_script(place: Place, legacy: bool) -> None:
    model = network()
    state = nn.DataParallel(model).state_dict()
    found = same(model, place(hostile.saved({"net": state, "acc": 93.02, "epoch": 199}, legacy=legacy), "ckpt.pth"))
    assert list(found.candidates) == ["net"]
    assert found.meta == {"acc": 93.02, "epoch": 199}
    assert found.weights().prefix == "module."


def test_torchvision_s_reference_scripts(place: Place) -> None:
    model = network()
    args = argparse.Namespace(model="resnet18", lr=0.1, device="cuda", opt=None, data_path=pathlib.Path("/data"))
    average = torch.optim.swa_utils.AveragedModel(model)
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer(model),
        "lr_scheduler": {"T_max": 90},
        "args": args,
        "epoch": 3,
    }
    content["model"] = model.state_dict()
    found = same(model, place(hostile.saved(content)))
    assert found.meta["args"]["model"] == "resnet18"
    assert found.meta["args"]["data_path"] == "/data"
    both = place(hostile.saved({**content, "model_ema": average.state_dict()}))
    with pytest.raises(UsageError, match="model_ema"):
        checkpoints.read(both).weights()
    checkpoints.fit(network(), checkpoints.read(both).weights("model_ema"))


def test_timm(place: Place) -> None:
    model = network()
    content = {
        "epoch": 12,
        "arch": "resnet50",
        "state_dict": model.state_dict(),
        "optimizer": optimizer(model),
        "version": 2,
        "args": argparse.Namespace(lr=np.float64(0.05), mean=(0.485, 0.456), amp=True),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": {key: item.clone() for key, item in model.state_dict().items()},
        "metric": np.float64(76.5),
    }
    found = same(model, place(hostile.saved(content), "last.pth.tar"), "state_dict")
    assert list(found.candidates) == ["state_dict", "state_dict_ema"]
    assert found.meta["args"] == {"lr": 0.05, "mean": [0.485, 0.456], "amp": True}
    assert found.meta["metric"] == 76.5


def test_lightning(place: Place) -> None:
    model = network()
    state = {f"model.{key}": item for key, item in model.state_dict().items()} | {"criterion.weight": torch.ones(10)}
    content = {
        "epoch": 4,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 5}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "best_model_score": torch.tensor(0.31),
                "best_k_models": {"a.ckpt": torch.tensor(0.3)},
            }
        },
        "optimizer_states": [optimizer(model)],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "net": {"_target_": "os.system"}, "_class_path": "evil.Class", "_instantiator": "x.y"},
    }
    found = same(model, place(hostile.saved(content), "epoch=4.ckpt"))
    assert found.meta["hyper_parameters"]["_class_path"] == "evil.Class"
    assert found.meta["global_step"] == 1000


def test_a_gan_asks_which(place: Place) -> None:
    content = {"generator": network().state_dict(), "discriminator": {"w": torch.ones(2)}}
    with pytest.raises(UsageError, match="generator, discriminator"):
        checkpoints.read(place(hostile.saved(content))).weights()


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_python_and_numpy_beside_the_weights(place: Place, legacy: bool) -> None:
    import datetime
    import types

    content = {
        "state_dict": {"w": torch.ones(2)},
        "scalar": np.float32(1.5),
        "integer": np.int64(-3),
        "truth": np.bool_(True),
        "array": np.arange(6.0).reshape(2, 3),
        "big": np.zeros(1000),
        "dtype": np.dtype("float32"),
        "size": torch.Size([1, 2]),
        "torch_dtype": torch.float16,
        "device": torch.device("cuda:1"),
        "set": {1},
        "complex": 1 + 2j,
        "bytes": b"\xff\x00abc",
        "default": defaultdict(list, {"a": [1]}),
        "space": types.SimpleNamespace(a=1),
        "when": datetime.datetime(2024, 1, 2),
        "nan": float("nan"),
        "big_int": 10**30,
        5: "five",
    }
    meta = checkpoints.read(place(hostile.saved(content, legacy=legacy))).meta
    assert meta["scalar"] == 1.5
    assert meta["integer"] == -3
    assert meta["truth"] is True
    assert meta["array"] == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert meta["big"] == "array float64 (1000,)"
    assert meta["dtype"] == "numpy.float32"
    assert meta["size"] == [1, 2]
    assert meta["torch_dtype"] == "torch.float16"
    assert meta["device"] == "cuda:1"
    assert meta["set"] == [1]
    assert meta["complex"] == "(1+2j)"
    assert meta["bytes"] == "5 bytes"
    assert meta["default"] == {"a": [1]}
    assert meta["space"] == {"a": 1}
    assert meta["when"]["class"] == "datetime.datetime"
    assert meta["nan"] == "nan"
    assert int(meta["big_int"], 16) == 10**30
    assert meta["5"] == "five"


def test_classes_of_absent_libraries_are_data(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    library = types.ModuleType("pytorch_lightning.utilities.parsing")
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.utilities", types.ModuleType("pytorch_lightning.utilities"))
    monkeypatch.setitem(sys.modules, library.__name__, library)

    class AttributeDict(dict):  # type: ignore[type-arg]  # as the library defines it
        pass

    AttributeDict.__module__, AttributeDict.__qualname__ = library.__name__, "AttributeDict"
    library.AttributeDict = AttributeDict  # type: ignore[attr-defined]  # a module made here
    value = {"state_dict": {"w": torch.ones(2)}, "hyper_parameters": AttributeDict(lr=0.1)}
    assert checkpoints.read(place(hostile.saved(value))).meta["hyper_parameters"] == {"lr": 0.1}


def test_object_arrays_of_numpy_are_refused(place: Place, refuse: Callable[..., Any]) -> None:
    refuse(
        place(hostile.saved({"state_dict": {"w": torch.ones(2)}, "x": np.array([{}, None], dtype=object)})),
        4,
        "not a plain number|of objects",
    )


def test_parameters_and_tensors_with_attributes(place: Place) -> None:
    tensor = torch.arange(3.0)
    tensor.note = "hello"  # type: ignore[attr-defined]  # any attribute makes torch pickle it differently
    found = checkpoints.read(
        place(hostile.saved({"p": nn.Parameter(torch.ones(2)), "t": tensor, "u": torch.tensor([0, 1, 2], dtype=torch.uint16)}))
    )
    state = found.candidates["(top level)"]
    assert torch.equal(state["p"], torch.ones(2))
    assert not state["p"].requires_grad
    assert torch.equal(state["t"], tensor)
    assert state["u"].dtype is torch.uint16
