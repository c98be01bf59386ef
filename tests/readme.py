"""Runs what README.md and docs/*.md show, page after page, on the checkpoints that `make demo` left in demo/.

It runs the lines that begin with `$` in blocks marked `console`, and the blocks of Python of a page as one program, from a copy
of the repository's root, and says how many seconds each took. Before that, the generated tables must be those of the program;
`--write` renews them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
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
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        shutil.copytree(ROOT, work, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache"))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "MPLBACKEND": "agg"}
        for page in pages():
            programs = [(line, line) for line in commands(page)]
            if python := blocks(page, "python"):
                (work / "page.py").write_text("\n".join(python))
                programs.append((f"Python of {page.relative_to(ROOT)}", "python page.py"))
            for name, line in programs:
                begun = time.perf_counter()
                done = subprocess.run(line, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
                seconds = time.perf_counter() - begun
                print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {seconds:5.0f} s  {name}", flush=True)
                if done.returncode:
                    print(done.stdout[-2000:], done.stderr[-2000:])
                    failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
