"""The house: imports go one way, modules stay short, the command line starts light, and nothing is left open."""

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "landscape"
MODULES = sorted(PACKAGE.rglob("*.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
LAYERS = [contract for contract in CONTRACTS["contracts"] if contract["type"] == "layers"]

# Names of modules and folders that stand in several places on purpose. A command, the result that it prints and the figure of
# that result have one name, and so have a result and the function that computes it.
MIRRORED = {
    "breakdown": {"results/spectra", "report/figures"},
    "certificate": {"results", "report/figures"},
    "compare": {"comparison", "cli/commands"},
    "comparison": {".", "results/compared"},
    "information": {"results", "report/figures", "cli/commands"},
    "measures": {".", "report/figures"},
    "objective": {".", "objective"},
    "over_training": {"results", "report", "cli"},
    "reparam": {".", "cli/commands"},
    "report": {".", "cli/commands"},
    "running": {"measures", "surfaces"},
    "sharpness": {"results", "cli/commands"},
    "spectra": {".", "results"},
    "spectrum": {"results/spectra", "report/figures", "cli/commands"},
    "stationarity": {"results", "measures/running"},
    "sweep": {"results/compared", "cli/commands"},
    "surfaces": {".", "results", "report", "cli"},
}


def test_imports_go_one_way():
    linter = pytest.importorskip("importlinter.cli")
    assert linter is not None
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_import_contract_has_no_exception():
    assert not [key for contract in [CONTRACTS, *CONTRACTS["contracts"]] for key in contract if "ignore" in key]


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: contract["name"])
def test_a_contract_has_a_place_for_every_module(contract):
    named = {name.strip().partition(".")[0] for layer in contract["layers"] for name in layer.split("|")}
    for container in contract["containers"]:
        assert named == children(ROOT.joinpath(*container.split(".")))


def children(folder: Path) -> set[str]:
    """Names of the modules and packages right inside a package."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return modules | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_a_wing_without_a_place_in_the_contract_is_noticed(tmp_path):
    (tmp_path / "wing").mkdir()
    for path in ("__init__.py", "errors.py", "wing/__init__.py", "wing/inside.py"):
        (tmp_path / path).touch()
    (tmp_path / "leftover").mkdir()  # no package: nothing but compiled files of another day
    assert children(tmp_path) == {"errors", "wing"}


def test_the_top_of_the_package_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 8  # __init__ and __main__ among them


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_folder_is_seen_at_a_glance(folder):
    most = 16 if folder.name == "commands" else 14  # __init__ among them; of commands each has its own
    assert len(list(folder.glob("*.py"))) <= most
    assert folder == PACKAGE or (folder / "__init__.py").exists(), "every folder says in a line what it holds"


def test_one_name_means_one_thing():
    found: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        named = path.parent if path.stem == "__init__" else path.with_suffix("")
        if named != PACKAGE and named.name != "__main__":
            found[named.name].add(named.parent.relative_to(PACKAGE).as_posix())
    assert {name: folders for name, folders in found.items() if len(folders) > 1} == MIRRORED


def test_a_name_that_is_imported_late_is_no_module():
    """Importing a module sets it as an attribute of its package: a function of the same name would be hidden by it."""
    for init in PACKAGE.rglob("__init__.py"):
        late = re.findall(r'^    "(\w+)": "', init.read_text(), re.MULTILINE) if "def __getattr__" in init.read_text() else []
        beside = {path.stem for path in init.parent.iterdir()}
        assert not beside & set(late), init


def test_results_know_their_drawings_by_one_table():
    texts = {path.name: path.read_text() for path in (PACKAGE / "results").rglob("*.py")}
    assert [name for name, text in texts.items() if "landscape.report" in text] == ["drawing.py"]
    assert [name for name, text in texts.items() if "import_module" in text or "__import__" in text] == ["drawing.py"]


def test_every_drawing_in_the_table_is_there():
    import importlib

    from landscape import results
    from landscape.results import drawing

    for kind, forms in drawing._DRAWINGS.items():
        assert hasattr(results, kind.partition(".")[0])
        for module, function in forms.values():
            assert callable(getattr(importlib.import_module(module), function))


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
