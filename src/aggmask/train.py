"""Train: `python -m aggmask.train experiment=NAME [key=value ...]`."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggmask.assembly.command import hydra_task, run_command, unquoted
from aggmask.assembly.config import experiments, plain, register_resolvers
from aggmask.checkpoints.run_folder import refuse_another
from aggmask.data.processors import global_rank, queued_again, slurm_job
from aggmask.errors import UserError
from aggmask.files import write_whole
from aggmask.launcher.alone import alone_in
from aggmask.launcher.command_line import arguments_of, refuse_shared_process
from aggmask.launcher.job import PARENT, end_with_parent, frozen_folder, run_frozen
from aggmask.signals import Interrupted, end_at_once

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from aggmask.data.datamodule import CocoDataModule

log = logging.getLogger(__name__)
register_resolvers()


def train(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Everything from a composed configuration to a trained model; returns the objects that took part.

    Raises:
        Interrupted: a signal has ended it; `resume=auto` goes on from where it was.
    """
    config = plain(cfg)
    # Before anything of the folder is read: whoever works in it may be writing a checkpoint.
    with alone_in(config["output_dir"]) if global_rank() == 0 else nullcontext():
        return _train(config)


def _train(config: dict[str, Any]) -> dict[str, Any]:
    import pytorch_lightning as pl
    from omegaconf import OmegaConf

    from aggmask.assembly.build import build, build_module, build_trainer, make_recipe
    from aggmask.assembly.memory_check import MemoryCheck
    from aggmask.assembly.resume import checkpoint_of
    from aggmask.callbacks.agreement import SameConfiguration
    from aggmask.callbacks.wandb_run import finished

    # Hydra has made the run's folder, so that it exists says nothing.
    warnings.filterwarnings("ignore", r"(Experiment logs|Checkpoint) directory .* exists and is not empty")
    warnings.filterwarnings("ignore", r"`ModelCheckpoint\(.*could not find the monitored key")  # no evaluation yet
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # frozen norms, which are meant to be
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build(config["data"])
    config["resume"] = checkpoint_of(config, lambda: data.categories)
    _warn_of_frozen_noise(config)
    _warn_of_unseen_categories(data)
    module = build_module(make_recipe(config, data.categories))
    loggers = [build(node) for node in config["logger"].values() if node]
    if not config["trainer"]["enable_progress_bar"]:
        config["callbacks"].pop("progress", None)  # which Lightning would refuse beside that key
    callbacks = [
        SameConfiguration(config),
        MemoryCheck(),
        *(build(node) for node in config["callbacks"].values() if node),
    ]
    trainer = build_trainer(
        config["trainer"], logger=loggers, callbacks=callbacks, default_root_dir=config["output_dir"]
    )
    if trainer.strategy.root_device.type == "mps":
        raise UserError(
            f"trainer.accelerator={config['trainer']['accelerator']}: Apple's MPS has no float64, in which training "
            "places objects on the grids; say trainer=cpu"
        )
    if trainer.is_global_zero:
        text = OmegaConf.to_yaml(OmegaConf.create(config))
        write_whole(Path(config["output_dir"], "config.yaml"), lambda file: file.write(text.encode()))
    with finished(loggers):
        for logger in loggers:
            logger.log_hyperparams(config)
        trainer.fit(module, datamodule=data, ckpt_path=config["resume"], weights_only=True)
        if trainer.limit_val_batches and module.evaluated_at != trainer.global_step:  # that of the end was cut short
            trainer.validate(module, datamodule=data, verbose=False)
    return {"config": config, "data": data, "module": module, "trainer": trainer}


def _warn_of_frozen_noise(config: Mapping[str, Any]) -> None:
    backbone = config["model"]["backbone"]
    if not (backbone["pretrained"] or backbone["weights"] or config["resume"]) and backbone["frozen_stages"]:
        log.warning(
            "random weights are frozen: model.backbone.frozen_stages=0 model.backbone.frozen_norm=false train all"
        )


