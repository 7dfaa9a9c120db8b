import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from aggmask import doctor
from aggmask.diagnosis import structure
from tests.data.make_coco import circle, make_coco
from tests.nasty import pictures
from tests.nasty.annotations import CASES, FILE, GOOD, file, other
from tests.runs import command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("data of mine") / "coco")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; (exit status, what it said)."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command(monkeypatch, capsys, doctor, *arguments)


def place(folder, data: bytes) -> list[str]:
    """An annotation file and its only image, as words of the command."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pictures.scene().save(folder / "images" / "a.jpg")
    (folder / "file.json").write_bytes(data)
    return [f"data.train.annotations={folder}/file.json", f"data.train.images={folder}/images"]


def test_a_sound_data_set_ends_with_0(root, run):
    status, said = run(f"data.root={root}")
    assert status == 0, said
    assert "FAULT" not in said
    assert "8 images, 22 annotations, 3 categories" in said
    for name in ("train", "val"):
        assert f"{name}: {root}" in said


def test_faults_end_with_1_and_a_copy_without_them_with_0(run, tmp_path):
    words = place(tmp_path / "mine", file(other(image_id=77), other(id=12, bbox=[1, 2]), other(id=13)))
    status, said = run(*words, "fix=out here/copy.json")
    assert status == 1
    assert "annotation 11 belongs to image 77" in said
    assert "annotations[2]" in said
    assert "out here/copy.json (1 of 1 images and 2 of 4 annotations are in it)" in said
    copy = tmp_path / "out here" / "copy.json"
    assert [a["id"] for a in json.loads(copy.read_text())["annotations"]] == [10, 13]
    status, said = run(f"data.train.annotations={copy}", words[1])
    assert status == 0, said
    status, said = run(*words, f"fix={copy}")
    assert status == 2
    assert "stays as it is" in said


def test_a_copy_without_any_object_is_told(run, tmp_path):
    status, said = run(*place(tmp_path / "mine", file(categories=[{"id": 1}])), "fix=copy.json")
    assert status == 1
    assert "1 of 1 images and 0 of 1 annotations are in it. No object is left: mend the faults" in said
    _, said = run(*place(tmp_path / "mine", file(annotations=[])), "fix=none.json")
    assert "0 of 0 annotations are in it)" in said


def test_what_training_refuses_is_a_fault(run, tmp_path):
    words = [*place(tmp_path / "mine", file(annotations=[{**GOOD, "iscrowd": 1}])), "html=null"]
    status, said = run(*words)
    assert status == 1
    assert "1 of 1 annotations are crowds" in said
    assert run(*words, "data.skip_empty=false")[0] == 0
    assert run(*(word.replace("data.train", "data.val") for word in words))[0] == 0


def test_masks_that_an_exporter_marked_as_crowds_are_learned_from_a_copy(run, tmp_path):
    masks = [{**a, "bbox": None} for a in json.loads(CASES["each mask a crowd"].data)["annotations"] if "iscrowd" in a]
    words = place(tmp_path / "mine", file(annotations=masks))
    status, said = run(*words, "fix=copy.json", "html=null")
    assert status == 1
    assert "there is no object with a mask to learn from" in said
    assert "5 of 5 annotations: each RLE and no polygon is one" in said
    status, said = run(f"data.train.annotations={tmp_path}/copy.json", words[1], "html=null")
    assert status == 0, said
    assert "of 5 objects in 1 of 1 images" in said


def test_a_file_to_evaluate_on_lists_the_categories_that_are_trained_on(run, tmp_path):
    words = place(tmp_path / "one", file())
    two = file(other(category_id=2), categories=[*FILE["categories"], {"id": 2, "name": "dog"}])
    others = place(tmp_path / "two", two)
    for train, val, expected in ((others, words, 1), (words, others, 0)):
        status, said = run(*train, *(word.replace("data.train", "data.val") for word in val), "html=null")
        assert status == expected
        assert (f"category 2 ('dog') of {tmp_path}/two/file.json" in said) == bool(expected)


def test_a_size_that_is_missing_is_read_from_the_image(run, tmp_path):
    words = place(tmp_path / "mine", file(images=[{"id": 5, "file_name": "a.jpg"}]))
    status, said = run(*words, "fix=copy.json")
    assert status == 1
    assert "'a.jpg' is 20 x 30" in said
    image = json.loads((tmp_path / "copy.json").read_text())["images"][0]
    assert (image["height"], image["width"]) == (20, 30)


def test_exif_is_read_as_told(run, tmp_path):
    words = place(tmp_path / "mine", file(images=[{"id": 5, "file_name": "a.jpg"}]))
    (tmp_path / "mine" / "images" / "a.jpg").write_bytes(pictures.only_tagged(6))
    assert "'a.jpg' is 30 x 20" in run(*words, "html=null")[1]
    assert "'a.jpg' is 20 x 30" in run(*words, "html=null", "data.exif=ignore")[1]
    status, said = run(*words, "data.exif=no")
    assert status == 2
    assert "data.exif=no: must be auto or apply or ignore" in said


@pytest.mark.parametrize("data", [b"", b'{"images": [', b"[1, 2]"])
def test_no_annotation_file_at_all_is_a_fault(run, tmp_path, data):
    status, said = run(*place(tmp_path / "mine", data))
    assert status == 1
    assert "file.json" in said
    assert run(*place(tmp_path / "mine", data), "fix=copy.json")[0] == 2


def test_one_too_large_for_the_memory_is_not_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "free_bytes", lambda: 600)
    status, said = run(*place(tmp_path / "mine", file()))
    assert status == 1
    assert "do not fit into memory" in said
    assert "GB are free" in said


def test_nothing_to_look_at_ends_with_2(run, root, tmp_path):
    for words in (
        [f"data.root={tmp_path}/nowhere"],
        [f"data.root={root}", "split=test"],
        [f"data.root={root}", "fix=copy.json"],  # two files, one copy
        [f"data.root={root}", "exampels=3"],
        [f"data.root={root}", "data.short_sides=3"],
        [f"data.train.annotations={root}/nowhere.json"],
    ):
        status, said = run(*words)
        assert status == 2, (words, said)


def test_splits_and_numbers_of_examples(root, run):
    status, said = run(f"data.root={root}", "split=val", "examples=2")
    assert status == 0
    assert "train: " not in said
    assert "... and 4 more" in said


def test_the_embedded_data_set_draws_itself(run, tmp_path):
    words = ["experiment=demo", "data.prepare.train_images=4", "data.prepare.val_images=2", "html=null"]
    status, said = run(*words)
    assert status == 0, said
    assert "train: datasets/shapes/" in said
    assert "val: datasets/shapes/" in said
    assert "4 images, " in said


def test_images_are_looked_at_unless_told_otherwise(run, tmp_path):
    pictures.write(tmp_path / "mine", lambda picture: picture.kind)
    words = [f"data.train.annotations={tmp_path}/mine/file.json", f"data.train.images={tmp_path}/mine/images"]
    status, said = run(*words, "examples=20")
    assert status == 1
    for name, picture in pictures.pictures().items():
        assert not picture.kind or name in said
    assert run(*words, "check_images=false")[0] == 0
    status, said = run(words[0], "check_images=false")
    assert status == 1
    assert "there is no folder or zip of images" in said


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, tmp_path):
    words = place(
        tmp_path / "mine", file(categories=[{"id": 1, "name": "cat\x1b[2J"}, {"id": 2, "name": "\x1b]0;x\a"}])
    )
    _, said = run(*words)
    assert "\x1b" not in said
    assert "\\x1b]0;x" in said


def crowded(folder):
    """Images with twelve discs in each quarter, many more than coarse grids can tell apart."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for id in range(1, 5):
        images.append({"id": id, "file_name": f"{id}.png", "height": 96, "width": 96})
        Image.new("RGB", (96, 96), "navy").save(folder / "images" / f"{id}.png")
        for x, y in rng.uniform(8, 88, (60, 2)):
            polygon = circle(x, y, 5, 12).ravel().tolist()
            annotations.append({"id": len(annotations), "image_id": id, "category_id": 1, "segmentation": [polygon]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "<b>disc</b>"}]}
    (folder / "file.json").write_text(json.dumps(content))
    return [f"data.train.annotations={folder}/file.json", f"data.train.images={folder}/images"]


