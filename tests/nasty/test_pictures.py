"""Of each nasty picture, the pixels and the mask agree, or the file is named."""

import json

import numpy as np
import pytest
from PIL import Image

from aggmask.data.coco import CocoInstances
from aggmask.data.index import AnnotationIndex
from aggmask.data.packing import pack
from aggmask.data.storage import open_storage
from aggmask.data.transforms import Resize
from aggmask.diagnosis.pictures import examine_pictures
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from aggmask.errors import UserError
from tests.nasty.pictures import pictures, scene, sixteen_bits, write

NAMES = list(pictures())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def examination(root):
    examination = examine((root / "file.json").read_bytes(), "file.json")
    examine_pictures(examination, open_storage(root / "images"), workers=2)
    return examination


@pytest.fixture(scope="module")
def data(root):
    index, storage = AnnotationIndex.open(root / "file.json"), open_storage(root / "images")
    return CocoInstances(index, storage, Resize((20,), 40000), training=True)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_and_mask_agree_or_the_file_is_named(name, data):
    picture, place = pictures()[name], NAMES.index(name)
    if picture.kind in ("unreadable", "wrong-size"):
        with pytest.raises(UserError) as caught:
            data[place]
        assert name in str(caught.value)
        assert picture.kind == "wrong-size" or picture.evidence in str(caught.value)
        return
    pixels, truth = data.original(place + 1)
    assert pixels.shape == (*picture.size, 3)
    np.testing.assert_array_equal(pixels.min(-1) > 127, truth.masks[0].numpy())
    batch = data[place]  # the same, as the network sees it: a cell of a stride of 4 is white or not
    white = batch.pixels[0].float().amin(0) > 127
    height, width = (side // 4 * 4 for side in white.shape)
    cells = white[:height, :width].unfold(0, 4, 4).unfold(1, 4, 4).float().mean((2, 3)) >= 0.5
    mask = batch.objects[0].masks[4][0][: height // 4, : width // 4].bool()
    assert (cells == mask).float().mean() > 0.97
    assert mask.any() == cells.any()


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_finds_just_that(name, examination):
    picture, where = pictures()[name], f"image {NAMES.index(name) + 1} ({name!r})"
    found = [f for f in examination.findings.found if f.where == where and f.kind != "odd-name"]
    assert [f.kind for f in found] == ([picture.kind] if picture.kind else [])
    assert all(picture.evidence in f.text for f in found)


def test_a_clean_copy_leaves_the_bad_ones_out(examination):
    bad = {name for name, picture in pictures().items() if picture.kind in ("unreadable", "wrong-size")}
    content = json.loads(repaired(examination))
    assert {image["file_name"] for image in content["images"]} == set(NAMES) - bad
    assert {a["image_id"] for a in content["annotations"]} == {image["id"] for image in content["images"]}
    assert len(pack(repaired(examination), "copy.json")[0]["ids"]) == len(NAMES) - len(bad)


def test_missing_files_and_names_that_lead_out(root, tmp_path):
    content = json.loads((root / "file.json").read_text())
    lost = ["gone.jpg", "x" * 300 + ".jpg"]
    names = [*lost, "../file.json", str(root / "images" / "rgb.jpg"), "a/../../file.json", "..\\file.json"]
    for image, name in zip(content["images"], names, strict=False):
        image["file_name"] = name
    (root / "images" / "link.jpg").symlink_to(root / "file.json")
    content["images"][len(names)]["file_name"] = "link.jpg"
    examination = examine(json.dumps(content).encode(), "file.json")
    examine_pictures(examination, open_storage(root / "images"))
    kinds = {f.where: f.kind for f in examination.findings.found}
    for id, name in enumerate([*names, "link.jpg"], start=1):
        assert kinds[f"image {id} ({name!r})"] == ("missing" if name in lost else "outside-folder")


def test_pictures_of_twelve_bits_are_found_among_all(tmp_path):
    (tmp_path / "images").mkdir()
    records = [{"id": k, "file_name": f"{k}.png", "height": 20, "width": 30} for k in (1, 2)]
    content = {"images": records, "categories": []}

    def found(*highest, **options):
        for k, high in enumerate(highest, start=1):
            (tmp_path / "images" / f"{k}.png").write_bytes(sixteen_bits(high))
        examination = examine(json.dumps(content).encode(), "file.json")
        examine_pictures(examination, open_storage(tmp_path / "images"), **options)
        return examination.findings.of("too-dark")

    (finding,) = found(2000, 4095)
    assert finding.where == "'2.png'"
    assert "4095 of 65535" in finding.text
    assert "data.value_range" in finding.text
    assert found(2000, 4095, value_range=(0, 4095)) == []
    assert found(2000, 60000) == []  # one of them is dark, the data set is not


@pytest.mark.parametrize(
    ("exif", "kinds"),
    [
        ("auto", {"turned_3.jpg": "turned", "stored_6.jpg": "stored-frame"}),
        ("apply", {"stored_6.jpg": "wrong-size"}),
        ("ignore", {"turned_6.jpg": "wrong-size", "turned_8.jpg": "wrong-size"}),
    ],
)
def test_exif_tags_are_held_against_the_sizes_as_told(exif, kinds, root):
    examination = examine((root / "file.json").read_bytes(), "file.json")
    examine_pictures(examination, open_storage(root / "images"), exif=exif)
    tagged = ("turned_3.jpg", "turned_6.jpg", "turned_8.jpg", "stored_6.jpg")
    places = {f"image {NAMES.index(name) + 1} ({name!r})": name for name in tagged}
    found = {places[f.where]: f for f in examination.findings.found if f.where in places}
    assert {name: finding.kind for name, finding in found.items()} == kinds
    assert exif == "auto" or all(f"data.exif={exif} of EXIF" in finding.text for finding in found.values())


def test_names_that_are_spelled_otherwise_are_mended(tmp_path):
    (tmp_path / "imgs").mkdir()
    names = {"b.jpg": "B.JPG", "imgs/c.jpg": "c.jpg", "d.jpg": "D.jpg", "D.jpg": "D.jpg"}
    for name in set(names.values()):
        scene().save(tmp_path / "imgs" / name)
    records = [{"id": k, "file_name": name, "height": 20, "width": 30} for k, name in enumerate(names)]
    examination = examine(json.dumps({"images": records, "categories": []}).encode(), "file.json")
    examine_pictures(examination, open_storage(tmp_path / "imgs"))
    assert len(examination.findings.of("near-name")) == 3
    assert "has 'B.JPG'" in examination.findings.of("near-name")[0].text
    copy = [image["file_name"] for image in json.loads(repaired(examination))["images"]]
    assert copy == ["B.JPG", "c.jpg", "D.jpg"]  # the third is that of the fourth, too


def test_pictures_of_no_known_scale_stay_in_a_clean_copy(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((20, 30), 4000, np.float32)).save(tmp_path / "images" / "a.tif")
    content = {"images": [{"id": 1, "file_name": "a.tif", "height": 20, "width": 30}], "categories": []}
    for value_range, kinds in ((None, ["no-scale"]), ((0, 4000), [])):
        examination = examine(json.dumps(content).encode(), "file.json")
        examine_pictures(examination, open_storage(tmp_path / "images"), value_range=value_range)
        seen = [finding.kind for finding in examination.findings.found if finding.kind in ("no-scale", "unreadable")]
        assert seen == kinds
        assert json.loads(repaired(examination))["images"] == content["images"]
