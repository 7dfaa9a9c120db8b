"""Any timm network with features at strides 4 to 32. No hub is contacted here."""

import weakref

import pytest
import torch

from aggmask.errors import UserError
from aggmask.model.backbone import TimmBackbone


@pytest.fixture(scope="module")
def resnet18() -> TimmBackbone:
    return TimmBackbone("resnet18", pretrained=False)


def test_features_at_strides_4_to_32(resnet18):
    features = resnet18(torch.randn(2, 3, 64, 96))
    assert resnet18.channels == [64, 128, 256, 512]
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(resnet18.channels, (4, 8, 16, 32), strict=True)
    ]


def test_statistics_are_those_of_the_network(resnet18):
    assert resnet18.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert resnet18.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert not {"mean", "std"} & set(resnet18.state_dict())


@pytest.mark.parametrize(
    ("stages", "trained", "frozen"),
    [
        (0, "net.conv1.weight", None),
        (1, "net.layer2.0.conv1.weight", "net.layer1.1.conv2.weight"),
        (2, "net.layer3.0.conv1.weight", "net.layer2.1.bn2.bias"),
    ],
)
def test_frozen_stages_do_not_train(stages, trained, frozen):
    backbone = TimmBackbone("resnet18", pretrained=False, frozen_stages=stages)
    sum(f.sum() for f in backbone(torch.randn(1, 3, 64, 64))).backward()
    parameters = dict(backbone.named_parameters())
    assert parameters[trained].grad is not None
    assert parameters["net.conv1.weight"].requires_grad == (stages == 0)
    if frozen:
        assert not parameters[frozen].requires_grad
        assert parameters[frozen].grad is None


def test_norms_keep_their_statistics_while_training(resnet18):
    before = {name: buffer.clone() for name, buffer in resnet18.named_buffers()}
    resnet18.train()
    resnet18(torch.randn(2, 3, 64, 64) * 9)
    assert resnet18.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in resnet18.named_buffers())


def test_norms_may_train_but_not_in_frozen_stages():
    backbone = TimmBackbone("resnet18", pretrained=False, frozen_norm=False).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 64, 64) * 9)
    changed = {name for name, buffer in backbone.named_buffers() if not torch.equal(buffer, before[name])}
    assert "net.layer2.0.bn1.running_mean" in changed
    assert not any(name.startswith(("net.bn1", "net.layer1")) for name in changed)


FAMILIES = [
    "resnet10t",
    "convnext_atto",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(request.param, pretrained=False)


def random_sum(features: list[torch.Tensor]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return sum((f * torch.randn(f.shape, generator=generator)).sum() for f in features)


@pytest.mark.parametrize("size", [(64, 96), (160, 32)])
def test_every_family_gives_the_maps_that_it_claims(family, size):
    features = family(torch.randn(2, 3, *size))
    assert [tuple(f.shape) for f in features] == [
        (2, c, size[0] // s, size[1] // s) for c, s in zip(family.channels, (4, 8, 16, 32), strict=True)
    ]


def test_gradients_reach_all_that_is_trained_and_nothing_that_is_frozen(family):
    """What DDP needs without looking for unused parameters. Stem and first stage are frozen."""
    family.zero_grad()
    random_sum(family(torch.randn(2, 3, 64, 96))).backward()
    trained = {name for name, p in family.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in family.named_parameters() if p.grad is not None}
    assert 2 < len(trained) < sum(1 for _ in family.parameters())


@pytest.mark.parametrize("family", FAMILIES[:-1], indirect=True)  # the first map of a ViT comes from all layers
def test_what_makes_the_first_map_is_frozen_and_nothing_beyond(family):
    features = family(torch.randn(1, 3, 64, 64))
    assert not features[0].requires_grad
    assert features[1].requires_grad


@pytest.mark.parametrize("family", ["resnet10t", "tf_efficientnet_lite0", "mobilenetv3_small_050"], indirect=True)
def test_frozen_norms_keep_their_statistics_and_the_maps_depend_on_no_neighbor(family):
    """In training as in evaluation: an image's maps are the same in whatever batch."""
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: buffer.clone() for name, buffer in family.named_buffers()}
    with torch.no_grad():
        family.eval()
        alone = family(images[:1])
        family.train()
        together = family(torch.cat([images[:1], images[1:] * 9]))
    for one, three in zip(alone, together, strict=True):
        torch.testing.assert_close(three[:1], one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
    assert all(torch.equal(buffer, before[name]) for name, buffer in family.named_buffers())


class Saved:
    """A tensor that a graph holds; gone with the graph."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_bytes(backbone: TimmBackbone, images: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """Maps, and bytes that are kept for the backward pass, beside the parameters."""
    held: weakref.WeakSet[Saved] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Saved:
        held.add(saved := Saved(tensor))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        features = backbone(images)
    storages = {s.tensor.untyped_storage().data_ptr(): s.tensor.untyped_storage().nbytes() for s in held}
    return features, sum(storages.values()) - sum(storages.get(p.data_ptr(), 0) for p in backbone.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_checkpointing_keeps_less_and_gives_equal_gradients(name):
    gradients, kept = [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        backbone = TimmBackbone(name, pretrained=False, frozen_stages=1, grad_checkpointing=checkpointed)
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        features, size = kept_bytes(backbone, images)
        kept.append(size)
        random_sum(features).backward()
        gradients.append({key: p.grad for key, p in backbone.named_parameters() if p.requires_grad})
    assert kept[1] < 0.7 * kept[0]
    for key, gradient in gradients[0].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradients[1][key], gradient, rtol=0, atol=1e-5 * max(scale, 1.0), msg=key)


def test_a_network_without_checkpointing_is_told(monkeypatch):
    from timm.models.vision_transformer import VisionTransformer

    monkeypatch.delattr(VisionTransformer, "set_grad_checkpointing")
    with pytest.raises(UserError, match="vit_tiny_patch16_224 has no gradient checkpointing; use false"):
        TimmBackbone("vit_tiny_patch16_224", pretrained=False, grad_checkpointing=True)


@pytest.mark.parametrize("size", [(32, 32), (64, 224), (224, 224), (352, 96)])
def test_a_vision_transformer_takes_pictures_of_any_size(size):
    backbone = TimmBackbone("vit_tiny_patch16_224", pretrained=False).eval()
    with torch.no_grad():
        shapes = [tuple(f.shape[-2:]) for f in backbone(torch.zeros(1, 3, *size))]
    assert shapes == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]


def test_patches_of_14_pixels_become_16():
    backbone = TimmBackbone("eva02_tiny_patch14_224", pretrained=False)
    assert [f.shape[-1] for f in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 4, 2]


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels(name, channels):
    backbone = TimmBackbone(name, pretrained=False, in_chans=channels)
    assert [len(f) for f in backbone(torch.randn(2, channels, 64, 64))] == [2, 2, 2, 2]
    assert backbone.mean.shape == backbone.std.shape == (channels, 1, 1)


def test_statistics_follow_the_channels():
    grey = TimmBackbone("resnet10t", pretrained=False, in_chans=1)
    assert grey.mean.flatten().tolist() == pytest.approx([(123.675 + 116.28 + 103.53) / 3])
    opaque = TimmBackbone("resnet10t", pretrained=False, in_chans=4)
    assert opaque.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53, 123.675])
    half = TimmBackbone("tf_efficientnet_lite0", pretrained=False)
    assert half.std.flatten().tolist() == pytest.approx([127.5] * 3)
