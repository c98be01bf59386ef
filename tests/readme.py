"""Runs what README.md and docs/*.md show, several pages at once, on the checkpoints that `make demo` left in demo/.

It runs the lines that begin with `$` in blocks marked `console`, and the blocks of Python of a page as one program, in a copy
of the repository, and says how many seconds each took. A page that uses what another one made comes after it. Before that,
the generated tables must be those of the program; `--write` renews them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pages import ROOT, blocks, commands, pages, renewed


def main() -> int:
    """0 if everything that the pages show holds."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    failed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        work = Path(folder) / "work"
        shutil.copytree(ROOT, work, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache"))
        # Most of a command's time is its start, on one core.
        for wave in waves():
            failed += sum(pool.map(lambda page: failures(page, work), wave))
    return 1 if failed else 0


def waves() -> list[list[Path]]:
    """The pages that use only what they made themselves, and the pages that use what others made."""
    made = {page: {word for line in commands(page) for word in re.findall(r"--out (\S+)", line)} for page in pages()}

    def waits(page: Path) -> bool:
        words = {word for line in commands(page) for word in line.split()}
        return any(words & (outputs - made[page]) for outputs in made.values())

    return [[page for page in pages() if waits(page) is last] for last in (False, True)]


def failures(page: Path, work: Path) -> int:
    """How many of the programs of a page fail, run one after another."""
    programs = [(line, line) for line in commands(page)]
    if python := blocks(page, "python"):
        (work / f"{page.parent.name}-{page.stem}.py").write_text("\n".join(python))
        programs.append((f"Python of {page.relative_to(ROOT)}", f"python {page.parent.name}-{page.stem}.py"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    failed = 0
    for name, line in programs:
        begun = time.perf_counter()
        done = subprocess.run(line, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
        told = f"{'ok  ' if done.returncode == 0 else 'FAIL'} {time.perf_counter() - begun:5.0f} s  {name}"
        if done.returncode:
            told += f"\n{done.stdout[-2000:]} {done.stderr[-2000:]}"
            failed += 1
        print(told, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
