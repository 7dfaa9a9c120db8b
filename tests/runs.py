"""Commands as the tests run them: the real configurations, shrunk, in this process."""

import logging
import signal
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from aggmask.assembly import memory_check
from aggmask.assembly.config import conf_dir
from aggmask.signals import ENDING
from aggmask.train import train

SMALL = [
    "model.backbone.name=test_resnet",  # half a million weights: a twentieth of the smallest real one
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
SMALL_SOLOV2 = ["model.bank.channels=32", "model.bank.feature_width=32"]  # beside SMALL, where kernels are predicted
SMALL_STAR = [*SMALL_SOLOV2, "model.aggregation.weights.width=32", "model.aggregation.weights.depth=1"]
SMALL_BACKBONES = {  # of the experiments' own family, where that is not ResNet
    "convnext_tiny_agg": "convnext_atto",
    "vit_small_agg": "vit_tiny_patch16_224",
    "demo_pretrained": "tf_efficientnet_lite0",
    "study": "tf_efficientnet_lite0",
}


def composed(*overrides: str, command: str = "train") -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def small_run(
    experiment: str, root: Path | str, output: Path | str, *overrides: str, forecasts_memory: bool = False
) -> dict:
    """Train the shrunk experiment for two steps and evaluate it.

    Args:
        forecasts_memory: as a training does that is told what is free; it takes a sixth of the time of such a run.
    """
    settings = [f"experiment={experiment}", f"name={experiment}", f"output_dir={output}", f"data.root={root}"]
    own = [f"model.backbone.name={SMALL_BACKBONES[experiment]}"] if experiment in SMALL_BACKBONES else []
    if experiment.startswith("solov2"):
        own += SMALL_STAR if "_agg" in experiment else SMALL_SOLOV2
    with pytest.MonkeyPatch.context() as patch:
        if not forecasts_memory:
            patch.setattr(memory_check, "free_bytes", lambda: None)  # as where nobody says it
        return train(composed(*settings, *SMALL, *own, *overrides))


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
