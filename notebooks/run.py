"""Runs the notebooks and keeps their outputs: `python notebooks/run.py [NAME...]` (extra `notebooks`)."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent

for path in sorted(FOLDER.glob("*.ipynb")):
    if sys.argv[1:] and path.stem not in sys.argv[1:]:
        continue
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}, record_timing=False).execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if {"text/html", "image/png"} & set(output.get("data", {})):
            output.data.pop("text/plain", None)  # the repr, which no page shows beside these
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    print(path.name)
