"""The notebooks: their outputs are kept, and their code runs."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
every_notebook = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)


@every_notebook
def test_outputs_are_kept_small_and_of_no_machine(path):
    text = path.read_text()
    assert len(text) < 500_000
    assert not re.search(r"/(?:home|root|tmp|Users|work)/", text)
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run it from the top"
    assert code[-1]["outputs"]
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])


def test_a_notebook_is_a_page_of_the_site(tmp_path):
    spec = importlib.util.spec_from_file_location("notebook_pages", FOLDER.parent / "docs" / "notebook_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs = [
        {"output_type": "stream", "text": ["1\n", "2\n"]},
        {"output_type": "execute_result", "data": {"text/html": ["<style>\nth {}\n</style>\n", "<table>\n\n</table>"]}},
        {"output_type": "display_data", "data": {"image/png": "AQID\n"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["x = 1\n", "y = 2"], "outputs": outputs},
    ]
    (tmp_path / "one.ipynb").write_text(json.dumps({"cells": cells}))
    text, pictures = module.page(tmp_path / "one.ipynb")
    assert pictures == {"one-1.png": b"\x01\x02\x03"}
    assert text.split("\n\n") == [
        "# Title",
        "[The notebook itself](one.ipynb)",
        "```python\nx = 1\ny = 2\n```",
        "```text\n1\n2\n```",
        '<div class="printed">\n<table>\n</table>\n</div>',
        "![What the code above draws](one-1.png)\n",
    ]


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs(path):
    nbclient = pytest.importorskip("nbclient", reason="the extra notebooks is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="the extra notebooks is not installed")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
