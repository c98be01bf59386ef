"""The house: imports go one way, modules stay short, the command line starts light, and nothing is left open."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "landscape").rglob("*.py"))


def test_imports_go_one_way():
    linter = pytest.importorskip("importlinter.cli")
    assert linter is not None
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_one_short_idea(module):
    text = module.read_text()
    assert text.count("\n") <= 320, "two ideas"
    assert not text or text.startswith(('"""', 'r"""', "__version__")), "begins with what it is for"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", text)


@pytest.mark.parametrize("line", ["import landscape", "import landscape.cli.app"])
def test_starting_imports_nothing_heavy(line):
    heavy = "{'torch', 'torchvision', 'matplotlib', 'scipy', 'sklearn', 'numpy', 'plotly'}"
    code = f"import sys; {line}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_drawing_knows_no_torch():
    code = "import sys, landscape.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_public_names_are_there():
    import landscape

    for name in landscape.__all__:
        assert getattr(landscape, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = landscape.nothing
