"""Which cells, exactly."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aggmask.errors import UserError
from aggmask.structures import GridLevel, Objects
from aggmask.supervision.assign import Assigner
from tests.oracle import dense_targets
from tests.small import disc, make_head, make_levels_of, make_objects, make_pyramid, random_objects

SQUARE = (64, 64)
LEVEL = GridLevel(stride=8, grid=8, mask_grid=8, min_size=1, max_size=1000)  # cells of 8 x 8 pixels
BACKGROUND = 3


def targets_of(*images: Objects, level=LEVEL, canvas=SQUARE, **options):
    return Assigner(**options).targets([(level, 4)], BACKGROUND, images, canvas)[0]


def discs(*rows: tuple[float, float, float, int], canvas=SQUARE) -> Objects:
    """(x, y, radius, label) rows."""
    return make_objects([disc(row[:2], row[2], canvas) for row in rows], [row[3] for row in rows], canvas)


def test_a_small_disc_claims_exactly_cell_18():
    objects = discs((20, 20, 3, 1))
    found = targets_of(objects)
    assert found.cells.index.tolist() == [18]
    assert found.cells.image.tolist() == [0]
    assert found.labels.shape == (1, 8, 8)
    assert found.labels[0, 2, 2] == 1
    assert (found.labels == BACKGROUND).sum() == 63
    assert torch.equal(found.masks, objects.masks[4].float())


def test_the_center_region_reaches_into_neighbor_cells():
    # Box 21 wide: the region is 2.1 px to each side of 23, so 20.9..25.1 crosses the border at 24 in both directions.
    assert targets_of(discs((23, 23, 10, 1))).cells.index.tolist() == [18, 19, 26, 27]
    assert targets_of(discs((23, 20, 10, 1))).cells.index.tolist() == [18, 19]
    assert targets_of(discs((23, 23, 10, 1)), center_fraction=0.05).cells.index.tolist() == [18]


def test_cells_are_clipped_to_one_around_the_center():
    wide = make_objects([torch.ones(64, 64, dtype=torch.bool)], [0], SQUARE)
    found = targets_of(wide, center_fraction=0.9)
    # The center of 0..63 is 31.5: cell 3.
    assert found.cells.index.tolist() == [row * 8 + column for row in (2, 3, 4) for column in (2, 3, 4)]


def test_cells_are_clipped_to_the_grid():
    found = targets_of(discs((1, 62, 10, 2)), center_fraction=1.0)
    assert found.cells.index.tolist() == [row * 8 + column for row in (6, 7) for column in (0, 1)]


def test_rows_and_columns_follow_height_and_width():
    canvas = (32, 128)
    found = targets_of(discs((100, 10, 3, 0), canvas=canvas), canvas=canvas)
    assert found.cells.index.tolist() == [(10 // 4) * 8 + 100 // 16]
    assert found.masks.shape == (1, 8, 32)


def test_a_later_object_overwrites_an_earlier_one():
    first, second = (20, 20, 3, 0), (21, 21, 5, 2)
    found = targets_of(discs(first, second))
    assert found.cells.index.tolist() == [18]
    assert found.labels[0, 2, 2] == 2
    assert torch.equal(found.masks[found.which[0]], discs(second).masks[4][0].float())
    turned = targets_of(discs(second, first))
    assert turned.labels[0, 2, 2] == 0
    assert torch.equal(turned.masks[turned.which[0]], discs(first).masks[4][0].float())


def test_a_shared_cell_may_learn_the_mask_of_every_object_that_claims_it():
    first, second, alone = (20, 20, 3, 0), (21, 21, 5, 2), (50, 50, 3, 1)
    objects = discs(first, alone, second)
    found = targets_of(objects, shared_cells="all")
    assert found.cells.index.tolist() == [18, 18, 54]
    assert found.labels[0, 2, 2] == 2
    assert torch.equal(found.masks[found.which], objects.masks[4][[0, 2, 1]].float())


def test_unknown_ways_with_shared_cells_are_refused():
    with pytest.raises(UserError, match="shared_cells=first: must be last or all"):
        Assigner(shared_cells="first")


def test_a_skipped_object_overwrites_nothing():
    objects = discs((20, 20, 3, 0), (20, 20, 5, 2))
    objects.areas[1] = 9
    assert targets_of(objects).labels[0, 2, 2] == 0


@pytest.mark.parametrize(("area", "min_area", "claims"), [(9, 10, 0), (10, 10, 1), (0, 1, 0), (1, 1, 1), (0, 0, 1)])
def test_objects_under_10_pixels_are_skipped(area, min_area, claims):
    objects = discs((20, 20, 3, 0))
    objects.areas[0] = area
    assert len(targets_of(objects, min_area=min_area).cells) == claims


def test_scale_ranges_hold_both_ends():
    objects = discs((20, 20, 3, 0))
    objects.boxes[0] = torch.tensor([10.0, 10.0, 26.0, 19.0])  # sqrt(16 * 9) = 12
    for low, high, claims in ((12, 20, 1), (1, 12, 1), (12.5, 20, 0), (1, 11.5, 0)):
        level = GridLevel(8, 8, 8, low, high)
        assert bool(len(targets_of(objects, level=level).cells)) == bool(claims)


def test_an_object_in_two_ranges_is_claimed_on_two_levels():
    sizes = ((1, 20), (10, 40), (30, 60), (50, 90), (80, 2048))
    head = make_head(make_levels_of(sizes=sizes))
    found = Assigner()(head(make_pyramid(1)), [discs((40, 30, 7, 0), canvas=(64, 96))], (64, 96))
    assert [len(t.cells) > 0 for t in found] == [True, True, False, False, False]
    assert [t.masks.shape[1:] for t in found] == [(16, 24), (16, 24), (8, 12), (4, 6), (4, 6)]


def test_cells_are_listed_by_image_then_by_cell():
    found = targets_of(discs((50, 50, 3, 0), (5, 5, 3, 1)), discs(), discs((20, 20, 3, 2)))
    assert found.cells.image.tolist() == [0, 0, 2]
    assert found.cells.index.tolist() == [0, 54, 18]
    assert [found.labels[0, 0, 0], found.labels[0, 6, 6], found.labels[2, 2, 2]] == [1, 0, 2]
    for mask, (x, y) in zip(found.masks[found.which], ((5, 5), (50, 50), (20, 20)), strict=True):
        assert mask[y // 4, x // 4] == 1


def test_the_cells_of_an_object_share_one_bitmap():
    wide = make_objects([torch.ones(64, 64, dtype=torch.bool)], [0], SQUARE)
    found = targets_of(discs((4, 4, 3, 1)), wide, center_fraction=0.9)
    assert found.masks.shape == (2, 16, 16)
    assert found.which.tolist() == [0, *[1] * 9]
    part = found.part(1, 2)
    assert part.which.tolist() == [1] * 9
    assert part.masks is found.masks, "not copied"


def test_no_objects_at_all():
    found = targets_of(discs(), discs())
    assert len(found.cells) == 0
    assert found.masks.shape == (0, 16, 16)
    assert found.which.shape == (0,)
    assert (found.labels == BACKGROUND).all()
    assert found.labels.shape == (2, 8, 8)


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_the_loops(seed):
    canvas = (96, 160)
    images = [random_objects(n, canvas=canvas, seed=10 * seed + n) for n in (9, 0, 14)]
    for level, stride in (
        (GridLevel(8, 12, 12, 1, 40), 4),
        (GridLevel(16, 7, 7, 10, 80), 8),
        (GridLevel(32, 5, 3, 20, 999), 16),
    ):
        (found,) = Assigner().targets([(level, stride)], BACKGROUND, images, canvas)
        expected = dense_targets(level, stride, BACKGROUND, images, canvas, min_area=10)
        image, cell = expected.positive.nonzero(as_tuple=True)
        assert len(cell) > 5
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.cells.image, image)
        assert torch.equal(found.cells.index, cell)
        assert torch.equal(found.masks[found.which], expected.masks[image, cell].float())


class Calls(TorchDispatchMode):
    """How many operators were called: on a GPU, each takes a launch."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_no_more_operators_are_called_for_more_images():
    counts = []
    for batch in (2, 20):
        images = [discs((20, 20, 3, 1), (40, 30, 9, 2)) for _ in range(batch)]
        with Calls() as calls:
            targets_of(*images)
        counts.append(calls.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_senseless_center_fractions_are_refused(fraction):
    with pytest.raises(UserError, match="center_fraction"):
        Assigner(center_fraction=fraction)
