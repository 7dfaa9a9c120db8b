"""The whole network."""

from functools import partial

import pytest
import torch

from aggmask.errors import UserError
from aggmask.geometry.frame import Frame
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.backbone import TimmBackbone
from aggmask.model.category import CategoryBranch
from aggmask.model.representation.constant import ConstantBank
from aggmask.model.segmenter import Segmenter
from aggmask.structures import ImageBatch
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.small import PUBLISHED_ROWS, random_objects

CANVAS = (64, 96)


def make_segmenter(rows=PUBLISHED_ROWS, stride=2) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(
        num_classes=3,
        backbone=TimmBackbone("resnet18", pretrained=False),
        levels=rows,
        interpolation={"stride": stride},
        category=partial(CategoryBranch, width=32, depth=1),
        bank=partial(ConstantBank, width=32, depth=1),
        aggregation=partial(DynamicAggregation, window=4),
        fpn_channels=32,
    )


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make_segmenter()


def test_grids_come_from_the_rows(segmenter):
    assert [v.mask_grid for v in segmenter.head.levels] == [20, 18, 12, 8, 6]
    assert segmenter.head.aggregation.window == 4
    outputs = segmenter(torch.randn(2, 3, *CANVAS))
    assert [tuple(o.logits.shape) for o in outputs] == [(2, 3, s, s) for s in (40, 36, 24, 16, 12)]


def test_a_mask_grid_larger_than_the_category_grid_is_refused():
    rows = [*PUBLISHED_ROWS[:3], dict(PUBLISHED_ROWS[3], mask_grid=20), PUBLISHED_ROWS[4]]
    with pytest.raises(UserError, match="level 3: mask grid 20 is larger than category grid 16"):
        make_segmenter(rows, stride=1)


@pytest.mark.parametrize("counts", [(0, 0), (4, 0)], ids=["no objects in the batch", "one image without objects"])
def test_every_trained_parameter_gets_a_gradient(segmenter, counts):
    segmenter.train().zero_grad(set_to_none=True)
    outputs = segmenter(torch.randn(2, 3, *CANVAS))
    objects = [random_objects(n, canvas=CANVAS) for n in counts]
    sum(Criterion()(outputs, Assigner()(outputs, objects, CANVAS)).values()).backward()
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert name.startswith(("backbone.net.conv1", "backbone.net.bn1", "backbone.net.layer1"))


def test_the_canvas_around_an_image_is_zero_after_normalizing(segmenter):
    pixels = torch.full((2, 3, *CANVAS), 200, dtype=torch.uint8)
    frames = [Frame.resized((50, 60), (50, 60)).on_canvas(CANVAS), Frame.resized(CANVAS, CANVAS)]
    normalized = segmenter.normalize(ImageBatch(pixels, frames, [1, 2]))
    expected = (200 / 255 - 0.485) / 0.229
    assert normalized[0, 0, 49, 59].item() == pytest.approx(expected, rel=1e-5)
    assert not normalized[0, :, 50:].any()
    assert not normalized[0, :, :, 60:].any()
    torch.testing.assert_close(normalized[1, 0], torch.full(CANVAS, expected))


def test_images_of_a_batch_do_not_touch_each_other(segmenter):
    segmenter.eval()
    images = torch.randn(2, 3, *CANVAS)
    with torch.no_grad():
        together, alone = segmenter(images), segmenter(images[1:])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.logits[1:], b.logits, rtol=1e-4, atol=1e-5)


def test_pictures_of_other_channels_than_the_network_takes_are_refused(segmenter):
    """Broadcasting would make three channels of one in silence."""
    frame = Frame.resized((64, 96), (64, 96))
    batch = ImageBatch(torch.zeros(1, 1, 64, 96, dtype=torch.uint8), [frame], [0])
    with pytest.raises(UserError, match=r"pictures of 1 channels \(data.channels\), .*model.backbone.in_chans=3"):
        segmenter.normalize(batch)
