"""Runs what README.md and the pages in docs/ show, several pages at once.

It runs the lines that begin with `$` in blocks marked `console`, and the blocks of Python of a page as one program, in a copy
of the repository, and says how many seconds each took. A block of Python that begins with `# NAME.py` is that file. A page
that uses what another one made comes after it. Before that, the generated tables must be those of the program; `--write`
renews them.

Most pages run on the checkpoints that `make demo` left in demo/. Pages that stand alone, docs/start.md and those in folders of
docs/, are run with `--alone`, or by name: what their Python prints must be what their blocks of text show, with numbers within
2 %. A page is skipped if a library is missing that only some people have. The gallery's pages are run by docs/make_gallery.py.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pages import ROOT, begins_with, blocks, commands, is_alone, pages, renewed, written_files

# Libraries that a page may need and a user may lack.
OPTIONAL = (
    "pyhessian", "curvlinops", "hessian_eigenthings", "loss_landscapes", "lightning", "transformers", "accelerate", "peft",
    "timm", "jsonschema", "plotly", "xarray", "tensorboard", "wandb", "mlflow",
)  # fmt: skip
# Those that import torchvision: it is imported first, with our care for a build that does not fit a CPU's torch.
CAREFUL = ("torchvision", "lightning", "transformers", "peft", "timm")
WITH_CARE = "python -c 'from landscape.tasks.torchvision_import import torchvision; import runpy; runpy.run_path(\"{}\")'"
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
CLOSE = 0.02  # of a printed number: rounding to its digits, and other sums on another machine


@dataclass(frozen=True)
class Ran:
    """A command or the Python of a page: how it ended ("ok", "FAIL" or "skip"), after how many seconds, and why."""

    name: str
    outcome: str
    seconds: float
    why: str = ""


def copied(folder: Path) -> Path:
    """A copy of the repository's root in a folder, without environments, caches and what it built itself; demo/runs stays."""
    everywhere = shutil.ignore_patterns("__pycache__", ".*_cache")
    at_the_root = shutil.ignore_patterns(".venv*", ".git", "build", "site", "runs")

    def ignored(place: str, names: list[str]) -> set[str]:
        return everywhere(place, names) | (at_the_root(place, names) if Path(place) == ROOT else set())

    shutil.copytree(ROOT, folder / "work", ignore=ignored)
    return folder / "work"


def run(page: Path, work: Path) -> list[Ran]:
    """Everything that a page shows to be run, in its order; what needs a missing library is skipped."""
    for name, body in written_files(page).items():
        (work / name).write_text(body)
    programs = [(line, line) for line in commands(page)]
    if python := blocks(page, "python"):
        file = work / f"{page.parent.name}-{page.stem}.py"
        file.write_text("\n".join(python))
        careful = any(f"import {name}" in page.read_text() or f"from {name}" in page.read_text() for name in CAREFUL)
        place = 0 if begins_with(page) == "python" and is_alone(page) else len(programs)
        programs.insert(place, (_python_of(page), (WITH_CARE if careful else "python {}").format(file.name)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = []
    for name, line in programs:
        begun = time.perf_counter()
        ended = subprocess.run(line, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
        missing = re.search(r"^ModuleNotFoundError: No module named '(\w+)", ended.stderr, re.MULTILINE)
        why = "" if ended.returncode == 0 else ended.stdout[-2000:] + ended.stderr[-2000:]
        if not why and is_alone(page) and name == _python_of(page):
            why = difference("".join(blocks(page, "text")), ended.stdout)
        outcome = "FAIL" if why else "ok"
        if missing and missing[1] in OPTIONAL:
            outcome, why = "skip", f"{missing[1]} is not installed"
        done.append(Ran(name, outcome, time.perf_counter() - begun, why))
        if outcome == "skip":
            break
    return done


def waves(chosen: Sequence[Path]) -> list[list[Path]]:
    """The pages that use only what they made themselves, and the pages that use what others made."""
    made = {page: {word for line in commands(page) for word in re.findall(r"--out (\S+)", line)} for page in chosen}

    def waits(page: Path) -> bool:
        words = {word for line in commands(page) for word in line.split()}
        return any(words & (outputs - made[page]) for outputs in made.values())

    return [[page for page in chosen if waits(page) is last] for last in (False, True)]


def told(page: Path, work: Path) -> int:
    """Run a page and print how it went; the number of programs that failed."""
    found = run(page, work)
    for ran in found:
        print(f"{ran.outcome:4} {ran.seconds:5.0f} s  {ran.name}" + (f"\n{ran.why}" if ran.why else ""), flush=True)
    return sum(ran.outcome == "FAIL" for ran in found)


def _python_of(page: Path) -> str:
    """The name of a page's program in what is printed."""
    return f"Python of {page.relative_to(ROOT)}"


def difference(shown: str, printed: str) -> str:
    """How what was printed differs from what a page shows, "" if it does not: equal words, numbers within `CLOSE`."""
    if not shown:
        return ""
    ours, theirs = ([float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (shown, printed))
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (shown, printed)]
    if words[0] == words[1] and all(abs(a - b) <= CLOSE * max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True)):
        return ""
    return f"the page shows\n{shown}\nand its Python prints\n{printed}"


def main() -> int:
    """0 if everything that the pages show holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", nargs="*", type=Path, help="pages to run; default: all that run on the demo's checkpoints")
    parser.add_argument("--alone", action="store_true", help="run the pages that stand alone")
    parser.add_argument("--write", action="store_true", help="renew the tables")
    arguments = parser.parse_args()
    if arguments.write:
        for page in pages():
            page.write_text(renewed(page.read_text()))
        return 0
    stale = [str(page.relative_to(ROOT)) for page in pages() if renewed(page.read_text()) != page.read_text()]
    if stale:
        print(f"{', '.join(stale)}: the tables are out of date; run: python tests/readme.py --write")
        return 1
    asked = [page.resolve() for page in arguments.page]
    chosen = asked or [page for page in pages() if is_alone(page) == arguments.alone and page.parent.name != "gallery"]
    failed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        work = copied(Path(folder))
        # Most of a command's time is its start, on one core.
        for wave in waves(chosen):
            failed += sum(pool.map(lambda page: told(page, work), wave))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
