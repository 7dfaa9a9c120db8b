import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

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


def test_data_that_the_runs_named_is_found_by_its_names(sweep, tmp_path):
    """The annotations alone, then the images too; where neither is there, the usual places."""
    place = Path(validation_data(read_runs(sweep), sweep).val.annotations)
    for run in range(6):
        file = sweep / str(run) / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["data"]["val"] = {"annotations": "/a/val.json", "images": "/a/pics"}
        file.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"/a/val.json: .* say where the data set is: root="):
        validation_data(read_runs(sweep), sweep)
    assert validation_data(read_runs(sweep), sweep, str(place.parents[1])).val.annotations == str(place)
    root = tmp_path / "now"
    root.mkdir()
    shutil.copy(place, root / "val.json")
    assert validation_data(read_runs(sweep), sweep, str(root)).val.annotations == str(root / "val.json")
    shutil.copytree(place.parents[1] / "val2017", root / "pics")
    found = validation_data(read_runs(sweep), sweep, str(root))
    assert found.val.images == str(root / "pics")
    assert len(found.val_dataset) == 6


def test_runs_of_different_data_are_not_compared(sweep):
    _with_root(sweep, "/elsewhere", runs=[3])
    with pytest.raises(UserError, match=r"different validation annotations:\n(.|\n)*/elsewhere/annotations"):
        validation_data(read_runs(sweep), sweep)


def test_pictures_are_read_as_the_runs_read_them(sweep, tmp_path):
    """A picture of 12 bits, white in its upper left corner as stored, with a tag that turns it upside down."""
    place = validation_data(read_runs(sweep), sweep).val.annotations.removesuffix("annotations/instances_val2017.json")
    root, outside = shutil.copytree(place, tmp_path / "own"), tmp_path / "outside.png"
    values = np.zeros((48, 64), np.uint16)
    values[:10, :20] = 4095
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(values).save(outside, exif=exif)
    (root / "val2017" / "00000.jpg").unlink()
    (root / "val2017" / "00000.jpg").symlink_to(outside)
    words = {"exif": "ignore", "value_range": 4095, "allow_outside": True}
    file = sweep / "0" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**config, "data": {**config["data"], **words}}))
    pixels, _ = validation_data(read_runs(sweep), sweep, str(root)).val_dataset.original(1005)
    assert np.array_equal(pixels, np.repeat((values[..., None] / 4095 * 255).astype(np.uint8), 3, axis=2))


def test_runs_of_older_versions_and_of_other_machines_are_read_too(sweep):
    file = sweep / "0" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    data = {"root": config["data"]["root"], "cache_dir": "/proc/sys"}  # where nothing can be written
    file.write_text(yaml.safe_dump({**config, "data": data}))
    assert len(validation_data(read_runs(sweep), sweep).val_dataset) == 6
