import shutil

import pytest

from aggmask.errors import UserError
from aggmask.reporting.places import validation_data
from aggmask.reporting.runs import read_runs


def _with_root(sweep, root: str, runs=range(6)):
    for run in runs:
        file = sweep / str(run) / "config.yaml"
        lines = [f"  root: {root}" if line.startswith("  root:") else line for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines))


def test_relative_places_start_in_the_working_folder_or_above_the_sweep(sweep, tmp_path, monkeypatch):
    place = validation_data(read_runs(sweep), sweep).val.annotations
    shutil.copytree(place.removesuffix("annotations/instances_val2017.json"), tmp_path / "work" / "data" / "own")
    _with_root(sweep, "data/own")
    monkeypatch.chdir(tmp_path / "work")
    found = validation_data(read_runs(sweep), sweep).val.annotations
    assert found == str(tmp_path / "work" / "data" / "own" / "annotations" / "instances_val2017.json")
    moved = shutil.move(sweep, tmp_path / "work" / "sweep")
    monkeypatch.chdir("/")
    assert validation_data(read_runs(moved), tmp_path / "work" / "sweep").val.annotations == found


def test_data_that_moved_can_be_named(sweep, tmp_path):
    right = validation_data(read_runs(sweep), sweep).val.annotations.removesuffix("/annotations/instances_val2017.json")
    _with_root(sweep, "/nowhere")
    with pytest.raises(
        UserError, match=r"/nowhere/annotations/instances_val2017.json: .* say where the data set is: root="
    ):
        validation_data(read_runs(sweep), sweep)
    assert validation_data(read_runs(sweep), sweep, right).val.images == f"{right}/val2017"


def test_runs_of_different_data_are_not_compared(sweep):
    _with_root(sweep, "/elsewhere", runs=[3])
    with pytest.raises(UserError, match=r"different validation annotations:\n(.|\n)*/elsewhere/annotations"):
        validation_data(read_runs(sweep), sweep)
