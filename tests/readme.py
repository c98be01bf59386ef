"""Runs every command that README.md shows, holds its tables against `--help`, registry and results; `--write` renews them.

Commands are the lines that begin with `$ landscape`, `$ python` or a number of threads in blocks marked `console`. They run
from a copy of the repository's root, in order, on the checkpoints that `make demo` left in demo/.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def command_table() -> str:
    """Every command and the first line of its help."""
    import typer

    from landscape.cli.app import all_commands

    group = typer.main.get_command(all_commands())
    lines = ["| command | does |", "|---|---|"]
    for name, command in group.commands.items():
        lines.append(f"| `landscape {name}` | {command.help.strip().splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def measure_table() -> str:
    """Every registered measure, from the registry."""
    from landscape.measures import MEASURES

    lines = ["| measure | definition | unit | rescaling that cannot move it | reference |", "|---|---|---|---|---|"]
    for m in MEASURES.values():
        unmoved = ", ".join(f"{s}-wise" for s in m.invariant_to) or "–"
        if m.only_if is not None:
            unmoved += f" ({m.only_if.__doc__.partition(',')[0].replace('Whether', 'if')})"
        summary = m.summary.replace("|", "\\|")
        name = f"**`{m.name}`**" if m.default else f"`{m.name}`"
        lines.append(f"| {name} | {summary} | {m.unit} | {unmoved} | {m.reference} |")
    return "\n".join(lines) + "\n"


def result(name: str) -> Callable[[], str]:
    """What a benchmark wrote."""
    return lambda: (ROOT / "benchmarks" / "results" / name).read_text()


TABLES = {
    "commands": command_table,
    "measures": measure_table,
    "benchmarks": result("peers.md"),
    "profile": result("profile.md"),
}


def renewed(text: str) -> str:
    """The README with its tables made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by tests/readme.py -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + table() + end + after
    return text


def commands(text: str) -> list[str]:
    """Shell lines that the README shows."""
    out = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        joined = block.replace("\\\n", " ")
        out += [line[2:] for line in joined.splitlines() if line.startswith(("$ landscape", "$ python", "$ OMP_NUM_THREADS"))]
    return out


def main() -> int:
    """0 if everything that the README shows holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="renew the tables")
    arguments = parser.parse_args()
    text = README.read_text()
    fresh = renewed(text)
    if arguments.write:
        README.write_text(fresh)
        return 0
    if fresh != text:
        print("README.md: its tables are out of date; run: python tests/readme.py --write")
        return 1
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        if not (ROOT / name).is_file():
            print(f"README.md: no picture at {name}")
            return 1
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        shutil.copytree(ROOT, work, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache"))
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        for line in commands(text):
            done = subprocess.run(line, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
            print(f"{'ok  ' if done.returncode == 0 else 'FAIL'}  {line}", flush=True)
            if done.returncode:
                print(done.stdout[-2000:], done.stderr[-2000:])
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
