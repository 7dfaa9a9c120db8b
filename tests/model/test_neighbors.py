"""Windows on the mask grid, by hand."""

import logging

import pytest
import torch

from aggmask.errors import UserError
from aggmask.model.aggregation.neighbors import neighbors, settle_window
from aggmask.structures import GridLevel
from tests.oracle import neighbor_list

EQUAL = GridLevel(8, 6, 6, 1, 2)
HALF = GridLevel(8, 9, 5, 1, 2)  # cell (i, j) lies at (i / 2, j / 2)


def at(level: GridLevel, row: int, column: int, window: int) -> list[list[int]]:
    return neighbors(torch.tensor([row * level.grid + column]), level, window)[0][0].tolist()


def test_window_1_is_the_nearest_cell():
    assert at(EQUAL, 2, 3, 1) == [[2, 3]]
    assert at(HALF, 4, 6, 1) == [[2, 3]]


def test_halves_go_to_the_even_cell():
    assert [at(HALF, row, 0, 1)[0][0] for row in (1, 3, 5, 7)] == [0, 2, 2, 4]


def test_window_5_is_up_left_center_right_down():
    assert at(EQUAL, 2, 3, 5) == [[1, 3], [2, 2], [2, 3], [2, 4], [3, 3]]


def test_window_9_is_row_major():
    assert at(EQUAL, 2, 3, 9) == [[y, x] for y in (1, 2, 3) for x in (2, 3, 4)]


def test_window_25_is_row_major():
    assert at(EQUAL, 2, 3, 25) == [[y, x] for y in range(5) for x in range(1, 6)]


def test_window_4_is_the_enclosing_square_in_the_published_order():
    assert at(HALF, 3, 5, 4) == [[1, 3], [2, 3], [2, 2], [1, 2]]
    assert at(HALF, 2, 5, 4) == [[1, 3], [1, 3], [1, 2], [1, 2]], "on a grid line two corners fall together"


def test_border_cells_repeat_their_neighbors():
    assert at(EQUAL, 0, 0, 5) == [[0, 0], [0, 0], [0, 0], [0, 1], [1, 0]]
    assert at(EQUAL, 5, 5, 9)[-1] == [5, 5]


@pytest.mark.parametrize("window", [1, 5, 9, 25])
@pytest.mark.parametrize("level", [EQUAL, HALF, GridLevel(8, 20, 16, 1, 2)])
def test_the_nearest_one_is_the_middle_of_the_window_at_the_border_too(level, window):
    # Where others are clipped to the same place; with learned offsets they leave it, each on its own way.
    assert (neighbors(torch.arange(level.grid**2), level, window)[1] == window // 2).all()


@pytest.mark.parametrize("window", [1, 4, 5, 9, 25])
@pytest.mark.parametrize(("grid", "mask_grid"), [(6, 6), (9, 5), (40, 20), (50, 40), (20, 16), (24, 8), (7, 1), (1, 1)])
def test_windows_equal_the_loops_and_stay_on_the_grid(grid, mask_grid, window):
    # (20, 16): in single precision the last cell's place is just beyond 15, and its upper corner would be 16.
    level = GridLevel(8, grid, mask_grid, 1, 2)
    positions, nearest = neighbors(torch.arange(grid**2), level, window)
    assert positions.shape == (grid**2, window, 2)
    assert positions.min() >= 0
    assert positions.max() < mask_grid
    expected = [neighbor_list(cell // grid, cell % grid, grid, mask_grid, window) for cell in range(grid**2)]
    assert (positions[..., 0] * mask_grid + positions[..., 1]).tolist() == expected
    alone = neighbors(torch.arange(grid**2), level, 1)[0][:, 0]
    assert torch.equal(positions[torch.arange(grid**2), nearest], alone)


def test_no_cells_have_no_neighbors():
    positions, nearest = neighbors(torch.zeros(0, dtype=torch.long), EQUAL, 5)
    assert positions.shape == (0, 5, 2)
    assert nearest.shape == (0,)


def test_window_4_needs_coarser_mask_grids_everywhere(caplog):
    assert settle_window(4, [HALF, HALF]) == 4
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert settle_window(4, [HALF, EQUAL]) == 5
    assert "level 1 has T = S = 6" in caplog.text
    assert settle_window(9, [EQUAL]) == 9


def test_unknown_windows_are_refused():
    with pytest.raises(UserError, match=r"window=7: there are windows 1, 4, 5, 9, 25"):
        settle_window(7, [EQUAL])
