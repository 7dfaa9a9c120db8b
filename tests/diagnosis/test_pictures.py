import json

from aggmask.data.storage import open_storage
from aggmask.diagnosis.pictures import examine_pictures
from aggmask.diagnosis.repair import repaired
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import FILE, GOOD, file, other
from tests.nasty.pictures import scene

IMAGE = FILE["images"][0]


def looked_at(folder, *annotations, images):
    """(kinds of findings and how many, the clean copy) of images for a folder in which there is `a.jpg` alone."""
    scene().save(folder / "a.jpg")
    examination = examine(file(*annotations, images=images), "file.json")
    examine_pictures(examination, open_storage(folder))
    return examination.findings.counts(), json.loads(repaired(examination))


def test_images_whose_names_become_one_are_one_image_with_the_objects_of_both(tmp_path):
    names = {5: "A.JPG", 6: "a.jpg", 7: "A.jpg"}
    images = [{**IMAGE, "id": id, "file_name": name} for id, name in names.items()]
    counts, copy = looked_at(tmp_path, other(image_id=6), {**GOOD, "id": 12, "image_id": 7}, images=images)
    assert counts == {"near-name": 2, "repeated-file": 2, "repeated-annotation": 1}
    assert [(image["id"], image["file_name"]) for image in copy["images"]] == [(6, "a.jpg")]
    assert [(a["id"], a["image_id"]) for a in copy["annotations"]] == [(10, 6), (11, 6)]


def test_an_image_of_the_right_name_and_the_wrong_size_does_not_keep_another_from_its_file(tmp_path):
    images = [{**IMAGE, "file_name": "A.JPG"}, {**IMAGE, "id": 6, "height": 40, "width": 60}]
    counts, copy = looked_at(tmp_path, other(image_id=6), images=images)
    assert counts == {"near-name": 1, "wrong-size": 1}
    assert [(image["id"], image["file_name"]) for image in copy["images"]] == [(5, "a.jpg")]
    assert [a["id"] for a in copy["annotations"]] == [10]
