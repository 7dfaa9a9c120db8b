"""The order of a network's layers: what is frozen first, and which rate each layer has."""

import pytest

from aggmask.errors import UserError
from aggmask.model.backbone import TimmBackbone


def frozen_of(name: str, stages: int) -> set[str]:
    backbone = TimmBackbone(name, pretrained=False, frozen_stages=stages)
    return {key.removeprefix("net.") for key, p in backbone.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(("stages", "blocks"), [(1, 3), (2, 6), (4, 12)])
def test_stages_of_a_vision_transformer_are_quarters_of_its_blocks(stages, blocks):
    frozen = frozen_of("vit_tiny_patch16_224", stages)
    numbers = {int(key.split(".")[2]) for key in frozen if key.startswith("model.blocks.")}
    assert numbers == set(range(blocks))
    assert {"model.cls_token", "model.pos_embed", "model.patch_embed.proj.weight"} <= frozen
    assert not any(key.startswith("pyramid") for key in frozen)


def test_stages_of_a_mobile_network_end_where_its_maps_come_from():
    assert {key.split(".")[0] for key in frozen_of("tf_efficientnet_lite0", 2)} == {"conv_stem", "bn1", "blocks"}
    assert {key.split(".")[1] for key in frozen_of("tf_efficientnet_lite0", 2) if key[:6] == "blocks"} == {
        "0",
        "1",
        "2",
    }


def test_networks_that_cannot_be_frozen_in_part_are_told():
    with pytest.raises(UserError, match=r"frozen_stages=1: this network has no stages to freeze; use 0"):
        TimmBackbone("twins_svt_small", pretrained=False, frozen_stages=1)
    with pytest.raises(UserError, match=r"frozen_stages=5: there are 4 stages"):
        TimmBackbone("resnet10t", pretrained=False, frozen_stages=5)


def depths_of(name: str) -> dict[str, int]:
    backbone = TimmBackbone(name, pretrained=False, frozen_stages=0)
    depths = backbone.layer_depths()
    assert set(depths) == set(backbone.net.parameters())
    return {key: depths[p] for key, p in backbone.net.named_parameters()}


def test_a_vision_transformer_has_a_layer_for_each_block_and_one_before_them():
    depths = depths_of("vit_tiny_patch16_224")
    assert depths["model.blocks.11.mlp.fc2.weight"] == 1
    assert depths["model.blocks.0.attn.qkv.weight"] == 12
    assert depths["model.pos_embed"] == depths["model.patch_embed.proj.bias"] == 13


def test_names_of_a_network_that_timm_takes_apart_are_found_again():
    depths = depths_of("convnext_atto")  # blocks 2, 2, 6, 2
    assert depths["stages_3.blocks.1.mlp.fc2.weight"] == 1
    assert depths["stages_0.blocks.0.conv_dw.weight"] == 12
    assert depths["stem_0.weight"] == 13
    depths = depths_of("resnet10t")
    assert [depths[f"layer{i}.0.conv1.weight"] for i in (4, 3, 2, 1)] == [1, 2, 3, 4]
    assert depths["conv1.0.weight"] == 5


def test_networks_whose_layers_timm_does_not_group_are_told(monkeypatch):
    from timm.models.resnet import ResNet

    backbone = TimmBackbone("resnet10t", pretrained=False)
    monkeypatch.delattr(ResNet, "group_matcher")
    with pytest.raises(UserError, match=r"optim.layer_decay: timm does not group the layers of resnet10t; use null"):
        backbone.layer_depths()
