"""Kills processes that compute a surface, at random moments, until enough were killed and the surface is done.

A program of its own: it forks workers, which is only safe where nothing else runs. Prints one JSON object.
"""

import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cases import CASES

from landscape.objective import Objective
from landscape.surfaces import measurement, plane
from landscape.surfaces.journal import Journal


def main(kills: int, workers: int, seed: int, curvature: bool) -> dict:
    """Kill `kills` workers, `workers` of which share a folder at any time."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    model, loss, x, y = CASES[3].make(0)
    objective, test = Objective(model, loss, (x, y)), Objective(model, loss, (x[:7], y[:7]))
    options = {"grid": (9, 8) if curvature else (21, 20), "test": test, "curvature": curvature}
    objective.preflight()
    whole = plane(objective, **options)
    counter = mmap.mmap(-1, 8)  # shared with the workers: points begun
    count(counter)
    found = {"kills": 0, "folders": 0, "equal": 0, "same_json": 0, "begun": 0, "points": 0, "most_lost": 0, "problems": 0}
    slowest = 0.5 if curvature else 0.12
    while found["kills"] < kills:
        with tempfile.TemporaryDirectory() as folder:
            alive: list[int] = []
            killed = 0
            while True:
                while len(alive) < workers:
                    alive.append(worker(objective, options, folder, counter))
                time.sleep(rng.uniform(0, slowest))
                victim = rng.choice(alive)
                done, _ = os.waitpid(victim, os.WNOHANG)
                if done:
                    break
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                alive.remove(victim)
                killed += 1
            for pid in alive:
                if pid != done:
                    os.waitpid(pid, 0)
            again = plane(objective, run=folder, **options)
            found["folders"] += 1
            found["kills"] += killed
            found["equal"] += all(
                np.array_equal(a, b) for kind in ("values", "stderr", "paired", "status")
                for a, b in zip(getattr(whole, kind).values(), getattr(again, kind).values(), strict=True)
            )  # fmt: skip
            found["same_json"] += json.dumps(whole.to_json()) == json.dumps(again.to_json())
            points = whole.values["loss"].size * (1 + curvature)
            begun = struct.unpack("q", counter[:8])[0]
            counter[:8] = struct.pack("q", 0)
            found["begun"] += begun
            found["points"] += points
            # Points done twice: at most one for each kill, and, at the very end, those that two workers did at once.
            found["most_lost"] = max(found["most_lost"], begun - points - killed)
            found["problems"] += len(Journal(Path(folder) / "journal", digest_of(folder)).problems)
    return found


def worker(objective: Objective, options: dict, folder: str, counter: mmap.mmap) -> int:
    """A process that goes on with the surface in `folder`."""
    pid = os.fork()
    if pid == 0:
        try:
            plane(objective, run=folder, **options)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return pid


def count(counter: mmap.mmap) -> None:
    """Let every point that is begun add one to the counter. With several workers a rare increment may be lost."""
    for kind in (measurement.Losses, measurement.Extremes):

        def counted(self, number, call=kind.__call__):  # fmt: skip
            counter[:8] = struct.pack("q", struct.unpack("q", counter[:8])[0] + 1)
            return call(self, number)

        kind.__call__ = counted


def digest_of(folder: str) -> str:
    """The run that the segments say they belong to."""
    first = next((Path(folder) / "journal").glob("*.jsonl")).read_text().splitlines()[0]
    return json.loads(first.partition(" ")[2])["open"]


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["curvature"])))
