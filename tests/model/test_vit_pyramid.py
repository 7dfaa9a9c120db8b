"""Four maps from one."""

import pytest
import torch

from aggmask.model.vit_pyramid import SimplePyramid


@pytest.mark.parametrize(("stride", "channels"), [(8, [32, 64, 64, 64]), (16, [16, 32, 64, 64]), (32, [8, 16, 32, 64])])
def test_maps_at_four_strides_from_any_of_the_coarser_three(stride, channels):
    pyramid = SimplePyramid(64, stride)
    maps = pyramid([torch.randn(2, 64, 64 // stride, 96 // stride)])
    assert pyramid.channels == channels
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_layers_from_stride_16_are_those_of_the_paper():
    kinds = [[type(layer).__name__ for layer in resize] for resize in SimplePyramid(64, 16).maps]
    up, norm = "ConvTranspose2d", "LayerNorm2d"
    assert kinds == [[up, norm, "GELU", up, norm], [up, norm], [norm], ["MaxPool2d", norm]]


def test_each_pixel_of_the_coarse_map_makes_the_fine_pixels_above_it():
    """2 x 2 transposed convolutions of stride 2 do not overlap: a change stays where it is."""
    torch.manual_seed(0)
    pyramid, features = SimplePyramid(8, 16), torch.randn(1, 8, 4, 4)
    changed = features.clone()
    changed[0, :, 1, 2] += torch.randn(8)
    for before, after, size in zip(pyramid([features]), pyramid([changed]), (4, 2, 1), strict=False):
        differs = (before != after).any(1)[0].nonzero()
        expected = [(y, x) for y in range(size, 2 * size) for x in range(2 * size, 3 * size)]
        assert [tuple(place) for place in differs.tolist()] == expected


def test_maps_are_normalized_over_their_channels():
    for m in SimplePyramid(64, 16)([torch.randn(1, 64, 4, 4) * 50 + 7]):
        torch.testing.assert_close(m.mean(1), torch.zeros_like(m.mean(1)), rtol=0, atol=1e-4)
        torch.testing.assert_close(m.var(1, unbiased=False), torch.ones_like(m[:, 0]), rtol=0, atol=0.1)


def test_all_of_it_is_trained():
    pyramid = SimplePyramid(16, 16)
    sum((m * torch.randn_like(m)).sum() for m in pyramid([torch.randn(1, 16, 4, 4)])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in pyramid.parameters())
