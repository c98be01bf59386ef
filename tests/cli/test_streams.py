"""One document on stdout, whatever the user's code prints, and however."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

TASK = """import atexit, ctypes, os, subprocess, sys
import torch
from torch import nn
from landscape import Task

print("AT IMPORT")
atexit.register(print, "AT EXIT")
early = sys.stdout
C = ctypes.CDLL(None)


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.said = False

    def forward(self, x):
        if not self.said:
            self.said = True
            print("PRINTED")
            early.write("KEPT\\n")
            sys.__stdout__.write("ORIGINAL\\n")
            os.write(1, b"WRITTEN\\n")
            C.printf(b"FROM C\\n")
            subprocess.run(["echo", "CHILD"])
        return self.a(x)


def task():
    g = torch.Generator().manual_seed(0)
    return Task(M(), nn.CrossEntropyLoss(), (torch.randn(16, 4, generator=g), torch.randint(0, 3, (16,), generator=g)))
"""
SAID = ("AT IMPORT", "PRINTED", "KEPT", "ORIGINAL", "WRITTEN", "FROM C", "CHILD", "AT EXIT")


@pytest.fixture
def files(tmp_path):
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "raw.pt")
    save_file({f"a.{k}": v for k, v in nn.Linear(4, 3).state_dict().items()}, tmp_path / "net.safetensors")
    (tmp_path / "t.py").write_text(TASK)
    return tmp_path


def started(files, *arguments, processes=1):
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*start, "landscape", *arguments, "net.safetensors", "--task", "t.py"]
    return subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=300)


def test_what_the_network_prints_goes_to_stderr(files):
    done = started(files, "sharpness", "--measures", "logit_norm", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"schema", "results"}
    for word in SAID:
        assert word in done.stderr, word
    plain = started(files, "sharpness", "--measures", "logit_norm")
    assert "logit_norm" in plain.stdout
    assert not any(word in plain.stdout for word in SAID)


def test_of_several_processes_too(files):
    done = started(files, "sharpness", "--measures", "logit_norm", "--json", processes=2)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"schema", "results"}
    assert all(done.stderr.count(word) >= 2 for word in SAID if word != "FROM C")


def test_a_reader_who_has_enough(files):
    """`landscape ... | head -c 1` ends without a traceback."""
    command = [sys.executable, "-m", "landscape", "sharpness", "net.safetensors", "--task", "t.py"]
    command += ["--measures", "logit_norm", "--json"]
    with subprocess.Popen(command, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(300) in (0, 141)
    assert "Traceback" not in told
    assert "Exception ignored" not in told
