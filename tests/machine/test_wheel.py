"""A wheel built from this tree works in an environment that has nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent.parent


def done(*command: object, cwd: Path, **extra: str) -> str:
    """Output of a command that must succeed, without this test's own paths."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))} | extra
    found = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=3000)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment(tmp_path):
    """Takes minutes, most of them pip's: PyTorch is installed anew."""
    tree = tmp_path / "tree"  # a build leaves its folder in the tree, and a later one would take what lies there
    shutil.copytree(ROOT / "landscape", tree / "landscape", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    source = {str(p.relative_to(tree)) for p in (tree / "landscape").rglob("*") if p.is_file()}
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, tree, cwd=tmp_path)
    (wheel,) = tmp_path.glob("landscape_sharpness-*.whl")
    assert {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name} == source
    done(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    binaries = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    pinned = ("--constraint", ROOT / "constraints.txt")
    done(binaries / "python", "-m", "pip", "install", "--quiet", *pinned, f"{wheel}[report]", cwd=tmp_path)
    program = binaries / "landscape"
    assert "sharpness" in done(program, "--help", cwd=tmp_path, COLUMNS="200")
    done(program, "train", "digits-mlp", "--epochs", 1, "--out", "net.safetensors", cwd=tmp_path)
    assert "lambda_max" in done(
        program, "sharpness", "net.safetensors", "--measures", "lambda_max", "--samples", 64, cwd=tmp_path
    )
    done(program, "surface", "net.safetensors", "--grid", 3, "--samples", 32, "--out", "plane", cwd=tmp_path)
    done(program, "report", "plane", "--interactive", "--out", "report.html", cwd=tmp_path)
    assert 'class="turn"' in (tmp_path / "report.html").read_text()
