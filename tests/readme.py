"""Runs what README.md and docs/*.md show, several pages at once, on the checkpoints that `make demo` left in demo/.

It runs the lines that begin with `$` in blocks marked `console`, and the blocks of Python of a page as one program, from a
copy of the repository's root of its own, and says how many seconds each took. Before that, the generated tables must be those of
the program; `--write` renews them.
"""

import argparse
import os
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
    # Most of a command's time is its start, on one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return 1 if sum(pool.map(failures, pages())) else 0


def failures(page: Path) -> int:
    """How many of the programs of a page fail, run one after another in a copy of the repository of their own."""
    programs = [(line, line) for line in commands(page)]
    python = blocks(page, "python")
    if python:
        programs.append((f"Python of {page.relative_to(ROOT)}", "python page.py"))
    if not programs:
        return 0
    failed = 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        shutil.copytree(ROOT, work, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", "runs"))
        (work / "page.py").write_text("\n".join(python))
        for name, line in programs:
            begun = time.perf_counter()
            done = subprocess.run(line, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
            seconds = time.perf_counter() - begun
            told = f"{'ok  ' if done.returncode == 0 else 'FAIL'} {seconds:5.0f} s  {name}"
            if done.returncode:
                told += f"\n{done.stdout[-2000:]} {done.stderr[-2000:]}"
                failed += 1
            print(told, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
