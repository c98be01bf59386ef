"""Kills processes that compute a surface, at random moments, until enough were killed and the surface is done.

A program of its own: it forks workers, which is only safe where nothing else runs. Prints one JSON object:
    kills, folders: how many processes were killed, over how many surfaces; early: of them before the manifest was there;
    equal, same_json: surfaces equal to the bit to an uninterrupted one, in their arrays and as text;
    at_once: points that are measured together;
    points: of all surfaces; begun: how often one was begun;
    lost: points that a killed process had begun and not recorded; most_lost: the most that one kill took;
    shared: points that two processes did although none was killed over them; left: points missing when a worker had ended;
    torn: torn tails reported; problems: all else that was reported; vectors: files of eigenvectors left at the end;
    compacted: surfaces whose segments of killed processes became one file.
How long a worker lives follows from how long workers take here and now to begin their first point: no speed of a machine, and
no other work on it, keeps the surfaces from getting done.
"""

import json
import mmap
import os
import random
import signal
import statistics
import struct
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cases import CASES

from landscape.objective import Objective
from landscape.surfaces import plane, slice_values
from landscape.surfaces.running import measurement
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.journal_segments import is_compacted
from landscape.surfaces.running.settings import points_at_once

NAMES = ("kills", "folders", "early", "equal", "same_json", "points", "begun", "lost", "most_lost", "shared", "left", "torn",
         "problems", "vectors", "at_once", "compacted")  # fmt: skip
EARLY = 3  # workers of every folder that are killed while they begin, alone
LIVES = 4  # times what it takes to begin a first point: half of this on the average, so that most get something done
LAST = 9  # starts that are remembered


