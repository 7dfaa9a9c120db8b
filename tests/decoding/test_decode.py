"""From scores and fields to detections, by hand."""

import pytest
import torch

from aggmask.accounting.memory import LiveBytes
from aggmask.decoding.decode import Decoder, _filled, as_instances, category_peaks
from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.structures import Category, Cells, Detections, GridLevel, LevelOutput
from tests.recorder import LargestTensor
from tests.small import CANVAS, make_head, make_levels_of, make_pyramid

SQUARE = (32, 32)  # masks of 8 x 8


class Maps:
    """A field that holds one mask a cell, and counts who asks."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps, self.asked, self.maps_per_cell = maps, [], 1

    def at(self, cells: Cells) -> torch.Tensor:
        self.asked.append(list(zip(cells.image.tolist(), cells.index.tolist(), strict=True)))
        return self.maps[cells.image, cells.index]


def logit(p: float) -> float:
    return float(torch.tensor(p, dtype=torch.double).logit())


def level_of(scores: dict, boxes: dict, stride: int = 8, batch: int = 1, grid: int = 4, size: int = 8) -> LevelOutput:
    """{(image, class, cell): score} and {cell: (top, left, bottom, right) of its mask}."""
    logits = torch.full((batch, 3, grid, grid), -20.0)
    for (image, label, cell), score in scores.items():
        logits[image, label, cell // grid, cell % grid] = logit(score)
    maps = torch.full((batch, grid**2, size, size), -20.0)
    for cell, (top, left, bottom, right) in boxes.items():
        maps[:, cell, top:bottom, left:right] = 20.0
    return LevelOutput(GridLevel(stride, grid, grid, 1, 99), 4, logits, Maps(maps))


APART = {0: (0, 0, 3, 3), 2: (0, 4, 3, 8), 8: (4, 0, 8, 3), 10: (4, 4, 8, 8)}


def test_peaks_by_hand():
    scores = torch.tensor([[0.2, 0.5, 0.4], [0.6, 0.3, 0.4], [0.1, 0.6, 0.7]])
    # A cell falls when its upper, left or upper-left neighbor is higher; equal neighbors both stay.
    expected = torch.tensor([[0.2, 0.5, 0.0], [0.6, 0.0, 0.0], [0.0, 0.6, 0.7]])
    torch.testing.assert_close(category_peaks(scores.logit()[None, None])[0, 0], expected)
    equal = torch.full((1, 2, 3, 3), 0.25).logit()
    torch.testing.assert_close(category_peaks(equal), torch.full((1, 2, 3, 3), 0.25))


def test_two_objects():
    output = level_of({(0, 1, 0): 0.6, (0, 2, 10): 0.8}, APART)
    (found,) = Decoder()([output], SQUARE)
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.6]))
    assert found.labels.tolist() == [2, 1]
    assert found.cells.tolist() == [10, 0]
    assert found.levels.tolist() == [0, 0]
    assert (found.masks > 0.5)[1].nonzero().amax(0).tolist() == [2, 2]
    assert found.masks.shape == (2, 8, 8)


def test_images_are_kept_apart():
    output = level_of({(0, 0, 0): 0.6, (1, 1, 10): 0.7, (1, 1, 2): 0.9}, APART, batch=3)
    found = Decoder()([output], SQUARE)
    assert [d.cells.tolist() for d in found] == [[0], [2, 10], []]
    assert found[2].masks.shape == (0, 8, 8)


def test_nothing_found():
    output = level_of({}, APART, batch=2)
    for found in Decoder()([output, output], SQUARE):
        assert len(found) == 0
        assert found.masks.shape == (0, 8, 8)
        assert found.labels.dtype == found.cells.dtype == torch.long
    assert output.field.asked == [], "nobody asks for masks of nothing"


def test_the_score_threshold_is_exclusive():
    output = level_of({(0, 0, 0): 0.3, (0, 0, 10): 0.5}, APART)
    output.logits[0, 0, 2, 2] = 0.0  # exactly 0.5
    assert len(Decoder(score_threshold=0.5)([output], SQUARE)[0]) == 0
    assert Decoder(score_threshold=0.4999)([output], SQUARE)[0].cells.tolist() == [10]


def test_masks_not_larger_than_the_stride_are_dropped():
    boxes = {0: (0, 0, 2, 4), 10: (4, 4, 7, 7)}  # 8 and 9 pixels
    scores = {(0, 0, 0): 0.9, (0, 0, 10): 0.8}
    assert Decoder()([level_of(scores, boxes, stride=8)], SQUARE)[0].cells.tolist() == [10]
    assert Decoder()([level_of(scores, boxes, stride=16)], SQUARE)[0].cells.tolist() == []
    assert Decoder()([level_of(scores, boxes, stride=7)], SQUARE)[0].cells.tolist() == [0, 10]


def test_maskness_scales_the_score():
    output = level_of({(0, 0, 0): 0.8}, APART)
    output.field.maps[0, 0] = logit(0.1)
    output.field.maps[0, 0, :3, :3] = logit(0.9)
    output.field.maps[0, 0, 0, :3] = logit(0.6)
    (found,) = Decoder()([output], SQUARE)
    assert found.scores.item() == pytest.approx(0.8 * (6 * 0.9 + 3 * 0.6) / 9, rel=1e-5)
    (found,) = Decoder(mask_threshold=0.7, keep_threshold=0.0)([output], SQUARE)
    assert len(found) == 0, "6 px above 0.7 are not more than the stride"


def test_coarser_masks_are_enlarged_to_stride_4():
    output = level_of({(0, 0, 0): 0.8}, {0: (0, 0, 2, 2)}, size=4)
    (found,) = Decoder()([output], SQUARE)
    assert found.masks.shape == (1, 8, 8)
    assert (found.masks[0] > 0.5).sum() == 16


def test_identity_7_a_cell_asked_for_two_classes_is_aggregated_once():
    output = level_of({(0, 0, 0): 0.8, (0, 2, 0): 0.7, (0, 1, 10): 0.6}, APART)
    (found,) = Decoder()([output], SQUARE)
    assert [list(dict.fromkeys(asked)) for asked in output.field.asked] == [[(0, 0), (0, 10)]]
    assert [len(asked) for asked in output.field.asked] == [8], "filled up to a tile"
    assert found.cells.tolist() == [0, 0, 10]
    assert found.labels.tolist() == [0, 2, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7, 0.6]))


def test_chunks_are_filled_up_on_a_cpu_only():
    for device, count in (("cpu", 16), ("meta", 11)):
        filled = _filled(torch.zeros(11, dtype=torch.long, device=device), torch.zeros(11, 3, device=device))
        assert [len(part) for part in filled] == [count, count]


def test_a_copy_of_the_same_class_decays():
    output = level_of({(0, 0, 0): 0.8, (0, 0, 10): 0.7}, {0: APART[0], 10: APART[0]})
    (found,) = Decoder()([output], SQUARE)
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7]) * torch.tensor([1, -2.0]).exp().clamp(max=1))
    assert len(Decoder(kernel="linear")([output], SQUARE)[0]) == 1, "a score of 0 is below the threshold"
    assert len(Decoder(keep_threshold=0.1)([output], SQUARE)[0]) == 1
    assert Decoder(sigma=0.1)([output], SQUARE)[0].scores[1].item() == pytest.approx(0.7 * 0.904837, rel=1e-4)


def test_of_too_many_candidates_the_best_are_kept():
    scores = {(0, 0, cell): 0.5 + cell / 100 for cell in APART}
    output = level_of(scores, APART)
    assert Decoder(nms_pre=2)([output, output], SQUARE)[0].cells.tolist() == [10, 10]
    assert Decoder(nms_pre=3, memory_mb=1e-6, max_detections=9)([output], SQUARE)[0].cells.tolist() == [10, 8, 2]
    assert Decoder(max_detections=3)([output], SQUARE)[0].cells.tolist() == [10, 8, 2]
    assert len(Decoder()([output], SQUARE)[0]) == 4


def test_cells_that_cannot_come_among_the_best_are_not_asked():
    sure, unsure = {(0, 0, c): 0.9 for c in range(8)}, {(0, 1, c): 0.5 for c in range(8, 16)}
    output = level_of(sure | unsure, dict.fromkeys(range(16), APART[0]))
    again = level_of({(0, 2, 3): 0.9, (0, 2, 12): 0.6}, {3: APART[2], 12: APART[8]})
    (found,) = Decoder(nms_pre=2, memory_mb=1e-6)([output, again], SQUARE)
    assert output.field.asked == [[(0, c) for c in range(8)]], "not those from 8 to 15"
    assert {cell for asked in again.field.asked for _, cell in asked} == {3}, "as good as the worst that is kept"
    assert found.cells.tolist() == [0, 1]


@pytest.mark.parametrize("options", [{}, {"base": "star", "window": 5}])
def test_what_is_not_asked_changes_nothing(options):
    with torch.no_grad():
        outputs = make_head(**options)(make_pyramid(1))
        peaks = [category_peaks(o.logits) for o in outputs]
        every = Decoder(score_threshold=0.0, nms_pre=10_000).candidates(0, outputs, peaks, CANVAS)
        best = Decoder(score_threshold=0.0, nms_pre=20, memory_mb=1e-6).candidates(0, outputs, peaks, CANVAS)
    assert len(every) > 60
    assert all(map(torch.equal, vars(best).values(), vars(every[:20]).values()))


def test_levels_are_compared_with_each_other():
    fine = level_of({(0, 0, 0): 0.6, (0, 1, 10): 0.5}, APART)
    coarse = level_of({(0, 1, 3): 0.7}, {3: (0, 0, 2, 2)}, stride=8, grid=2, size=4)
    (found,) = Decoder()([fine, coarse], SQUARE)
    assert list(zip(found.levels.tolist(), found.cells.tolist(), strict=True)) == [(1, 3), (0, 0), (0, 10)]


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"base": "star", "window": 5}, {"deformable": True}])
def test_a_budget_of_memory_changes_no_bit(options):
    head, canvas = make_head(**options), (128, 192)
    with torch.no_grad():
        outputs = head(make_pyramid(canvas=canvas))
    settings = {"score_threshold": 0.3, "nms_pre": 40, "max_detections": 25}
    whole = Decoder(memory_mb=10_000, **settings)(outputs, canvas)
    most = outputs[0].field.maps_per_cell, 32 * 48, 32 * 48
    sizes = []
    for budget in (1e-6, 2, 4, 6):
        decoder = Decoder(memory_mb=budget, **settings)
        sizes.append(decoder.cells_at_once(*most))
        for a, b in zip(decoder(outputs, canvas), whole, strict=True):
            assert len(a) == 25
            assert all(map(torch.equal, vars(a).values(), vars(b).values()))
    assert sizes[0] == 8
    assert sizes == sorted(set(sizes)), "each asks in other chunks"


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"window": 9}])
def test_memory_follows_the_budget(options):
    """The most that lives at once: the masks that are kept, and what is aggregated, which stays within its budget."""
    canvas = (128, 192)
    head = make_head(make_levels_of(grids=(16, 8, 4, 3, 2)), **options)
    with torch.no_grad():
        outputs = head(make_pyramid(1, canvas))
    mask = (canvas[0] // 4) * (canvas[1] // 4) * 4
    peaks = {}
    for budget in (2, 4, 8):
        decoder = Decoder(score_threshold=0.0, nms_pre=10, memory_mb=budget)
        with torch.no_grad(), LiveBytes() as watched:
            decoder(outputs, canvas)
        peaks[budget] = watched.peak - 4 * 10 * mask
    # Weights and features of a cell, which are not counted, weigh something beside maps as small as these.
    assert all(peak <= 1.05 * budget * 2**20 for budget, peak in peaks.items()), peaks
    assert peaks[2] < peaks[4] < peaks[8]


def test_masks_return_to_the_original_within_the_budget():
    masks = torch.rand(12, 32, 48, generator=torch.Generator().manual_seed(0))
    found = Detections(torch.rand(12), torch.zeros(12, dtype=torch.long), masks, *[torch.zeros(12)] * 2)
    frame = Frame.resized((300, 410), (128, 190)).on_canvas((128, 192))
    whole, peaks = as_instances(found, frame), {}
    for budget in (2, 4, 8):
        pixels = Decoder(memory_mb=budget).pixels_at_once
        assert torch.equal(as_instances(found, frame, chunk_pixels=pixels).masks, whole.masks)
        with LiveBytes() as watched:
            for part in frame.masks_to_original(masks, pixels):
                del part
        peaks[budget] = watched.peak
    assert all(peak <= budget * 2**20 for budget, peak in peaks.items()), peaks
    assert peaks[2] < peaks[4] < peaks[8]


def test_no_memory_is_refused():
    with pytest.raises(UserError, match="memory_mb=0: must be more than 0"):
        Decoder(memory_mb=0)


def test_memory_is_bounded_by_candidates_kept_not_by_classes():
    head = make_head(num_classes=80)
    with torch.no_grad():
        outputs = head(make_pyramid(1))
    with LargestTensor() as made:
        (found,) = Decoder(score_threshold=0.2, nms_pre=20, memory_mb=0.2)(outputs, CANVAS)
    assert len(found) == 20
    assert made.elements <= (20 + 20) * 16 * 24, made


def test_nothing_is_remembered_for_gradients():
    (found,) = Decoder(score_threshold=0.3)(make_head()(make_pyramid(1)), CANVAS)
    assert not found.masks.requires_grad


@pytest.mark.parametrize("name", ["nms_pre", "max_detections"])
def test_counts_below_one_are_refused(name):  # -1 left out the last one
    with pytest.raises(UserError, match=f"decoder.{name}=-1: must be 1 or more"):
        Decoder(**{name: -1})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"score_threshold": -0.1}, "score_threshold=-0.1: must be from 0 to 1"),  # what fills a tile up was found
        ({"mask_threshold": 1.5}, "mask_threshold=1.5: must be from 0 to 1"),
        ({"keep_threshold": float("nan")}, "keep_threshold=nan: must be from 0 to 1"),
        ({"sigma": 0}, "sigma=0: must be more than 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given, told):
    with pytest.raises(UserError, match=f"decoder.{told}"):
        Decoder(**given)


def test_unknown_kernels_are_refused():
    with pytest.raises(UserError, match="kernel=cosine"):
        Decoder(kernel="cosine")


def test_instances_in_the_original_frame():
    output = level_of({(0, 1, 0): 0.6, (0, 2, 10): 0.8}, APART)
    (found,) = Decoder()([output], SQUARE)
    frame = Frame.resized((16, 14), (32, 28)).on_canvas(SQUARE)
    instances = as_instances(found, frame, [Category(5, "a"), Category(6, "b"), Category(7, "c")])
    assert instances.size == (16, 14)
    assert instances.names == ["c", "b"]
    # The second mask covers 3 of 8 mask pixels: 12 network pixels, 6 of the original.
    assert instances.boxes[1].tolist() == [0, 0, 6, 6]
    assert len(as_instances(found[:0], frame)) == 0
    cut = as_instances(found, frame, crop=True)
    assert [torch.equal(mask, whole) for mask, whole in zip(cut.masks, instances.masks, strict=True)] == [True] * 2
    assert torch.equal(cut.boxes, instances.boxes)
