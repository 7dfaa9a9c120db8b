"""Notebooks run from top to bottom, on a checkpoint made here."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_evaluate import eager_checkpoint

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    root, checkpoint = eager_checkpoint(tmp_path)
    monkeypatch.setenv("AGGMASK_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("AGGMASK_PICTURES", str(root / "val2017"))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()
    drawn = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(drawn) >= 4