class Lives:
    """How long workers may live: a multiple of what a start takes, by the median of the last ones that got that far."""

    def __init__(self, seconds: float) -> None:
        self.starts = deque([seconds], LAST)
        self.barren = 0  # workers in a row that were killed before their first point

    @property
    def longest(self) -> float:
        """Seconds; twice as many after every few workers in a row that got nowhere, as when the machine has become busy."""
        return LIVES * statistics.median(self.starts) * 2 ** (self.barren // 5)

    def learn(self, lived: float, began: float | None) -> None:
        """From a worker that was killed after so many seconds, and the second at which it began its first point, if it did."""
        if began is None:
            self.barren += lived > self.longest / LIVES
            return
        if self.barren:  # those that were killed sooner would have taken at least as long
            self.starts.extend([max(began, *self.starts)] * min(self.barren, LAST))
        self.barren = 0
        self.starts.append(began)


class Counter:
    """Points begun, and when the first one was, two numbers a process, in memory that forked workers share."""

    def __init__(self, processes: int) -> None:
        self.memory = mmap.mmap(-1, 16 * processes)
        self.own, self.paused = 0, False
        self.stacks: dict[str, list[str]] = {}

    def add(self, stack: tuple[int, ...]) -> None:
        """Points that this process begins, which are measured together."""
        if self.paused:
            return
        keys = [f"loss:{number}" for number in stack]
        self.stacks |= dict.fromkeys(keys, keys)
        points = len(stack)
        first = self.first(self.own) or time.monotonic()
        self.memory[16 * self.own : 16 * self.own + 16] = struct.pack("qd", self[self.own] + points, first)

    def __getitem__(self, process: int) -> int:
        return struct.unpack("q", self.memory[16 * process : 16 * process + 8])[0]

    def first(self, process: int) -> float | None:
        """When a process began its first point, by the clock that all share."""
        return struct.unpack("d", self.memory[16 * process + 8 : 16 * process + 16])[0] or None


def main(kills: int, workers: int, seed: int, kind: str) -> dict:
    """Kill `kills` workers, `workers` of which share a folder at any time; of a surface of some `kind`."""
    curvature, stacked = kind == "curvature", kind == "stacked"
    torch.set_num_threads(1)
    rng = random.Random(seed)
    model, loss, x, y = CASES[0 if stacked else 3].make(0)  # without convolutions points go at once
    objective, test = Objective(model, loss, (x, y)), Objective(model, loss, (x[:7], y[:7]))
    grid = (9, 8) if curvature else (41, 40) if stacked else (21, 20)
    options = {"grid": grid, "test": test, "curvature": curvature}
    objective.preflight()
    counter = Counter(100 * (kills + 100))
    counted(counter)
    whole = plane(objective, **options)
    found: dict[str, int] = dict.fromkeys(NAMES, 0)
    found["at_once"] = points_at_once([objective, test], whole.values["loss"].size, False)
    processes = 1
    with tempfile.TemporaryDirectory() as folder:
        born = time.monotonic()
        os.waitpid(worker(objective, options, folder, counter, processes), 0)
        began = counter.first(processes)
        assert began is not None, "an undisturbed worker does points"
        lives = Lives(began - born)
    while found["kills"] < kills:
        with tempfile.TemporaryDirectory() as folder:
            alive: dict[int, int] = {}
            births: dict[int, float] = {}
            first, killed, lost, done = processes + 1, 0, 0, 0
            while not done:
                while len(alive) < (1 if killed < EARLY else workers):
                    processes += 1
                    births[processes] = time.monotonic()
                    alive[worker(objective, options, folder, counter, processes)] = processes
                # The first ones while they begin: some before there is a manifest.
                time.sleep(rng.uniform(0, lives.longest * ((0.01, 0.03, 0.06)[killed] if killed < EARLY else 1)))
                victim = rng.choice(list(alive))
                done, status = os.waitpid(victim, os.WNOHANG)
                if done:
                    assert status == 0, f"a worker ended with {status}"
                    break
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                first_point, born = counter.first(alive[victim]), births[alive[victim]]
                if killed >= EARLY:
                    lives.learn(time.monotonic() - born, None if first_point is None else first_point - born)
                killed += 1
                found["early"] += not (Path(folder) / "manifest.json").exists()
                took = counter[alive.pop(victim)] - recorded(folder, victim, counter.stacks)
                lost += took
                found["most_lost"] = max(found["most_lost"], took)
            for pid in alive:
                if pid != done:
                    _, status = os.waitpid(pid, 0)
                    assert status == 0, f"a worker ended with {status}"
            before = counter[0]
            again = plane(objective, run=folder, **options)
            points = whole.values["loss"].size * (1 + curvature)
            begun = sum(counter[i] for i in range(first, processes + 1))
            problems = Journal(Path(folder) / "journal", digest_of(folder)).problems
            torn = sum(p.endswith("is torn") for p in problems)
            found["compacted"] += any(is_compacted(p.name) for p in (Path(folder) / "journal").iterdir())
            found["folders"] += 1
            found["kills"] += killed
            found["lost"] += lost
            found["begun"] += begun
            found["points"] += points
            found["shared"] += begun - points - lost
            found["left"] += counter[0] - before
            found["torn"] += torn
            found["problems"] += len(problems) - torn
            found["vectors"] += len(list((Path(folder) / "vectors").glob("*.safetensors")))
            found["equal"] += all(
                np.array_equal(a, b, equal_nan=True) for kind in ("values", "stderr", "paired", "status")
                for a, b in zip(getattr(whole, kind).values(), getattr(again, kind).values(), strict=True)
            )  # fmt: skip
            found["same_json"] += json.dumps(whole.to_json()) == json.dumps(again.to_json())
    return found


def worker(objective: Objective, options: dict, folder: str, counter: Counter, number: int) -> int:
    """A process that goes on with the surface in `folder`."""
    pid = os.fork()
    if pid == 0:
        counter.own = number
        try:
            plane(objective, run=folder, **options)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return pid


def counted(counter: Counter) -> None:
    """Let every point that is begun add one to its process's counter; every pair of eigenvalues, also one computed again."""
    for kind, name in ((measurement.Losses, "__call__"), (measurement.Extremes, "_solved")):
        real = getattr(kind, name)

        def counting(self, *arguments, real=real):
            counter.add(arguments[0] if isinstance(arguments[0], tuple) else (arguments[0],))
            return real(self, *arguments)

        setattr(kind, name, counting)

    def comparing(*arguments, real=slice_values.recheck):
        counter.paused = True  # a point that is only compared with what is recorded is none that is begun
        real(*arguments)
        counter.paused = False

    slice_values.recheck = comparing


def recorded(folder: str, pid: int, stacks: dict[str, list[str]]) -> int:
    """Points that a process measured and that count: of a stack that was not written to its end none does."""
    written: dict[str, set[str]] = {}
    for file in (Path(folder) / "journal").glob("*.jsonl"):
        try:
            for segment, key in keys(file):
                written.setdefault(segment, set()).add(key)
        except FileNotFoundError:  # it has just become a part of another one
            return recorded(folder, pid, stacks)
    there = set().union(*written.values())
    own = set().union(*(found for name, found in written.items() if f"-{pid}-" in name))
    whole = {tuple(stacks.get(key, [key])) for key in own}
    return sum(len(stack) for stack in whole if there.issuperset(stack))


def keys(file: Path) -> list[tuple[str, str]]:
    """Segments that points were written to, and the points, from the whole lines of a file."""
    whole = (line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    lines = [json.loads(line.partition(b" ")[2]) for line in whole]
    parts = lines[0].get("of", []) if lines else []
    return [(parts[line["at"][0]][0] if "at" in line else file.name, line["key"]) for line in lines if "key" in line]


def digest_of(folder: str) -> str:
    """The run that the segments say they belong to."""
    segments = [s.read_text().splitlines() for s in (Path(folder) / "journal").glob("*.jsonl")]
    return json.loads(next(lines[0] for lines in segments if lines).partition(" ")[2])["open"]


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
