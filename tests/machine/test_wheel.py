"""A wheel built from this tree works in an environment that has nothing else."""

import os
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
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("landscape_sharpness-*.whl")
    inside = set(ZipFile(wheel).namelist())
    files = [p for p in (ROOT / "landscape").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    source = {str(p.relative_to(ROOT)) for p in files}
    assert source <= inside
    assert not [name for name in inside if name.startswith("tests/")]
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
