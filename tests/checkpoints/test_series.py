"""A folder of checkpoints as a sequence of flat weights: order, names, refusals with the file's name, nothing kept."""

import gc
import pickle
import weakref

import pytest
import safetensors.torch
import torch
from torch import nn

from landscape.checkpoints import CheckpointFiles, save
from landscape.errors import LandscapeError, MalformedError, MismatchError, NumericalError, UnsafeError, UsageError
from landscape.machine import progress
from landscape.network.parameters import Layout


class Net(nn.Module):
    """A convolution with BatchNorm, and two names of one weight."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, outputs, bias=False)
        self.tied = nn.Linear(3, outputs, bias=False)
        self.tied.weight = self.head.weight


def network(seed: int, outputs: int = 4) -> Net:
    torch.manual_seed(seed)
    return Net(outputs)


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {key: item.detach().clone() for key, item in net.state_dict().items()}


def test_natural_order_and_values(tmp_path):
    epochs = [0, 2, 9, 10, 11, 100]
    for epoch in reversed(epochs):
        save(tmp_path / f"epoch-{epoch}.safetensors", state(network(epoch)), recipe={})
    (tmp_path / "notes.txt").write_text("not one")
    (tmp_path / ".epoch-3.safetensors").write_bytes(b"half of a file")
    (tmp_path / "folder.pt").mkdir()
    files = CheckpointFiles(tmp_path, network(77))
    assert files.names == tuple(f"epoch-{e}" for e in epochs)
    assert len(files) == 6
    for epoch, theta in zip(epochs, files, strict=True):
        torch.testing.assert_close(theta, flat(network(epoch)), rtol=0, atol=0)
    assert torch.equal(files[-1], flat(network(100)))
    assert files[1:3].names == ("epoch-2", "epoch-9")
    assert torch.equal(files[1:3][1], flat(network(9)))
    with pytest.raises(IndexError):
        files[6]


def test_given_paths_keep_their_order(tmp_path):
    for name in ("b", "a"):
        save(tmp_path / f"{name}.safetensors", state(network(ord(name))), recipe={})
    files = CheckpointFiles([tmp_path / "b.safetensors", str(tmp_path / "a.safetensors")], network(0))
    assert files.names == ("b", "a")
    assert torch.equal(files[0], flat(network(ord("b"))))


def test_subfolders_of_a_trainer(tmp_path):
    for step in (1000, 500):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        safetensors.torch.save_file({k: v.clone() for k, v in network(step).state_dict().items()}, folder / "model.safetensors")
    (tmp_path / "logs").mkdir()
    files = CheckpointFiles(tmp_path, network(0))
    assert files.names == ("checkpoint-500", "checkpoint-1000")
    assert torch.equal(files[1], flat(network(1000)))


@pytest.mark.usefixtures("quick")
def test_names_are_matched_as_by_fit(tmp_path):
    """Wrapped, one of two tied names, inside a Lightning checkpoint, without BatchNorm's counter, in half precision."""
    first = {f"module._orig_mod.{k}": v for k, v in state(network(1)).items()}
    second = {k: v for k, v in state(network(2)).items() if k not in ("head.weight", "norm.num_batches_tracked")}
    third = {"state_dict": {f"model.{k}": v for k, v in state(network(3)).items()}, "epoch": 3}
    fourth = {k: v.half() if v.is_floating_point() else v for k, v in state(network(4)).items()}
    for i, content in enumerate((first, second, third, fourth), 1):
        torch.save(content, tmp_path / f"{i}.pt")
    files = CheckpointFiles(tmp_path, network(0))
    for i in (1, 2, 3):
        assert torch.equal(files[i - 1], flat(network(i))), i
    torch.testing.assert_close(files[3], flat(network(4)).half().float(), rtol=0, atol=0)


def test_a_layout_chooses_parameters(tmp_path):
    save(tmp_path / "1.safetensors", state(network(1)), recipe={})
    net = network(0)
    files = CheckpointFiles(tmp_path, net, Layout.of(net).only("conv"))
    assert torch.equal(files[0], torch.cat([network(1).conv.weight.reshape(-1), network(1).conv.bias]))
    assert torch.equal(flat(net), flat(network(0)))  # the network is left alone


@pytest.mark.usefixtures("quick")
def test_one_of_several_sets(tmp_path):
    torch.save({"model": state(network(1)), "ema": state(network(2))}, tmp_path / "a.pt")
    assert torch.equal(CheckpointFiles(tmp_path, network(0), weights="ema")[0], flat(network(2)))
    with pytest.raises(UsageError, match=r"^a\.pt: expected one set of weights in a\.pt, found 2: model, ema"):
        CheckpointFiles(tmp_path, network(0))[0]


