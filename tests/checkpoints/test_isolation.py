"""The child process itself, started as it is in earnest: what it may not do, and what its end means."""

import ast
import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch

from landscape import checkpoints
from landscape.checkpoints.reading import isolate, messages
from landscape.errors import MalformedError, UnsafeError, UsageError

Place = Callable[..., Path]
Refuse = Callable[..., Any]


def test_good_files_come_through_a_fresh_child(place: Place) -> None:
    for legacy in (False, True):
        found = checkpoints.read(place(hostile.saved({"state_dict": hostile.network(), "epoch": 3}, legacy=legacy)))
        assert all(torch.equal(found.weights().state[key], item) for key, item in hostile.network().items())
        assert found.meta == {"epoch": 3}


def test_hostile_files_end_in_a_fresh_child(place: Place, refuse: Refuse, canary: Path) -> None:
    refuse(place(hostile.saved(hostile.Evil(canary))), 3, r"posix\.system")
    refuse(place(hostile.claims(1, 0, (10**6, 10**6), (0, 0), held=4)), 4, "over the memory budget")


@pytest.mark.usefixtures("quick")
def test_nothing_is_left_behind(place: Place, refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    checkpoints.read(place(hostile.saved(hostile.network())))
    refuse(place(b"PK\x03\x04 broken"), 4, "zip")
    assert list(scratch.iterdir()) == []


def test_a_module_beside_the_user_shadows_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: Path
) -> None:
    path = place(hostile.saved(hostile.network()))
    for name in ("torch.py", "pickle.py", "landscape.py", "json.py"):
        (tmp_path / name).write_text(f"open({str(canary)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert checkpoints.read(path).candidates


ACTIONS = [
    "os.system('touch {}')",
    "__import__('subprocess').run(['touch', '{}'])",
    "open('{}', 'w')",
    "os.open('{}', os.O_CREAT | os.O_RDWR)",
    "os.fork() or os.execvp('touch', ['touch', '{}'])",
    "os.mkdir('{}')",
    "os.symlink('x', '{}')",
    "__import__('socket').socket()",
    "__import__('shutil').copy('/etc/hostname', '{}')",
]

IN_FORKS = """
import os, sys, torch
from landscape.checkpoints.reading import parser_process as child
for action in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        try:
            exec(action)
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\\n".encode())
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def in_forks(*actions: str) -> tuple[list[int], str]:
    """Run every action in a fork of one process that has imported torch; exit statuses and what they complained of."""
    command = [sys.executable, "-P", "-c", IN_FORKS, *actions]
    done = subprocess.run(command, env=isolate._environment(), capture_output=True, text=True, check=True, timeout=300)
    return [int(line) for line in done.stdout.split()], done.stderr


def test_the_guard_ends_the_process(canary: Path) -> None:
    statuses, complaints = in_forks(*(f"child.guard(); {action.format(canary)}" for action in ACTIONS))
    assert statuses == [messages.CAUGHT] * len(ACTIONS), complaints


def take(status: int, content: bytes = b"") -> Any:
    return isolate.take(io.BytesIO(content), status, "os.system")


def test_what_the_end_of_a_child_means() -> None:
    with pytest.raises(UnsafeError, match=r"tried to run code \(os\.system\)"):
        take(messages.CAUGHT)
    with pytest.raises(MalformedError, match="SIGSEGV"):
        take(-signal.SIGSEGV)
    with pytest.raises(UsageError, match="process that reads checkpoints to start"):
        take(1)
    with pytest.raises(UsageError, match="process that reads checkpoints to start"):
        take(0)


def test_the_limits_hold() -> None:
    (memory, tensor, endless), complaints = in_forks(
        "child.limit(1 << 20, 60); bytearray(1 << 30)",
        "child.limit(1 << 20, 60); torch.ones(1 << 30)",
        "child.limit(1 << 20, 1)\nwhile True: pass",
    )
    assert (memory, tensor) == (1, 1)
    assert "MemoryError" in complaints
    assert "allocate memory" in complaints
    assert endless == -signal.SIGXCPU


def test_a_child_that_takes_too_long_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "_START", 0.05)
    monkeypatch.setattr(isolate, "_PARSE", 0)
    with pytest.raises(MalformedError, match="takes longer"):
        checkpoints.read(place(hostile.saved(hostile.network())))


def test_no_room_for_the_answer(place: Place) -> None:
    path = place(hostile.saved({"w": torch.zeros(100_000)}))
    program = (
        "import os, resource\nfrom landscape.checkpoints.reading import parser_process as child\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "child.answer(os.fdopen(0, 'rb'), 'zip', 1 << 24, os.fdopen(1, 'wb'))\n"
    )
    with path.open("rb") as file, tempfile.TemporaryFile() as answer:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], stdin=file, stdout=answer, env=isolate._environment(), check=False
        )
        with pytest.raises(UsageError, match="space for the tensors in the temporary directory"):
            isolate.take(answer, done.returncode, "")


def test_only_the_child_s_parser_loads() -> None:
    """Calls named load, loads or Unpickler: JSON anywhere, torch's in parse.py, and the child's warm-up on its own bytes."""
    calls = set()
    for path in Path(checkpoints.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                if node.func.attr in ("load", "loads", "Unpickler") and called != "json.loads":
                    assert ("weights_only", True) in [(word.arg, getattr(word.value, "value", None)) for word in node.keywords]
                    calls.add((path.name, called))
    assert calls == {("parse.py", "torch.load"), ("parser_process.py", "torch.load")}


@pytest.mark.parametrize("legacy", [False, True])
def test_the_gate_holds_without_the_tripwire(canary: Path, legacy: bool) -> None:
    """torch's own restricted unpickler refuses what the dry run refuses; the dry run only says it better."""
    from landscape.checkpoints.reading import parse

    with pytest.raises(UnsafeError, match=r"posix|os\.system"):
        parse._load(io.BytesIO(hostile.saved({"state_dict": {}, "x": hostile.Evil(canary)}, legacy=legacy)))


def test_the_canary_sings(tmp_path: Path) -> None:
    """The hostile files of these tests do run code where a reader lets them."""
    torch.load(io.BytesIO(hostile.saved(hostile.Evil(tmp_path / "sung"))), weights_only=False)
    assert (tmp_path / "sung").exists()
