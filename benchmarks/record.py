"""What is written down: one row a measurement, and the machine that it was made on."""

import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Timed

ROOT = Path(__file__).resolve().parent.parent
OURS = "landscape"
STATUS = Path("/proc/self/status")


@dataclass
class Row:
    """One candidate's median for one piece of work.

    Attributes:
        part, network, work, tool: what was done, on what, by whom.
        seconds: every single time.
        median, low, high: of the times, with the quartiles; in seconds, or in `unit`.
        unit: "s", "gradients" (of the unmodified network on the same data) or "points/s".
        cut: stopped at its limit: `median` is a lower bound.
        failure: why there is no number.
        note: how the candidate was run, where that needs saying.
        facts: what came out: residuals, products, probes, values, deviations from the reference.
    """

    part: str
    network: str
    work: str
    tool: str
    seconds: list[float] = field(default_factory=list)
    median: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "s"
    cut: bool = False
    failure: str | None = None
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain; numbers that are not finite become null."""
        return _plain(asdict(self))


def row(
    part: str, network: str, work: str, tool: str, timed: Timed, *, per: float | list[float] = 1.0, unit: str = "s",
    rate: bool = False, note: str = "", **facts: Any,
) -> Row:  # fmt: skip
    """A row from times: divided by `per`, which may be one number a round, or `per` divided by them for a rate."""
    known = timed.seconds and (timed.cut or timed.failure is None)
    low = median = high = None
    if known:
        scaled = np.divide(per, timed.seconds) if rate else np.divide(timed.seconds, per)
        low, median, high = np.quantile(scaled, [0.25, 0.5, 0.75]).tolist()
    return Row(part, network, work, tool, timed.seconds, median, low, high, unit, timed.cut, timed.failure, note, facts)


def absent(part: str, network: str, tool: str, reason: str) -> Row:
    """The row of a tool that could not be run."""
    return Row(part, network, "", tool, failure=reason)


def machine() -> dict[str, Any]:
    """Processor, threads and memory."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor(info: str | None = None) -> str:
    """The processor by its name and model number, where generations of it share the name: "Intel Xeon, model 207".

    `info` is what /proc/cpuinfo says; systems without it have the name alone.
    """
    file = Path("/proc/cpuinfo")
    text = info if info is not None else file.read_text() if file.exists() else ""
    known = dict(re.findall(r"^(model|model name)\s*:\s*(.*)$", text, re.MULTILINE))
    name = known.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    short = " ".join(re.sub(r"\((?:R|TM)\)|@.*|\b(?:Processor|CPU)\b", " ", name).split())
    return f"{short}, model {known['model']}" if "model" in known and not re.search(r"\d", short) else short


def file_name(processor: str) -> str:
    """A processor's name as that of its results: "Intel Xeon, model 207" is intel-xeon-model-207."""
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-")


def commit() -> str | None:
    """The commit that is measured, with a + if files differ from it; None outside a repository."""
    asked = ["git", "describe", "--always", "--dirty=+", "--abbrev=7"]
    try:
        return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write(document: dict[str, Any], path: Path) -> None:
    """A benchmark's document as JSON; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(document), indent=1, allow_nan=False) + "\n")


def memory_status(name: str) -> int:
    """Bytes that Linux tells of this process: VmRSS now, VmHWM at most."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) << 10


def peak_memory() -> int:
    """Most bytes of this process that were in memory at once.

    From /proc, where there is one: what getrusage tells there counts the peak of the process that started this one, too.
    """
    if STATUS.exists():
        return memory_status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def version(distribution: str) -> str | None:
    """The installed version of a package; None if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
