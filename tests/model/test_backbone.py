"""Any timm network with features at strides 4 to 32. No hub is contacted here."""

import pytest
import timm
import torch

from aggmask.errors import UserError
from aggmask.model.backbone import TimmBackbone


@pytest.fixture(scope="module")
def resnet18() -> TimmBackbone:
    return TimmBackbone("resnet18", pretrained=False)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    model = timm.create_model("resnet18")
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    return model.state_dict()


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


def test_unknown_names_have_suggestions():
    with pytest.raises(UserError, match=r"name=resnet1: timm has no such network; did you mean .*resnet1"):
        TimmBackbone("resnet1", pretrained=False)


def test_networks_without_the_strides_are_refused():
    with pytest.raises(UserError, match=r"name=convmixer_768_32: features at strides \(7, 7, 7, 7\)"):
        TimmBackbone("convmixer_768_32", pretrained=False)
    with pytest.raises(UserError, match=r"name=levit_128: gives no maps at strides"):
        TimmBackbone("levit_128", pretrained=False)


def test_networks_for_pictures_of_one_size_are_refused():
    with pytest.raises(UserError, match=r"name=beit_base_patch16_224: takes no pictures of 64 x 96 pixels"):
        TimmBackbone("beit_base_patch16_224", pretrained=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_is_loaded_exactly(tmp_path, weights, suffix):
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        from safetensors.torch import save_file

        save_file(weights, path)
    loaded = TimmBackbone("resnet18", weights=str(path)).net.state_dict()
    assert loaded
    for name, value in loaded.items():
        assert torch.equal(value, weights[name]), name
    assert {name for name in weights if name not in loaded} == {"fc.weight", "fc.bias"}


def test_files_of_another_network_are_refused(tmp_path, weights):
    path = tmp_path / "weights.pth"
    torch.save({name: value for name, value in weights.items() if name != "layer3.0.bn2.weight"}, path)
    with pytest.raises(UserError, match=r"has no 'layer3.0.bn2.weight', which resnet18 needs"):
        TimmBackbone("resnet18", weights=str(path))
    torch.save(weights, path)
    with pytest.raises(UserError, match=r"'layer1.0.conv1.weight' has the shape \(64, 64, 3, 3\)"):
        TimmBackbone("resnet50", weights=str(path))
    torch.save(weights | {"layer4.1.conv2.weight": torch.zeros(5)}, path)
    with pytest.raises(
        UserError, match=r"'layer4.1.conv2.weight' has the shape \(5,\), and resnet18 has \(512, 512, 3, 3\)"
    ):
        TimmBackbone("resnet18", weights=str(path))


def test_files_that_are_missing_or_unreadable_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        TimmBackbone("resnet18", weights=str(tmp_path / "nothing.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a readable weight file"):
        TimmBackbone("resnet18", weights=str(tmp_path / "text.pth"))


def test_without_a_network_the_message_says_what_to_do(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(OSError\).*model.backbone.weights=FILE"):
        TimmBackbone("resnet18", pretrained=True)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]
)
def test_other_families(name):
    backbone = TimmBackbone(name, pretrained=False)
    features = backbone(torch.randn(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == backbone.channels
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2]
    # What makes the features of stride 4 is frozen, all of it and nothing beyond.
    features[0].sum().backward() if features[0].requires_grad else None
    assert all(p.grad is None for p in backbone.parameters())
    features[1].sum().backward()
    used = [p for p in backbone.parameters() if p.grad is not None]
    assert used
    assert sum(not p.requires_grad for p in backbone.parameters()) > 2
