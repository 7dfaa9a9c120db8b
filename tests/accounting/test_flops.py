"""Counts equal the published ones, the oracle's and those of real cells."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aggmask.accounting.flops import count
from aggmask.assembly.build import build
from aggmask.assembly.config import plain
from aggmask.model import winograd
from aggmask.model.segmenter import Segmenter
from aggmask.structures import Cells
from tests.oracle import dense_head
from tests.runs import composed

RANDOM = ["name=x", "output_dir=x", "model.backbone.pretrained=false", "model.backbone.weights=null"]
TINY = ["model.backbone.name=resnet10t", "model.fpn_channels=32", "model.category.width=32", "model.bank.width=32"]
VARIANTS = {
    "solo": ("solo_r50", []),
    "agg": ("solo_r50_agg", []),
    "agg, window 9, 2 layers": ("solo_r50_agg", ["model.aggregation.window=9", "model.aggregation.layers=2"]),
    "agg, no context": ("solo_r50_agg", ["model.aggregation.context_channels=0"]),
    "agg, one-layer context": ("solo_r50_agg", ["model.aggregation.context_layers=1"]),
    "agg, half the mask grid": ("solo_r101_agg_interp", []),
    "deformable": ("solo_r50_agg", ["model/aggregation/neighbors=deformable"]),
    "solov2": ("solov2_r50", ["model.bank.channels=32"]),
    "agg*": ("solov2_r50_agg", ["model.bank.channels=32"]),
    "agg*, deformable": ("solov2_r50_agg", ["model.bank.channels=32", "model/aggregation/neighbors=deformable"]),
}


def segmenter_of(experiment: str, *overrides: str, device: str = "meta") -> Segmenter:
    torch.manual_seed(0)
    cfg = plain(composed(f"experiment={experiment}", *RANDOM, *overrides))
    with torch.device(device):
        return build(cfg["model"], num_classes=80)


@pytest.mark.parametrize(
    ("experiment", "published"),
    [
        ("solo_r101", 469),
        ("solo_r101_agg", 530),
        ("solo_r101_agg_interp", 450),
        ("solov2_r101_agg", 395),
    ],
)
def test_dense_counts_are_the_published_ones(experiment, published):
    parts = count(segmenter_of(experiment), (800, 1344))
    assert [part.name for part in parts[:2]] == ["backbone", "pyramid"]
    assert sum(part.dense for part in parts[:2]) / 1e9 == pytest.approx(456, rel=0.01)
    assert sum(part.dense for part in parts[2:]) / 1e9 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_dense_counts_are_those_of_the_oracle(variant):
    experiment, overrides = VARIANTS[variant]
    segmenter = segmenter_of(experiment, *TINY, *overrides, device="cpu").eval()
    parts = count(segmenter_of(experiment, *TINY, *overrides), (64, 96))
    with torch.no_grad():
        pyramid = segmenter.fpn(segmenter.backbone(torch.randn(1, 3, 64, 96)))
        pyramid += [pyramid[-1][..., ::2, ::2]] * (5 - len(pyramid))  # which the oracle wants whole
        with FlopCounterMode(display=False) as counter:
            dense_head(segmenter.head, pyramid)
    assert sum(part.dense for part in parts[2:]) == counter.get_total_flops()


@pytest.mark.parametrize("variant", VARIANTS)
def test_lazy_counts_are_those_of_real_cells(variant, monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *_: False)  # fewer operations are not what is counted
    experiment, overrides = VARIANTS[variant]
    segmenter = segmenter_of(experiment, *TINY, *overrides, device="cpu").eval()
    parts = count(segmenter_of(experiment, *TINY, *overrides), (64, 96))
    with torch.no_grad(), FlopCounterMode(display=False) as fixed:
        outputs = segmenter(torch.randn(1, 3, 64, 96))
    assert sum(part.fixed for part in parts) == fixed.get_total_flops()
    assert len(outputs) == 5
    for number, output in enumerate(outputs):
        # Two cells in the middle, too far from each other to share a neighbor.
        middle = output.level.grid // 2
        index = torch.tensor([2 * output.level.grid + 2, middle * output.level.grid + middle])
        distinct = output.field.rule.neighbors(Cells(torch.zeros(2, dtype=torch.long), index)).flatten(0, 1)
        if not distinct.is_floating_point():
            assert len(distinct.unique(dim=0)) == len(distinct)  # of shared ones the formula is an upper bound
        with FlopCounterMode(display=False) as asked:  # as in training: inference fills rows up to whole tiles
            output.field.at(Cells(torch.zeros(2, dtype=torch.long), index))
        assert asked.get_total_flops() == sum(2 * part.per_cell[number] for part in parts)


def test_asked_cells_add_up():
    part = count(segmenter_of("solo_r50_agg", *TINY), (64, 96))[-1]
    assert part.name == "aggregation networks"
    assert part.lazy([0] * 5) == 0
    assert part.lazy([1, 0, 0, 0, 2]) == part.per_cell[0] + 2 * part.per_cell[4]


def test_parameters_are_all_counted_once():
    for experiment in ("solo_r50_agg", "solov2_r50_agg"):
        segmenter = segmenter_of(experiment, "model/aggregation/neighbors=deformable")
        assert sum(part.parameters for part in count(segmenter, (64, 96))) == sum(
            parameter.numel() for parameter in segmenter.parameters()
        )
