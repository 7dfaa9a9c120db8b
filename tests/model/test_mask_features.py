"""One feature map for all masks."""

import torch
import torch.nn.functional as F

from aggmask.geometry.grid import coordinate_channels
from aggmask.model.representation.mask_features import MaskFeatures
from tests.small import close, make_pyramid


def test_each_map_passes_as_many_convolutions_as_it_is_enlarged():
    torch.manual_seed(0)
    net, pyramid = MaskFeatures(32, width=64, channels=96, norm=True), make_pyramid()
    total = net.levels[0](pyramid[0])
    for number, features in enumerate([pyramid[1], pyramid[2], coordinate_channels(pyramid[3])], start=1):
        for conv in net.levels[number]:
            features = F.interpolate(conv(features), scale_factor=2, mode="bilinear")
        total = total + features
    assert [len(convs) for convs in net.levels] == [1, 1, 2, 3]
    fused = F.conv2d(total, net.fuse.conv.weight)
    close(net(pyramid), F.relu(F.group_norm(fused, 32, net.fuse.gn.weight, net.fuse.gn.bias)))
    assert net(pyramid).shape == (2, 96, *pyramid[0].shape[-2:])


def test_without_norm_only_the_fusion_has_one():
    net = MaskFeatures(32, width=20, channels=32, norm=False)
    assert [name for name, module in net.named_modules() if isinstance(module, torch.nn.GroupNorm)] == ["fuse.gn"]
