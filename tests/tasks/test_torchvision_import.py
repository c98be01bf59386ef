"""torchvision beside a CPU-only torch: tolerated during the import, and only then."""

import subprocess
import sys

import pytest
import torch

from landscape.tasks.torchvision_import import tolerating_missing_operators

PROGRAM = """
import torch
before = torch.library.register_fake
from landscape.tasks.torchvision_import import torchvision
assert torch.library.register_fake is before
model = torchvision.models.resnet18(num_classes=10)
print(sum(p.numel() for p in model.parameters()), torchvision.datasets.CIFAR10.__name__)
"""


def test_import_in_a_fresh_process():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["11181642", "CIFAR10"]  # 11,689,512 with 1000 classes, less 990 x 513


def test_other_errors_pass_and_all_is_restored():
    original = torch.library.register_fake
    with pytest.raises(RuntimeError, match="CompositeImplicitAutograd"), tolerating_missing_operators():
        torch.library.register_fake("aten::matmul")(lambda a, b: a)
    assert torch.library.register_fake is original
    with pytest.raises(RuntimeError, match="does not exist"):
        torch.library.register_fake("no_library::no_operator")(lambda x: x)


def test_missing_operators_are_skipped_in_both_forms():
    def shape(x):
        return x

    with tolerating_missing_operators():
        assert torch.library.register_fake("no_library::no_operator")(shape) is shape
        assert torch.library.register_fake("no_library::no_operator", shape) is shape
