"""Pictures: the right pixels change, labels stay inside, objects stay apart."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from aggmask.data.decode import decode_image
from aggmask.drawing import overlay
from aggmask.drawing.overlay import OPACITY, PALETTE, draw
from aggmask.structures import Category, Instances

GRAY = 120
CATEGORIES = (Category(1, "cat"), Category(9, "a rather long category name"))


def gray(height, width):
    return np.full((height, width, 3), GRAY, dtype=np.uint8)


def objects(size, boxes, scores=None, labels=None):
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    scores = torch.tensor(scores if scores is not None else [0.9] * len(boxes))
    return Instances(masks, scores, torch.tensor(labels or [0] * len(boxes), dtype=torch.long), CATEGORIES)


def changed(picture):
    return (np.array(picture) != GRAY).any(2)


def test_fill_is_half_transparent_and_the_contour_is_not():
    picture = np.array(draw(gray(500, 600), objects((500, 600), [(200, 150, 400, 350)])))
    assert picture.shape == (500, 600, 3)
    color = np.array(PALETTE[0])
    assert (picture[250, 300] == (GRAY * (1 - OPACITY) + color * OPACITY + 0.5).astype(int)).all()
    for edge in ((150, 300), (349, 300), (250, 200), (250, 399)):
        assert (picture[edge] == color).all()
        assert (picture[250, 199] == color // 4).all()
    assert (picture[380:, :] == GRAY).all()
    assert (picture[:, 410:] == GRAY).all()
    label = picture[130:148, 205:215].reshape(-1, 3)
    assert (label == color).all(1).any()


def test_the_label_stands_at_its_object():
    rows, columns = np.nonzero(changed(draw(gray(500, 600), objects((500, 600), [(200, 250, 400, 350)]))))
    assert (rows.min(), columns.min()) > (215, 198)
    assert (rows.max(), columns.max()) == (350, 400)  # the dark line outside


def test_kinds_of_images_give_the_same_picture():
    array = np.random.default_rng(0).integers(0, 255, (490, 500, 3)).astype(np.uint8)
    found = objects((490, 500), [(20, 30, 90, 200)])
    pictures = [draw(i, found) for i in (array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1))]
    assert len({picture.tobytes() for picture in pictures}) == 1
    before = array.copy()
    draw(array, found)
    assert (array == before).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_pictures_are_drawn_as_the_network_sees_them(dtype, tmp_path):
    values = np.random.default_rng(0).integers(0, 40000, (490, 500))
    deep = Image.fromarray((values / 65535 if dtype == np.float32 else values).astype(dtype))
    deep.save(tmp_path / "deep.tiff")
    found = objects((490, 500), [(20, 30, 90, 200)])
    expected = draw(decode_image((tmp_path / "deep.tiff").read_bytes(), "deep.tiff"), found)
    assert len(np.unique(np.array(expected)[300:])) > 100
    for image in (deep, tmp_path / "deep.tiff"):
        assert draw(image, found).tobytes() == expected.tobytes()


def test_deep_pictures_without_a_scale_are_refused():
    with pytest.raises(ValueError, match="cannot draw on a picture of mode F, give it in RGB"):
        draw(Image.fromarray(np.full((490, 500), 300, np.float32)), objects((490, 500), []))


def test_a_rotated_photo_is_drawn_as_a_viewer_shows_it():
    photo = Image.fromarray(gray(500, 600))
    photo.getexif()[0x0112] = 6
    assert draw(photo, objects((600, 500), [(20, 30, 90, 200)])).size == (500, 600)


def test_low_scores_and_surplus_objects_are_left_out():
    boxes = [(10, 40, 100, 100), (210, 40, 300, 100), (410, 40, 500, 100)]
    found = objects((200, 600), boxes, [0.4, 0.2, 0.8])
    places = ([70, 70, 70], [50, 250, 450])
    assert changed(draw(gray(200, 600), found))[places].tolist() == [True, False, True]
    assert changed(draw(gray(200, 600), found, score_threshold=0.1))[places].all()
    assert changed(draw(gray(200, 600), found, max_objects=1))[places].tolist() == [False, False, True]
    assert not changed(draw(gray(200, 600), found, score_threshold=0.81)).any()


def test_no_object_is_the_image():
    assert not changed(draw(gray(500, 600), Instances.empty((500, 600)))).any()
    assert not changed(draw(gray(500, 600), objects((500, 600), [(5, 5, 5, 5)]))).any()


def test_the_covered_contour_is_seen_and_the_best_lies_on_top():
    found = objects((500, 600), [(100, 100, 400, 400), (300, 200, 500, 300)], [0.5, 0.9])
    picture = np.array(draw(gray(500, 600), found))
    below, above = np.array(PALETTE[1]), np.array(PALETTE[0])
    assert (picture[260, 399] == below).all()  # right edge of the lower object, inside of the upper one
    assert (picture[260, 300] == above).all()
    mixed = (GRAY * (1 - OPACITY) + below * OPACITY) * (1 - OPACITY) + above * OPACITY
    assert picture[260, 350] == pytest.approx(mixed, abs=1.5)


def test_touching_objects_differ_in_color():
    # The palette repeats after its end: the object there would get the color of its neighbor, the first one.
    boxes = [(i * 20, 0, i * 20 + 10, 10) for i in range(len(PALETTE))] + [(10, 0, 15, 10)]
    colors = overlay._colors(boxes)
    assert len(set(colors[:-1])) == len(PALETTE)
    assert colors[-1] == PALETTE[1]
    far = overlay._colors([*boxes[:-1], (1000, 0, 1010, 10)])
    assert far[-1] == PALETTE[0]


def test_what_is_the_same_object_has_the_same_color_in_another_picture():
    boxes = [(20, 20, 200, 200), (300, 20, 480, 200), (20, 300, 200, 480)]
    truth = objects((500, 500), boxes)
    found = objects((500, 500), [tuple(x + 5 for x in box) for box in reversed(boxes)], [0.9, 0.8, 0.7])
    first, second, alone = (np.array(p) for p in (
        draw(gray(500, 500), truth), draw(gray(500, 500), found, like=truth), draw(gray(500, 500), found)
    ))  # fmt: skip
    places = [((y1 + y2) // 2, (x1 + x2) // 2) for x1, y1, x2, y2 in boxes]
    assert all((first[place] == second[place]).all() for place in places)
    assert (alone[places[0]] != second[places[0]]).any()


def test_more_objects_in_one_place_than_colors():
    assert len(set(overlay._colors([(0, 0, 9, 9)] * 40))) == len(PALETTE)


def test_the_palette_is_distinct():
    assert min(np.abs(np.subtract(a, b)).sum() for a, b in itertools.combinations(PALETTE, 2)) > 90


def test_strokes_follow_the_size_of_the_picture():
    def stroke(height, width):
        box = (width // 4, height // 4, width // 2, height // 2)
        row = np.array(draw(gray(height, width), objects((height, width), [box])))[3 * height // 8]
        return int((row[: 3 * width // 8] == PALETTE[0]).all(1).sum())

    assert 1 <= stroke(480, 640) < stroke(1920, 2560) == pytest.approx(4 * stroke(480, 640), abs=2)


def test_a_tiny_picture_is_enlarged_by_a_whole_factor():
    picture = draw(gray(60, 96), objects((60, 96), [(30, 20, 60, 40)]), score_threshold=0.0)
    assert picture.size == (96 * 5, 60 * 5)
    assert np.array(picture)[100, 200].tolist() == list(PALETTE[0])  # first row of the object: 20 * 5
    speck = draw(gray(1, 1), objects((1, 1), [(0, 0, 1, 1)]))
    assert speck.size == (480, 480)


def test_ground_truth_has_no_score_in_its_label():
    def width(score):
        return changed(draw(gray(500, 600), objects((500, 600), [(300, 200, 310, 210)], [score]))).any(0).sum()

    assert width(1.0) < width(0.99)


def test_a_name_of_several_lines_is_written_in_one():
    def drawn(name):
        found = objects((500, 600), [(300, 200, 310, 210)])
        return draw(gray(500, 600), replace(found, categories=[Category(1, name)]))

    assert drawn("fat\n cat\r\n").tobytes() == drawn("fat cat").tobytes()


def test_names_both_sizes_when_they_differ():
    with pytest.raises(ValueError, match=r"\(20, 30\) on an image of \(30, 20\)"):
        draw(gray(30, 20), objects((20, 30), []))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), torch.zeros(4, 4, 3, dtype=torch.uint8)]
)
def test_refuses_other_arrays(image):
    with pytest.raises(ValueError, match="cannot draw on"):
        draw(image, Instances.empty((4, 4)))


def test_a_path_is_drawn_like_its_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    none = Instances.empty((40, 60))
    assert np.array_equal(draw(str(tmp_path / "a.png"), none), draw(pixels, none))
