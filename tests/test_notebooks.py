"""Notebooks run from top to bottom, on a checkpoint and a sweep made here."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.data.make_coco import make_coco
from tests.runs import small_run
from tests.test_evaluate import eager_checkpoint

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def _checkpoint(folder: Path) -> dict[str, str]:
    root, checkpoint = eager_checkpoint(folder)
    return {"AGGMASK_CHECKPOINT": str(checkpoint), "AGGMASK_PICTURES": str(root / "val2017")}


def _sweep(folder: Path) -> dict[str, str]:
    """Two variants, trained for two steps each, whose every cell is a candidate."""
    root = make_coco(folder / "coco", images=4, val_images=4)
    settings = ["decoder.score_threshold=0.001", "decoder.keep_threshold=0", "trainer.log_every_n_steps=1"]
    for number, window in enumerate((1, 5)):
        small_run("solo_r50_agg", root, folder / "sweep" / str(number), f"model.aggregation.window={window}", *settings)
    return {"AGGMASK_SWEEP": str(folder / "sweep")}


MAKE = {"01_inside_a_prediction": _checkpoint, "02_ablation": _sweep}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    for name, value in MAKE[path.stem](tmp_path).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([data for data in shown if "image/png" in data]) >= 4
    assert not [data for data in shown if "image/png" not in data and "<Figure" in data.get("text/plain", "")]
