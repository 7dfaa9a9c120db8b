"""A bank of kernels gives what painting everything and picking gives."""

import pytest
import torch
import torch.nn.functional as F

from aggmask.model.representation.kernels import KernelBank
from tests.small import close, many_threads

T, C, B = 5, 6, 2


def make_bank(per_image: bool = False, bias: bool = True, enlarge: int = 2) -> KernelBank:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(B, C, 4, 7, generator=generator)
    kernels = torch.randn(B if per_image else 1, T * T, C, generator=generator)
    constant = torch.randn(T * T, generator=generator) if bias else None
    return KernelBank(features, kernels, constant, T, enlarge)


def painted(bank: KernelBank) -> torch.Tensor:
    """(B, T, T, H, W): every kernel as a 1x1 convolution over the enlarged features."""
    maps = [
        F.conv2d(
            F.interpolate(f[None], scale_factor=float(bank.enlarge), mode="bilinear"), k[:, :, None, None], bank.bias
        )
        for f, k in zip(bank.features, bank.kernels.expand(B, -1, -1), strict=True)
    ]
    return torch.cat(maps).unflatten(1, (T, T))


BANKS = pytest.mark.parametrize("options", [{}, {"bias": False}, {"per_image": True}, {"enlarge": 1}])


@BANKS
def test_identity_1_asked_representations_equal_painted_ones(options):
    bank = make_bank(**options)
    image = torch.tensor([0, 0, 1, 1, 1])
    positions = torch.randint(T, (5, 3, 2), generator=torch.Generator().manual_seed(1))
    positions[3] = positions[0]  # the same cells in another image
    positions[4, 1] = positions[4, 0]  # and twice in one
    expected = painted(bank)[image[:, None], positions[..., 0], positions[..., 1]]
    close(bank.at(image, positions), expected)


@BANKS
def test_identity_2_kernels_then_upsample_equals_upsample_then_kernels(options):
    bank = make_bank(**options)
    upsampled = F.interpolate(bank.features, scale_factor=float(bank.enlarge), mode="bilinear")
    late = KernelBank(upsampled, bank.kernels, bank.bias, T, enlarge=1)
    image, positions = torch.tensor([0, 1]), torch.tensor([[[0, 1], [4, 4]], [[2, 3], [0, 1]]])
    close(bank.at(image, positions), late.at(image, positions))


@BANKS
def test_identity_6_sampled_kernels_equal_sampled_representations(options):
    bank = make_bank(**options)
    image = torch.tensor([0, 0, 1])
    positions = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(2)) * (T - 1)
    maps = painted(bank)
    # grid_sample over the mask grid, every pixel of the maps a channel
    grid = (positions.flip(-1) / (T - 1) * 2 - 1)[:, :, None]
    sampled = F.grid_sample(maps[image].flatten(3).movedim(3, 1), grid, align_corners=True)
    expected = sampled[..., 0].movedim(1, -1).unflatten(-1, maps.shape[-2:])
    close(bank.at(image, positions), expected)


@BANKS
def test_whole_positions_may_be_fractional_numbers(options):
    bank = make_bank(**options)
    image, positions = torch.tensor([0, 1]), torch.tensor([[[0, 1], [4, 4]], [[2, 3], [4, 0]]])
    close(bank.at(image, positions.float()), bank.at(image, positions))


def test_halfway_between_two_cells_is_their_mean():
    bank = make_bank()
    maps = painted(bank)
    found = bank.at(torch.tensor([1]), torch.tensor([[[2.0, 3.5], [1.5, 0.0]]]))
    close(found[0], torch.stack([maps[1, 2, 3:5].mean(0), maps[1, 1:3, 0].mean(0)]))


def test_positions_between_cells_get_gradients():
    bank = make_bank()
    positions = torch.tensor([[[1.25, 2.5]]], requires_grad=True)
    bank.at(torch.tensor([0]), positions).square().sum().backward()
    assert positions.grad.abs().min() > 0


def test_a_kernel_asked_by_many_cells_is_painted_once(monkeypatch):
    painted_kernels = []
    paint = KernelBank._paint
    monkeypatch.setattr(KernelBank, "_paint", lambda *args: painted_kernels.append(len(args[2])) or paint(*args))
    make_bank().at(torch.tensor([0, 0, 0]), torch.tensor([[[0, 1], [1, 1]], [[1, 1], [0, 1]], [[1, 1], [1, 2]]]))
    assert painted_kernels == [3]


def test_a_place_on_the_far_border_gets_a_gradient_too():
    bank = make_bank()
    positions = torch.tensor([[[float(T - 1), float(T - 1)]]], requires_grad=True)
    bank.at(torch.tensor([0]), positions).square().sum().backward()
    assert positions.grad.abs().min() > 0


@pytest.mark.parametrize("between", [False, True])
def test_gradients_are_the_same_bits_whatever_the_order_of_threads(between):
    """Many cells that share kernels: else a training on two busy processors is another one each time."""
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(40).repeat_interleave(50)
    positions = torch.rand(len(image), 5, 2, generator=generator) * 7
    features = torch.randn(40, 64, 4, 4, generator=generator)
    found = []
    with many_threads():
        for _ in range(6):
            leaves = [torch.ones(1, 64, 64, requires_grad=True), torch.ones(64, requires_grad=True)]
            bank = KernelBank(features, *leaves, 8, 1)
            bank.at(image, positions if between else positions.long()).square().sum().backward()
            found.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(again, found[0], strict=True))


def test_maps_of_images_that_are_not_asked_get_no_gradient():
    """Not even one of zeros: it would be added up for each few cells that training asks at once."""
    features = [torch.randn(C, 4, 7, requires_grad=True) for _ in range(B)]
    bank = KernelBank(features, torch.randn(1, T * T, C), None, T, 2)
    bank.at(torch.tensor([1]), torch.tensor([[[0, 1], [2, 2]]])).sum().backward()
    assert [maps.grad is None for maps in features] == [True, False]