def test_nothing_is_kept_and_nothing_reported(tmp_path):
    save(tmp_path / "1.safetensors", state(network(1)), recipe={})
    net = network(0)
    files = CheckpointFiles(tmp_path, net)
    theta = weakref.ref(files[0])
    gc.collect()
    assert theta() is None
    gone = weakref.ref(net.conv.weight)
    del net
    gc.collect()
    assert gone() is None

    class Loud:
        def start(self, label, total):
            raise AssertionError(label)

    with progress.listening(Loud()):
        assert len(files[0]) == len(flat(network(1)))


def test_missing_folders_and_too_few_files(tmp_path):
    with pytest.raises(UsageError, match=r"expected a folder of checkpoints, found No such file or directory: .*nowhere; name"):
        CheckpointFiles(tmp_path / "nowhere", network(0))
    with pytest.raises(UsageError, match=r"expected at least 1 checkpoint in .*, found 0; keep them while training"):
        CheckpointFiles(tmp_path, network(0))
    save(tmp_path / "1.safetensors", state(network(1)), recipe={})
    with pytest.raises(UsageError, match="expected a folder of checkpoints, found Not a directory"):
        CheckpointFiles(tmp_path / "1.safetensors", network(0))
    with pytest.raises(UsageError, match=r"expected at least 2 checkpoints in .*, found 1"):
        CheckpointFiles(tmp_path, network(0), least=2)
    with pytest.raises(UsageError, match="expected at least 1 checkpoint, found 0"):
        CheckpointFiles([], network(0))


def test_a_file_that_does_not_fit_is_named(tmp_path):
    save(tmp_path / "epoch-1.safetensors", state(network(1)), recipe={})
    save(tmp_path / "epoch-2.safetensors", state(network(1, outputs=5)), recipe={})
    files = CheckpointFiles(tmp_path, network(0))
    assert len(files[0]) == len(flat(network(0)))
    with pytest.raises(
        MismatchError, match=r"^epoch-2\.safetensors: expected weights that fit the model .*head\.weight: 5×3"
    ) as e:
        files[1]
    assert ("head.weight", "5×3", "4×3") in e.value.table
    assert e.value.exit_code == 5


class Hostile:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (self.canary, "w"))


@pytest.mark.usefixtures("quick")
def test_hostile_and_broken_files_are_refused_by_name(tmp_path, canary):
    good = safetensors.torch.save(state(network(1)))
    broken = state(network(1))
    broken["conv.bias"][0] = float("nan")
    files = {
        "a.pt": (pickle.dumps({"w": Hostile(str(canary))}), UnsafeError),
        "b.safetensors": (good[:-5], MalformedError),
        "c.pth": (b"<html>not found</html>", MalformedError),
        "d.ckpt": (b"", UsageError),
        "e.safetensors": (safetensors.torch.save(broken), NumericalError),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    series = CheckpointFiles(tmp_path, network(0))
    assert len(series) == len(files)
    for i, (name, (_, kind)) in enumerate(files.items()):
        with pytest.raises(LandscapeError) as caught:
            series[i]
        assert type(caught.value) is kind, caught.value
        assert str(caught.value).startswith(f"{name}: "), caught.value
        assert str(caught.value).isprintable()


def test_a_file_beyond_the_budget_is_refused(tmp_path):
    net = nn.Linear(100, 100)
    save(tmp_path / "1.safetensors", state(net), recipe={})
    assert len(CheckpointFiles(tmp_path, net, budget=50_000)[0]) == 10_100
    with pytest.raises(UsageError, match=r"^1\.safetensors: .* the memory budget of 30000 bytes"):
        CheckpointFiles(tmp_path, net, budget=30_000)[0]


def test_what_fits_is_read_once(tmp_path):
    for epoch in range(3):
        save(tmp_path / f"{epoch}.safetensors", state(network(epoch)), recipe={})
    size = flat(network(0)).nbytes
    files = CheckpointFiles(tmp_path, network(77), keep=2 * size)
    first = [theta.clone() for theta in files]
    files[0].zero_()  # whoever writes to what it got changes nothing for others
    for path in files.paths:
        path.write_bytes(b"gone")
    assert torch.equal(files[0], first[0])
    assert torch.equal(files[1], first[1])
    with pytest.raises(LandscapeError, match=r"2\.safetensors"):
        files[2]
