"""Cells and pixels, by hand."""

import pytest
import torch

from aggmask.errors import UserError
from aggmask.geometry.grid import (
    category_grid_position,
    cell_of,
    coordinate_channels,
    make_levels,
    mask_grid_position,
    points_of,
    rows_and_columns,
)
from aggmask.structures import GridLevel
from tests.small import PUBLISHED_ROWS


def test_published_levels():
    levels = make_levels(PUBLISHED_ROWS)
    assert [v.grid for v in levels] == [v.mask_grid for v in levels] == [40, 36, 24, 16, 12]
    assert levels[2] == GridLevel(stride=16, grid=24, mask_grid=24, min_size=96, max_size=384)


@pytest.mark.parametrize(("stride", "expected"), [(2, [20, 18, 12, 8, 6]), (3, [14, 12, 8, 6, 4])])
def test_interpolation_makes_mask_grids_coarser(stride, expected):
    levels = make_levels(PUBLISHED_ROWS, stride)
    assert [v.mask_grid for v in levels] == expected
    assert [v.grid for v in levels] == [40, 36, 24, 16, 12]


def test_larger_category_grids():
    rows = [dict(PUBLISHED_ROWS[0], grid=50, mask_grid=40)]
    assert (make_levels(rows)[0].grid, make_levels(rows)[0].mask_grid) == (50, 40)


def test_a_mask_grid_larger_than_the_category_grid_is_refused():
    rows = [dict(row) for row in PUBLISHED_ROWS]
    rows[3]["mask_grid"] = 20
    with pytest.raises(UserError, match="level 3: mask grid 20 is larger than category grid 16; make it 16 or less"):
        make_levels(rows)


def test_senseless_ranges_and_strides_are_refused():
    with pytest.raises(UserError, match=r"level 0: object sizes 96\.\.1 are not a range"):
        make_levels([dict(PUBLISHED_ROWS[0], min_size=96, max_size=1)])
    for stride in (0, 1.5):
        with pytest.raises(UserError, match=rf"interpolation.stride={stride}: must be a whole number"):
            make_levels(PUBLISHED_ROWS, stride)
    with pytest.raises(UserError, match=r"stride 64; must be one of \(8, 16, 32\)"):  # no canvas is a multiple of it
        make_levels([dict(PUBLISHED_ROWS[0], stride=64)])
    for key in ("grid", "mask_grid"):
        for cells in (0, -3, 4.5):
            with pytest.raises(UserError, match=f"level 0: {key} {cells}; must be a whole number of cells"):
                make_levels([dict(PUBLISHED_ROWS[0], **{key: cells})])


def test_rows_and_columns():
    assert rows_and_columns(torch.tensor([0, 7, 18]), 8).tolist() == [[0, 0], [0, 7], [2, 2]]


def test_the_corners_of_both_grids_coincide():
    level = GridLevel(8, 9, 5, 1, 2)
    places = mask_grid_position(torch.tensor([0, 8, 72, 80, 10]), level)
    assert places.tolist() == [[0, 0], [0, 4], [4, 0], [4, 4], [0.5, 0.5]]
    assert mask_grid_position(torch.tensor([0]), GridLevel(8, 1, 1, 1, 2)).tolist() == [[0, 0]]


@pytest.mark.parametrize(("grid", "mask_grid"), [(9, 5), (8, 8), (7, 3)])
def test_places_on_the_mask_grid_return_to_the_category_grid(grid, mask_grid):
    index = torch.arange(grid**2)
    level = GridLevel(8, grid, mask_grid, 1, 2)
    back = category_grid_position(mask_grid_position(index, level), level)
    torch.testing.assert_close(back, rows_and_columns(index, grid).float())


def test_the_only_cell_of_a_mask_grid_lies_in_the_middle():
    assert category_grid_position(torch.tensor([[0, 0]]), GridLevel(8, 5, 1, 1, 2)).tolist() == [[2, 2]]


def test_points_of_cells():
    places = torch.tensor([[0, 0], [3, 1], [-0.5, 1.5]])
    assert points_of(places, 4, (40, 80)).tolist() == [[10, 5], [30, 35], [40, 0]]  # x, then y


def test_cell_of_rounds_as_the_published_floor_division():
    borders = [float(20 * k) for k in range(-2, 42)]
    expected = [int((c / 800) // (1 / 40)) for c in borders]
    assert cell_of(torch.tensor(borders, dtype=torch.double), 800, 40).tolist() == expected
    assert expected != [c // 20 for c in borders], "just on a border the rounding shows"
    inside = [c + 7.5 for c in borders]
    assert cell_of(torch.tensor(inside), 800, 40).tolist() == [int(c // 20) for c in inside]


def test_coordinate_channels_are_x_then_y_from_minus_1_to_1():
    found = coordinate_channels(torch.zeros(2, 1, 3, 5))
    assert found.shape == (2, 3, 3, 5)
    assert found[1, 1].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3
    assert found[1, 2].tolist() == [[-1] * 5, [0] * 5, [1] * 5]
