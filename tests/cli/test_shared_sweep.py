"""Several processes on one sweep: claims without locks, and what happens when processes are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from landscape.cli.sweeps import claims as claims_module
from landscape.cli.sweeps.claims import Claims
from landscape.cli.sweeps.sharing_loop import survey
from landscape.cli.sweeps.swept_items import Records, items_of
from landscape.machine.files import sealed

ROOT = Path(__file__).resolve().parents[2]
TASK = """
import torch
from landscape import Task

def task():
    x = torch.linspace(-1, 1, 16).reshape(8, 2)
    return Task(model=torch.nn.Linear(2, 2), loss=torch.nn.CrossEntropyLoss(), train=(x, (x[:, 0] > 0).long()))
"""
# Each measure that was kept takes a while, so that a kill finds a process at work.
SLOW = """
import sys, time
import landscape.measures.running.saved_measures as kept
from landscape.cli import main
before = kept.Kept.keep
def keep(self, *a, **k):
    time.sleep({pause})
    before(self, *a, **k)
kept.Kept.keep = keep
sys.argv = ["landscape", *sys.argv[1:]]
main()
"""


def started(folder: Path, pause: float) -> subprocess.Popen[str]:
    words = ("sweep", "runs/*.safetensors", "--task", "task.py", "--measures", "weight_curvature,trace:probes=2")
    command = [sys.executable, "-c", SLOW.format(pause=pause), *words, "--out", "o", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def waits_for(what, seconds: float = 60.0) -> None:
    last = time.monotonic() + seconds
    while not what() and time.monotonic() < last:
        time.sleep(0.02)
    assert what()


@pytest.mark.slow  # starts processes, each of which imports PyTorch
def test_two_processes_share_and_one_finishes_what_a_killed_one_left(tmp_path):
    (tmp_path / "runs").mkdir()
    for seed in range(5):
        torch.manual_seed(seed)
        save_file(nn.Linear(2, 2).state_dict(), tmp_path / "runs" / f"{seed}.safetensors")
    (tmp_path / "task.py").write_text(TASK)
    items, held = tmp_path / "o" / "items", tmp_path / "o" / "claims"
    with started(tmp_path, 0.4) as killed, started(tmp_path, 0.4) as other:
        waits_for(lambda: len(list(held.glob("*.claim"))) == 2)  # both at work, on different checkpoints
        waits_for(lambda: len(list(items.glob("*.record"))) >= 1)
        waits_for(lambda: _stopped_at_work(killed.pid, held))
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        printed, told = other.communicate(timeout=120)
    assert other.returncode == 0, told
    document = json.loads(printed)
    assert [r["checkpoint"] for r in document["results"]] == [f"runs/{seed}.safetensors" for seed in range(5)]
    assert not list(held.iterdir())
    with started(tmp_path, 0.0) as again:
        assert json.loads(again.communicate(timeout=120)[0]) == document


def _stopped_at_work(process: int, held: Path) -> bool:
    """Stop a process; whether it has a claim, which it then keeps."""
    os.kill(process, signal.SIGSTOP)
    time.sleep(0.05)
    if any(_pid(path) == process for path in held.glob("*.claim")):
        return True
    os.kill(process, signal.SIGCONT)
    return False


def _pid(path: Path) -> int:
    from landscape.machine.files import unsealed

    try:
        return int((unsealed(path.read_bytes()) or {}).get("process", 0))
    except (FileNotFoundError, IsADirectoryError):
        return 0


def test_of_many_at_once_one_gets_an_item(tmp_path):
    owners = [Claims(tmp_path) for _ in range(16)]
    got, gate = [], threading.Barrier(16)

    def take(owner: Claims) -> None:
        gate.wait()
        got.append(owner.take("item"))

    threads = [threading.Thread(target=take, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 15 + [True]
    for owner in owners:
        owner.release()
    assert not list(tmp_path.iterdir())


def test_a_claim_is_free_once_its_owner_is_gone_or_silent(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = Claims(tmp_path)
    record = {"host": claims_module.MACHINE, "process": gone.pid, "token": "ab" * 8}
    (tmp_path / "a.claim").write_bytes(sealed(record))
    assert mine.take("a")
    assert mine.lost("a") == 1
    mine.release()
    mine.forget("a")
    (tmp_path / "c.claim").write_bytes(sealed(record | {"host": claims_module.HOST}))  # of another container, if need be
    assert not mine.take("c")
    (tmp_path / "b.claim").write_bytes(sealed(record | {"host": "elsewhere"}))
    assert not mine.take("b")
    monkeypatch.setattr(claims_module, "SILENCE", 0.2)
    os.utime(tmp_path / "b.claim")
    assert not mine.take("b")  # it was touched since
    time.sleep(0.3)
    assert mine.take("b")
    assert mine.lost("b") == 1
    mine.release()


def test_an_owner_that_works_keeps_its_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims_module, "SILENCE", 0.5)
    monkeypatch.setattr(claims_module, "BEAT", 0.05)
    owner, other = Claims(tmp_path), Claims(tmp_path)
    assert owner.take("item")
    assert not any(other.take("item") or time.sleep(0.2) for _ in range(6))
    owner.release()
    assert other.take("item")
    other.release()


def test_a_checkpoint_at_which_processes_die_is_left_for_last_and_given_up(tmp_path):
    for name in "ab":
        (tmp_path / name).touch()
    items = items_of([str(tmp_path / name) for name in "ab"], {})
    claims = Claims(tmp_path / "claims")
    done = []

    def measure(item, count):
        done.append(item.path.name)
        return {"version": item.version(), "result": {}}

    for number, order in ((1, ["b", "a"]), (3, ["b"])):
        for i in range(number):
            (tmp_path / "claims" / f"{items[0].id}.lost-{i}").touch()
        records = Records(tmp_path / f"{number}")
        survey(items, records, claims, lambda item, record: True, measure)
        assert done == order
        done.clear()
    given_up = records.done(items[0])
    assert "3 were ended from outside" in given_up["failed"]["error"]
    assert f"delete {tmp_path}/3/items/{items[0].id}.record to try again" in given_up["failed"]["error"]
    assert not list((tmp_path / "claims").iterdir())
    later = Records(tmp_path / "3")
    survey(items, later, claims, lambda item, record: True, measure)
    assert not done, "the next command does not die of it"


def test_deaths_before_a_measure_that_was_kept_do_not_count(tmp_path):
    (tmp_path / "a").touch()
    (item,) = items_of([str(tmp_path / "a")], {})
    claims, records = Claims(tmp_path / "claims"), Records(tmp_path)
    measured = []

    def measure(item, count):
        measured.append(item)
        return {"version": item.version(), "result": {}}

    def died(kept: int, number: int) -> None:
        for i in range(number):
            mine = {"host": claims_module.MACHINE, "process": 1, "token": f"{kept}{i}" * 8, "kept": kept}
            (tmp_path / "claims" / f"{item.id}.lost-{kept}{i}").write_bytes(sealed(mine))

    died(0, 3)
    died(1, 2)
    assert [claims.lost(item.id, kept) for kept in (0, 1, 2)] == [5, 2, 0]
    survey([item], records, claims, lambda item, record: True, measure, kept=lambda item: 1)
    assert measured == [item]
    died(1, 3)
    records = Records(tmp_path / "other")
    survey([item], records, claims, lambda item, record: True, measure, kept=lambda item: 1)
    assert "3 were ended from outside" in records.done(item)["failed"]["error"]


# A job as submitit runs it: the handler of its signal asks for the next submission, and leaves in the middle of the command.
JOB = """
import os, signal, sys
from landscape.cli.sweeps.slurm_workers import Worker

