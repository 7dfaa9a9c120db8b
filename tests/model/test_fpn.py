"""The feature pyramid."""

import torch
import torch.nn.functional as F

from aggmask.model.fpn import FPN
from tests.small import close


def test_top_down_sums():
    torch.manual_seed(0)
    fpn = FPN([3, 5, 7], channels=4)
    c2, c3, c4 = torch.randn(1, 3, 8, 12), torch.randn(1, 5, 4, 6), torch.randn(1, 7, 2, 3)
    m4 = fpn.lateral[2](c4)
    m3 = fpn.lateral[1](c3) + m4.repeat_interleave(2, -1).repeat_interleave(2, -2)
    m2 = fpn.lateral[0](c2) + m3.repeat_interleave(2, -1).repeat_interleave(2, -2)
    p2, p3, p4, p5 = fpn([c2, c3, c4])
    for found, merged, conv in zip((p2, p3, p4), (m2, m3, m4), fpn.output, strict=True):
        close(found, F.conv2d(merged, conv.weight, conv.bias, padding=1))
    assert torch.equal(p5, p4[..., ::2, ::2])


def test_start_is_xavier_with_zero_bias():
    torch.manual_seed(0)
    fpn = FPN([64, 64], channels=32)
    for conv in [*fpn.lateral, *fpn.output]:
        assert not conv.bias.any()
        fans = (conv.weight[0].numel() + conv.weight[:, 0].numel()) / 2
        assert abs(float(conv.weight.detach().std()) * fans**0.5 - 1) < 0.1