def lost(said: str) -> tuple[float, float]:
    """Shares of objects that are never learned: now, and with the proposal."""
    now = re.search(r"(\d+\.\d)% of the objects are never learned", said)
    then = re.search(r"leave (\d+\.\d)%|data set \((\d+\.\d)%\)", said)
    return float(now[1]), float(then[1] or then[2])


def test_proposed_words_work_when_pasted(run, tmp_path):
    words = [*crowded(tmp_path / "crowd"), "experiment=demo"]
    status, said = run(*words)
    assert status == 0, said
    now, then = lost(said)
    assert then < now - 5
    proposed = [line.strip().strip("'") for line in said.splitlines() if re.match(r"    '?(data|model)\.\w+=", line)]
    assert len(proposed) == 4
    status, said = run(*words, *proposed)
    assert status == 0
    assert lost(said) == (then, then)
    assert "the experiment's grids will do" in said


def test_each_word_about_cells_does_something(run, tmp_path):
    words = [*crowded(tmp_path / "crowd"), "experiment=demo", "html=null"]
    plain = run(*words)[1]
    assert "of 240 objects in 4 of 4 images" in plain
    assert "of 120 objects in 2 of 4 images" in run(*words, "coverage_images=2")[1]
    assert "cells of" not in run(*words, "coverage_images=0")[1]
    assert lost(run(*words, "data.short_side=192", "data.long_side=192")[1]) != lost(plain)
    assert lost(run(*words, "assigner.center_fraction=0.9")[1]) != lost(plain)
    assert not list(tmp_path.glob("*.html"))


def test_the_page_is_one_file_with_pictures_and_without_anything_to_run(run, tmp_path):
    words = [*crowded(tmp_path / "crowd"), "experiment=demo", "html=here/page.html"]
    run(*words)
    page = (tmp_path / "here" / "page.html").read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert np.asarray(image.convert("RGB")).reshape(-1, 3).std(0).max() > 10  # objects on plain navy
    assert "&lt;b&gt;disc&lt;/b&gt;" in page
    for text in ("<b>", "<script", "http://", "https://", "<link"):
        assert text not in page
    assert "never learned" in page
    assert "# @package _global_" in page
    status, said = run(*words[:-1], f"html={words[0].partition('=')[2]}/page.html")
    assert status == 2
    assert "cannot be written" in said
