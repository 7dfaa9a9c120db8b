"""Which norms are converted. That they then see the images of all GPUs is PyTorch's part, and needs GPUs."""

import pytest
import torch
from torch.nn import BatchNorm2d, SyncBatchNorm

from aggmask import train
from aggmask.assembly.build import build_trainer
from aggmask.callbacks.sync_norms import SyncNorms
from aggmask.model.backbone import TimmBackbone
from tests.data.make_coco import make_coco
from tests.runs import SMALL, command, composed


def converted(net: torch.nn.Module) -> set[str]:
    return {name for name, module in net.named_modules() if isinstance(module, SyncBatchNorm)}


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0"])
def test_converted_norms_compute_the_same_with_the_same_weights(name):
    """tf_efficientnet_lite0 keeps its activations inside the norms."""
    net = TimmBackbone(name, pretrained=False, frozen_stages=0, frozen_norm=False).eval()
    norms = {k for k, module in net.named_modules() if isinstance(module, BatchNorm2d)}
    images, keys = torch.randn(1, 3, 64, 64), list(net.state_dict())
    with torch.no_grad():
        before = net(images)
        net = SyncNorms().apply(net).eval()
        after = net(images)
    assert converted(net) == norms
    assert list(net.state_dict()) == keys
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_frozen_norms_stay_as_they_are(caplog):
    net = SyncNorms().apply(TimmBackbone("resnet18", pretrained=False, frozen_stages=1, frozen_norm=False))
    assert "net.layer2.0.bn1" in converted(net)
    assert not any(name.startswith(("net.bn1", "net.layer1")) for name in converted(net))
    assert not net.train().net.bn1.training
    assert not caplog.records
    assert not converted(SyncNorms().apply(TimmBackbone("resnet18", pretrained=False)))
    assert "nothing to do" in caplog.text


def test_the_option_reaches_the_strategy_and_a_cpu_is_refused(tmp_path, monkeypatch, capsys):
    root = make_coco(tmp_path / "coco", images=2, val_images=1)
    settings = ["experiment=solo_r50", f"data.root={root}", f"hydra.run.dir={tmp_path}/run", *SMALL]
    status, said = command(monkeypatch, capsys, train, *settings, "trainer.sync_batchnorm=true")
    assert status == 2
    assert "trainer.sync_batchnorm=true: norms can be synchronized between GPUs only" in said
    node = train.plain(
        composed("experiment=demo", "name=x", "output_dir=x", "trainer=ddp", "trainer.devices=2").trainer
    )
    monkeypatch.setattr("pytorch_lightning.strategies.DDPStrategy.root_device", torch.device("cuda"))
    for on in (False, True):
        trainer = build_trainer(node | {"accelerator": "cpu", "sync_batchnorm": on}, logger=False)
        assert isinstance(trainer.strategy._layer_sync, SyncNorms) == on