worker = Worker(sys.argv[1:])

def handler(*_):
    worker.stop()
    sys.exit(7)

signal.signal(signal.SIGUSR2, handler)
worker()
"""


@pytest.mark.slow  # starts processes, each of which imports PyTorch
def test_a_job_that_is_preempted_gives_its_claim_up(tmp_path):
    (tmp_path / "runs").mkdir()
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "runs" / "0.safetensors")
    (tmp_path / "task.py").write_text(TASK.replace("def task():", "def task():\n    import time; time.sleep(120)"))
    words = ("sweep", "runs/*.safetensors", "--task", "task.py", "--measures", "weight_curvature", "--out", "o", "--json")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    claims = tmp_path / "o" / "claims"
    with subprocess.Popen([sys.executable, "-c", JOB, *words], cwd=tmp_path, env=environment, start_new_session=True) as job:
        waits_for(lambda: claims.exists() and _pid(next(claims.iterdir(), claims)) > 0)
        command = _pid(next(claims.iterdir()))
        os.killpg(job.pid, signal.SIGUSR2)  # to all of its processes, as SLURM may
        assert job.wait(60) == 7
    assert not list(claims.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(command, 0)


def test_a_damaged_record_is_made_again(tmp_path):
    (tmp_path / "a").touch()
    (item,) = items_of([str(tmp_path / "a")], {})
    records = Records(tmp_path)
    records.keep(item, {"version": item.version(), "result": {}})
    path = tmp_path / "items" / f"{item.id}.record"
    assert Records(tmp_path).current(item) is not None
    path.write_bytes(path.read_bytes()[:-5])
    assert Records(tmp_path).current(item) is None


@pytest.mark.parametrize("settings", [{"seed": 0}, {"seed": 1}])
def test_an_item_is_named_by_its_path_and_its_settings(settings, tmp_path):
    (tmp_path / "a").touch()
    (one,), (other,) = items_of([str(tmp_path / "a")], {"seed": 0}), items_of([str(tmp_path / "a")], settings)
    assert (one.id == other.id) == (settings == {"seed": 0})
