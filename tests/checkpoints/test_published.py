"""Published names find their place, and unknown ones are not dropped."""

import pytest
import torch

from aggmask.checkpoints.published import to_ours
from aggmask.errors import UserError
from tests.small import make_head


def test_every_weight_of_a_head_has_a_published_name():
    published = {f"solo_ins_list.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")}
    for tower in ("ins_convs", "cate_convs"):
        published |= {f"{tower}.0.{name}" for name in ("conv.weight", "gn.weight", "gn.bias")}
    for layer in ("solo_cate", "learned_weights", *(f"context_fusion_convs.{i}" for i in (0, 1, 3))):
        published |= {f"{layer}.weight", f"{layer}.bias"}
    renamed = to_ours({f"bbox_head.{name}": torch.tensor(i) for i, name in enumerate(sorted(published))})
    assert set(renamed) == {f"head.{name}" for name in make_head(window=5).state_dict()}
    assert len(renamed) == len(published)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ins_convs.3.gn.bias", "bank.tower.3.gn.bias"),
        ("solo_ins_list.4.weight", "bank.kernels.4.weight"),
        ("context_fusion_convs.3.bias", "aggregation.context.reduce.1.bias"),
    ],
)
def test_names_of_the_head(name, expected):
    value = torch.randn(3)
    assert to_ours({f"bbox_head.{name}": value})[f"head.{expected}"] is value


def test_names_of_the_neck():
    names = {"neck.lateral_convs.2.conv.weight": torch.ones(1), "neck.fpn_convs.0.conv.bias": torch.zeros(1)}
    assert to_ours(names) == {"fpn.lateral.2.weight": torch.ones(1), "fpn.output.0.bias": torch.zeros(1)}


@pytest.mark.parametrize("name", ["fcn_head.weight", "bbox_head.ins_convs.0.conv.running_mean", "solo_cate.weight"])
def test_nothing_is_skipped_in_silence(name):
    with pytest.raises(UserError, match=f"'{name}' has no place"):
        to_ours({name: torch.zeros(1)})
