import numpy as np
import pytest

from aggmask.data.storage import open_storage
from aggmask.data.transforms import Resize
from aggmask.diagnosis.cells import examine_cells
from aggmask.diagnosis.coverage import OUT_OF_RANGE
from aggmask.diagnosis.structure import examine, examine_file
from aggmask.structures import GridLevel
from aggmask.supervision.assign import Assigner
from tests.data.make_coco import make_coco
from tests.nasty.annotations import file, other

LEVELS = [GridLevel(8, 4, 4, 1, 20), GridLevel(8, 2, 2, 10, 30)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = make_coco(tmp_path_factory.mktemp("coco"), images=6)
    examination = examine_file(str(root / "annotations" / "instances_train2017.json"))
    storage = open_storage(root / "train2017")
    return examine_cells(examination, storage, LEVELS, Assigner(), Resize((64,), 160), 100, worst=3)


def test_groups_add_up_to_the_whole(found):
    assert found.all_images == 6
    assert len(found.population.ids) == 15  # five images with a disc, a pair and a block
    for rows in (found.by_category(), found.by_size()):
        assert sum(count for _, count, _ in rows) == 15
        totals = sum(count * shares for _, count, shares in rows)
        np.testing.assert_allclose(totals / 15, found.coverage.shares())
    lost = [shares[2:].sum() for _, _, shares in found.by_category()]
    assert lost == sorted(lost, reverse=True)
    assert {name for name, _, _ in found.by_category()} == {"disc", "pair", "block"}
    assert [level for level, *_ in found.by_level()] == LEVELS


def test_pictures_are_of_the_images_that_lose_most(found):
    lost = np.bincount(found.population.image.numpy()[found.coverage.lost], minlength=6)
    assert lost.max() > 0
    assert len(found.pictures) == min(3, (lost > 0).sum())
    ids = 5 + 10 * np.argsort(-lost, kind="stable")[:3]
    for picture, id in zip(found.pictures, ids, strict=False):
        assert picture.title.startswith(f"image {id} (")
        assert f"{lost[(id - 5) // 10]} of 3 objects" in picture.title
        assert picture.jpeg.startswith(b"\xff\xd8")


def test_objects_are_those_of_training_where_it_goes_on_and_of_a_clean_copy_where_it_stops(tmp_path):
    small = other(bbox=[15, 5, 0.5, 0.5])  # not around its mask: training believes it

    def fates(*annotations):
        (tmp_path / "file.json").write_bytes(file(*annotations))
        examination = examine_file(str(tmp_path / "file.json"))
        found = examine_cells(examination, None, LEVELS, Assigner(), Resize((20,), 160), 100)
        return found.mended, dict(zip(found.population.ids.tolist(), found.coverage.fates.tolist(), strict=True))

    mended, found = fates(small)
    assert not mended
    assert found[11] == OUT_OF_RANGE
    mended, found = fates(small, other(id=12, image_id=9))
    assert mended
    assert found[11] != OUT_OF_RANGE
    assert fates(other(bbox=[0, 0, 0, 0]))[1][11] != OUT_OF_RANGE


@pytest.mark.parametrize("more", [[], [other(id=12, image_id=9)]], ids=["the file", "a mended copy"])
def test_the_doctor_does_not_send_to_the_doctor(more, tmp_path, caplog):
    (tmp_path / "mine.json").write_bytes(file(other(ignore=1), *more))
    examination = examine_file(str(tmp_path / "mine.json"))
    assert examine_cells(examination, None, LEVELS, Assigner(), Resize((20,), 160), 100).mended == bool(more)
    assert not caplog.messages


def test_a_file_without_objects_has_no_cells():
    examination = examine(file(annotations=[]), "file.json")
    examination.findings.add("missing", "an image")  # so that a copy is read, not the file
    assert examine_cells(examination, None, LEVELS, Assigner(), Resize((64,), 160), 100) is None


def test_a_file_of_which_no_copy_can_be_made_has_no_cells():
    data = file(other(bbox=[0, 0, 1, 1], note=0), other(id=12, image_id=9)).replace(b'"note": 0', b'"note": 1e999')
    assert examine_cells(examine(data, "file.json"), None, LEVELS, Assigner(), Resize((64,), 160), 100) is None