def _warn_of_unseen_categories(data: CocoDataModule) -> None:
    data.prepare_data()
    data.setup("fit")
    unseen = data.train_dataset.index.unseen()  # on every rank, so that all of them stop where it cannot be read
    if unseen and global_rank() == 0:
        names = ", ".join(f"{category.id} ({category.name!r})" for category in unseen[:10])
        log.warning(
            "%d of %d categories have no object to learn from: %s%s. Where one is no class but an exporter's parent of "
            "the others, python -m aggmask.doctor fix=FILE makes a copy without it",
            len(unseen), len(data.categories), names, ", ..." if len(unseen) > 10 else "",
        )  # fmt: skip


def _report(trainer: pl.Trainer, output_dir: str) -> float | None:
    """Say where everything is; the number that a sweep compares."""
    best = trainer.checkpoint_callbacks[0].best_model_score if trainer.checkpoint_callbacks else None
    ap = trainer.callback_metrics.get("val/AP") if best is None else best
    if trainer.is_global_zero:
        told = "no evaluation was made" if ap is None else f"best mask AP {ap:.4f}"
        print("no mask AP: there is no object in what was evaluated" if ap == -1 else told)
        print(f"run folder: {output_dir}")
    return None if ap is None else float(ap)


def _run(cfg: DictConfig | Mapping[str, Any]) -> float | None:
    try:
        return _report(train(cfg)["trainer"], cfg["output_dir"])
    except Interrupted as stop:
        if global_rank() == 0:
            print(f"ended by {stop.name}; this goes on: {_how_to_go_on(cfg['output_dir'])}", flush=True)
        raise


def _how_to_go_on(folder: str) -> str:
    arguments = sys.argv[1:]
    if not frozen_folder(arguments):
        own = ("resume=", "output_dir=", "hydra.run.dir=")
        arguments = [a for a in arguments if not a.startswith(own)] + [f"output_dir={folder}", "resume=auto"]
    command = shlex.join(["python", "-m", "aggmask.train", *arguments])
    launched = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"))
    return f"{command} (started as before: by torchrun, by srun or by itself)" if launched else command


def _queue_again(stop: Interrupted) -> None:
    """Ask SLURM for another start where it is about to take the machine back; for a sweep's job its launcher asks."""
    if stop.number != signal.SIGUSR1 or "SLURM_JOB_ID" not in os.environ or frozen_folder(sys.argv[1:]):
        return
    try:
        subprocess.run(["scontrol", "requeue", slurm_job()], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("SLURM did not queue the job again: %s", error)


@hydra_task("train")
def _main(cfg: DictConfig) -> float | None:
    refuse_shared_process(cfg.trainer)
    return _run(cfg)


def main() -> None:
    """Entry point of `python -m aggmask.train` and `aggmask-train`."""
    end_at_once()
    folder = frozen_folder(sys.argv[1:])
    run_command(partial(run_frozen, folder, _run) if folder else _named_experiment)


def _named_experiment() -> None:
    # Of a rank, the main one, which would wait half an hour for a killed one; of a sweep, the study that started it.
    if global_rank() or os.environ.get(PARENT) == str(os.getppid()):
        end_with_parent()
    if not global_rank():
        os.environ[PARENT] = str(os.getpid())
    sys.argv[1:] = arguments_of(sys.argv[1:])
    # Asked before Hydra starts, which would already make a folder for the run.
    asked = [a.lstrip("+") for a in sys.argv[1:] if a not in ("--multirun", "-m")]
    if not any(a.startswith(("experiment=", "-")) for a in asked):
        lines = "".join(f"\n  experiment={name}" for name in experiments())
        raise UserError(f"say which experiment to run:{lines}\nWithout any data set at hand: experiment=demo")
    given = [a.removeprefix("output_dir=") for a in asked if a.startswith("output_dir=")]
    begins = not any(a.lstrip("+").startswith(("resume=", "-")) for a in sys.argv[1:]) and not queued_again()
    if given and begins and not global_rank():
        refuse_another(unquoted(given[-1]))  # before Hydra writes its words into that folder
    if given and not any(a.startswith("hydra.run.dir=") for a in asked):
        sys.argv.append(f"hydra.run.dir={given[-1]}")  # or Hydra would make a folder of its own for train.log
    try:
        _main()
    except Interrupted as stop:
        if not global_rank():
            _queue_again(stop)
        raise


if __name__ == "__main__":
    main()
