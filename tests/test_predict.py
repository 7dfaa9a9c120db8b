import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import aggmask
from aggmask import predict, predictor
from aggmask.drawing import overlay
from aggmask.errors import UserError
from aggmask.geometry.cropped import CroppedMasks
from aggmask.metrics.results import write
from aggmask.metrics.rle import decode
from aggmask.predictor import read_picture
from aggmask.structures import Instances
from tests.runs import command, composed
from tests.test_evaluate import eager_checkpoint

SIZE = (40, 60)  # (height, width)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Of a model that finds ten objects in every picture: to draw a hundred takes longer than to find them."""
    path = eager_checkpoint(tmp_path_factory.mktemp("trained"))[1]
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["decoder"]["max_detections"] = 10
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """The same picture in every mode that files come in."""
    folder = tmp_path_factory.mktemp("pictures of all kinds")
    ramp = np.linspace(0, 255, SIZE[1]).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (SIZE[0], 1))] * 3, -1)
    pixels[10:20, 10:20] = (250, 20, 20)
    image = Image.fromarray(pixels)
    image.convert("L").save(folder / "grey.png")
    image.convert("1").save(folder / "bits.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("RGBA").save(folder / "rgba.png")
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "moving.gif", save_all=True, append_images=[image])
    image.save(folder / "web.webp")
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by a quarter
    image.rotate(90, expand=True).save(folder / "turned.jpg", exif=exif)
    return folder


