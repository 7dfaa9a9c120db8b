"""Commands as the tests run them: the real configurations, shrunk, in this process."""

import logging
import signal
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from aggmask.assembly.config import conf_dir
from aggmask.signals import ENDING
from aggmask.train import train

SMALL = [
    "model.backbone.name=resnet10t",
    "model.backbone.pretrained=false",
    "model.backbone.frozen_stages=0",
    "model.fpn_channels=32",
    "model.category.width=32",
    "model.category.depth=1",
    "model.bank.width=32",
    "model.bank.depth=1",
    "data.short_side=64",
    "data.long_side=96",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.enable_progress_bar=false",
]
SMALL_BACKBONES = {  # of the experiments' own family, where that is not ResNet
    "convnext_tiny_agg": "convnext_atto",
    "vit_small_agg": "vit_tiny_patch16_224",
    "demo_pretrained": "tf_efficientnet_lite0",
}


def composed(*overrides: str, command: str = "train") -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def small_run(experiment: str, root: Path | str, output: Path | str, *overrides: str) -> dict:
    """Train the shrunk experiment for two steps and evaluate it."""
    settings = [f"experiment={experiment}", f"name={experiment}", f"output_dir={output}", f"data.root={root}"]
    family = [f"model.backbone.name={SMALL_BACKBONES[experiment]}"] if experiment in SMALL_BACKBONES else []
    return train(composed(*settings, *SMALL, *family, *overrides))


def command(monkeypatch, capsys, module, *arguments: str) -> tuple[int, str]:
    """Run a command as its main function does; (exit status, what it printed on both streams)."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    monkeypatch.setenv("AGGMASK_PARENT", "")  # so that what the command leaves there goes
    status, handlers, heard = 0, logging.root.handlers[:], {number: signal.getsignal(number) for number in ENDING}
    try:
        module.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        logging.root.handlers[:] = handlers  # Hydra's write to streams that are closed by now
        for number, handler in heard.items():
            signal.signal(number, handler)
    streams = capsys.readouterr()
    return status, streams.out + streams.err