def test_every_mode_gives_an_overlay_and_results(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    arguments = [f"checkpoint={checkpoint}", f"source={pictures}", f"output={tmp_path}/out put", "score_threshold=0.1"]
    status, said = command(monkeypatch, capsys, predict, *arguments)
    assert status == 0, said
    names = {path.stem for path in pictures.iterdir()}
    assert {path.stem for path in (tmp_path / "out put").glob("*.png")} == names
    results = json.loads((tmp_path / "out put" / "results.json").read_text())
    assert {Path(row["file_name"]).stem for row in results} == names
    for row in results:
        assert row["category_id"] in (3, 7, 18)
        assert row["score"] >= 0.1
        assert tuple(row["segmentation"]["size"]) == SIZE
        mask = decode(row["segmentation"]["counts"], SIZE)
        x, y, width, height = map(int, row["bbox"])
        assert mask.sum() == mask[y : y + height, x : x + width].sum() > 0


@pytest.mark.parametrize("name", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name, checkpoint):
    with pytest.raises(UserError, match=rf"device={name}: cannot be used here \(.+\); say device=cpu, or leave it out"):
        aggmask.load(checkpoint, device=name)


@pytest.mark.parametrize("size", [{"short_side": 0}, {"long_side": -5}, {"long_side": "wide"}])
def test_a_size_without_sense_is_refused(size):
    ((name, value),) = size.items()
    with pytest.raises(UserError, match=f"{name}={value}: must be a whole number of pixels, 1 or more"):
        aggmask.load("any.ckpt", **size)


def test_patterns_single_files_and_equal_stems(checkpoint, pictures, tmp_path):
    assert len(predict.pictures(str(pictures / "*.jpg"))) == 3
    assert predict.pictures(str(pictures / "grey.png")) == [pictures / "grey.png"]
    files = [Path("a/x.jpg"), Path("b/x.png"), Path("x_2.jpg"), Path("y.jpg")]
    pairs = predict.targets(files, tmp_path)
    assert [file for file, _ in pairs] == files
    assert [target.name for _, target in pairs] == ["x.png", "x_2.png", "x_2_2.png", "y.png"]
    (tmp_path / "a [1]").mkdir()
    (tmp_path / "a [1]" / "b.png").touch()
    assert len(predict.pictures(str(tmp_path / "a [1]"))) == 1
    (tmp_path / "a [1]" / "b.png").unlink()
    (tmp_path / "frames.png").mkdir()
    with pytest.raises(UserError, match="a folder without pictures"):
        predict.pictures(str(tmp_path))
    (tmp_path / "frames.png" / "c.JFIF").touch()
    assert predict.pictures(str(tmp_path)) == [tmp_path / "frames.png" / "c.JFIF"]


def test_a_broken_picture_is_named_and_the_others_are_done(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.jpg").write_text("not a picture")
    Image.open(pictures / "grey.png").save(folder / "good.png")
    arguments = [f"checkpoint={checkpoint}", f"source={folder}", f"output={tmp_path}/out"]
    status, said = command(monkeypatch, capsys, predict, *arguments)
    assert status == 2
    assert "broken.jpg" in said
    assert (tmp_path / "out" / "good.png").is_file()


def test_folders_may_be_called_anything(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    (tmp_path / "2024").mkdir()
    Image.open(pictures / "grey.png").save(tmp_path / "2024" / "grey.png")
    shutil.copy(checkpoint, tmp_path / "née.ckpt")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    status, said = command(monkeypatch, capsys, predict, "checkpoint=~/née.ckpt", "source=2024", "output=1e3")
    assert status == 0, said
    assert (tmp_path / "1e3" / "grey.png").is_file()


def test_results_tell_of_the_overlays_that_are_there_when_it_is_interrupted(
    checkpoint, pictures, monkeypatch, capsys, tmp_path
):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.open(pictures / "grey.png").save(folder / f"{name}.png")
    read, seen = predictor.read_picture, []

    def interrupted(file, *rest):
        seen.extend([file] * isinstance(file, Path))  # not the pixels that it was read to
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(file, *rest)

    monkeypatch.setattr(predictor, "read_picture", interrupted)
    arguments = [f"checkpoint={checkpoint}", f"source={folder}", f"output={tmp_path}/out", "score_threshold=0"]
    assert command(monkeypatch, capsys, predict, *arguments)[0] == 130
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["file_name"] for row in results} == {"a.png", "b.png"}


def test_whole_masks_of_all_objects_are_never_held(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    draw, kinds = overlay.draw, []

    def drawn(pixels, found, *rest):
        kinds.append(type(found.masks))
        return draw(pixels, found, *rest)

    monkeypatch.setattr(overlay, "draw", drawn)
    arguments = [f"checkpoint={checkpoint}", f"source={pictures / 'grey.png'}", f"output={tmp_path}/out"]
    assert command(monkeypatch, capsys, predict, *arguments, "score_threshold=0")[0] == 0
    assert kinds == [CroppedMasks]


def test_no_overlay_replaces_a_picture(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    (tmp_path / "in").mkdir()
    kept = (tmp_path / "in" / "grey.png", tmp_path / "in" / "web.webp")
    for file in kept:
        file.write_bytes((pictures / file.name).read_bytes())
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for output in ("in", "link"):
        arguments = [f"checkpoint={checkpoint}", f"source={tmp_path}/in", f"output={tmp_path}/{output}"]
        status, said = command(monkeypatch, capsys, predict, *arguments)
        assert status == 2
        assert "grey.png, which is one of the pictures of source; name another folder" in said
    assert sorted((tmp_path / "in").iterdir()) == sorted(kept)
    assert all(file.read_bytes() == (pictures / file.name).read_bytes() for file in kept)


def interrupted(*given):
    raise KeyboardInterrupt


def test_what_others_wrote_is_not_replaced(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    (tmp_path / "grey.png").write_text("another picture")
    arguments = [f"checkpoint={checkpoint}", f"source={pictures}/grey.png"]
    config = predict.plain(composed(*arguments, f"output={tmp_path}/out", command="predict"))
    with monkeypatch.context() as patch:
        patch.setattr("aggmask.predict.as_results", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict.predict(config)
    assert (tmp_path / "out" / "grey.png").is_file()
    assert command(monkeypatch, capsys, predict, *arguments, f"output={tmp_path}/out")[0] == 0
    assert command(monkeypatch, capsys, predict, *arguments, f"output={tmp_path}/out")[0] == 0  # its own overlay
    with monkeypatch.context() as patch:
        patch.setattr("aggmask.drawing.overlay.draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict.predict(config)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []  # not those of the call before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").touch()
    (tmp_path / "test").mkdir()
    write([{"image_id": 1, "category_id": 1, "score": 0.5}], tmp_path / "test" / "results.json")
    (tmp_path / "nothing").mkdir()
    write([], tmp_path / "nothing" / "results.json")
    write([7], tmp_path / "nothing" / "evaluated.json")
    (tmp_path / "out" / "web.png").mkdir()
    for source, output, told in (
        ("grey.png", tmp_path, "grey.png is there, and was not written by predict"),
        ("grey.png", tmp_path / "run", "is the folder of a training"),
        ("grey.png", tmp_path / "test", "results.json is there, and was not written by predict"),  # of an evaluation
        ("grey.png", tmp_path / "nothing", "results.json is there, and was not written by predict"),
        ("web.webp", tmp_path / "out", "web.png is there, and was not written by predict"),
    ):
        arguments[1] = f"source={pictures}/{source}"
        status, said = command(monkeypatch, capsys, predict, *arguments, f"output={output}")
        assert status == 2
        assert told in said
    assert (tmp_path / "grey.png").read_text() == "another picture"


def test_an_output_that_is_no_folder_is_told(checkpoint, pictures, monkeypatch, capsys):
    arguments = [f"checkpoint={checkpoint}", f"source={pictures}/grey.png", f"output={pictures}/rgba.png"]
    status, said = command(monkeypatch, capsys, predict, *arguments)
    assert status == 2
    assert "rgba.png: cannot be written (File exists); name another folder" in said


def test_objects_below_a_score_of_three_tenths_are_left_out_unless_told_otherwise():
    given = composed("checkpoint=x", "source=x", "output=x", command="predict")
    assert given.score_threshold == 0.3


def test_a_threshold_beyond_the_scores_is_refused(checkpoint, monkeypatch, capsys):
    status, said = command(
        monkeypatch, capsys, predict, f"checkpoint={checkpoint}", "source=x", "output=y", "score_threshold=2"
    )
    assert status == 2
    assert "score_threshold=2: must be from 0 to 1" in said


def test_results_name_files_from_the_source_folder(checkpoint, pictures, monkeypatch, capsys, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes((pictures / "grey.png").read_bytes())
    for source in ("", "/*/x.png", "/**/*.png"):
        arguments = [f"checkpoint={checkpoint}", f"source={tmp_path}{source}", f"output={tmp_path}/out"]
        status, said = command(monkeypatch, capsys, predict, *arguments, "score_threshold=0.1")
        assert status == 0, said
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert {row["file_name"] for row in results} == {"a/x.png", "b/x.png"}
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("channels", [1, 4])
def test_a_picture_has_the_channels_of_the_model(channels, pictures, monkeypatch, tmp_path):
    """Opacity reaches a model that was trained with it."""
    seen = []
    backbone = SimpleNamespace(in_chans=channels)

    class Model:
        segmenter, value_range = SimpleNamespace(backbone=backbone), None

        def look(self, pixels, threshold, crop):
            seen.append(pixels)
            return Instances.empty(pixels.shape[:2])

    monkeypatch.setattr("aggmask.assembly.build.load", lambda *arguments: Model())
    image = Image.open(pictures / "rgba.png")
    image.putalpha(7)
    image.save(faint := tmp_path / "faint.png")
    keys = dict.fromkeys(("device", "short_side", "long_side")) | dict.fromkeys(("checkpoint", "source"), str(faint))
    predict.predict(keys | {"output": str(tmp_path / "out"), "score_threshold": 0.3})
    assert seen[0].shape == (*SIZE, channels)
    if channels == 4:
        assert (seen[0][..., 3] == 7).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 400), (400, 20), (500, 700)])
def test_any_size_returns_in_its_own_frame(checkpoint, size):
    model = aggmask.load(checkpoint, device="cpu")
    found = model.predict(np.zeros((*size, 3), np.uint8), score_threshold=0.0)[0]
    assert found.masks.shape == (len(found), *size)
    assert found.masks.dtype == torch.bool
    assert found.boxes.shape == (len(found), 4)
    assert len(found.names) == len(found.scores) == len(found.labels) == len(found)
    assert set(found.names) <= {"disc", "pair", "block"}


def test_every_way_to_give_a_picture_finds_the_same(checkpoint, pictures, tmp_path):
    model = aggmask.load(checkpoint, device="cpu")
    path = pictures / "web.webp"
    pixels = read_picture(path)
    ways = [path, str(path), Image.open(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1), pixels / 255.0]
    results = model.predict(ways, score_threshold=0.0)
    assert len(results[0])
    for found in results[1:]:
        assert torch.equal(found.masks, results[0].masks)
        assert torch.equal(found.scores, results[0].scores)
    single = model.predict(pixels, score_threshold=0.0)
    assert len(single) == 1
    assert torch.equal(single[0].masks, results[0].masks)
    picture = aggmask.draw(pixels, results[0], score_threshold=0.0)
    assert np.asarray(picture).std() > 0


@pytest.mark.parametrize("value", [np.zeros((2, 3, 4, 5)), np.full((4, 4, 3), 7.0), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(value):
    with pytest.raises(UserError, match="image"):
        read_picture(value)


def test_more_than_a_hundred_detections(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["decoder"].update(max_detections=300, keep_threshold=0.0)
    torch.save(content, tmp_path / "many.ckpt")
    model = aggmask.load(tmp_path / "many.ckpt", device="cpu", short_side=128, long_side=256)
    rng = np.random.default_rng(0)
    found = model.predict(rng.integers(0, 255, (128, 256, 3), dtype=np.uint8), score_threshold=0.0)[0]
    assert 100 < len(found) <= 300


def test_a_pattern_in_a_folder_s_name_is_a_pattern(tmp_path, pictures):
    for name in ("a[1]", "a1"):
        (tmp_path / name).mkdir()
        shutil.copy(pictures / "rgba.png", tmp_path / name / "x.png")
    (found,) = predict.pictures(f"{tmp_path}/a[1]/*.png")
    assert found.relative_to(predict._home(f"{tmp_path}/a[1]/*.png")).as_posix() == "a1/x.png"
    assert predict._home(f"{tmp_path}/a[1]") == tmp_path / "a[1]"
