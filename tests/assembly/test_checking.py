from pathlib import Path

import pytest

from aggmask.assembly import checking
from aggmask.errors import UserError
from tests.assembly.test_config import DEBUG, EXPERIMENTS
from tests.runs import composed


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_without_a_problem(experiment):
    checking.check(composed(f"experiment={experiment}", "name=x", "output_dir=x"), "train")


@pytest.mark.parametrize("debug", DEBUG)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_can_be_debugged(experiment, debug):
    """With an evaluation that Lightning takes: not after more batches than an epoch has."""
    cfg = composed(f"experiment={experiment}", f"debug={debug}", "name=x", "output_dir=x")
    checking.check(cfg, "train")
    trainer = cfg.trainer
    assert trainer.get("val_check_interval", 1.0) == 1.0
    assert 0 < trainer.check_val_every_n_epoch <= trainer.max_epochs
    assert trainer.max_steps == -1 or trainer.max_steps >= trainer.max_epochs * trainer.limit_train_batches


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model.aggregation.windoww=5", r"model\.aggregation\.windoww: .*DynamicAggregation.*did you mean 'window'"),
        ("model.aggregation.window=abc", r"model\.aggregation\.window=abc: must be 1 or 4 or 5 or 9 or 25"),
        ("model.aggregation.init=none", r"model\.aggregation\.init=none: must be published or zero"),
        ("model.aggregation.residual=1", r"model\.aggregation\.residual=1: must be bool"),
        ("+trainer.max_epoch=5", r"trainer\.max_epoch: .*did you mean 'max_epochs'"),
        ("+optim.schedule.gama=5", r"optim\.schedule\.gama: .*did you mean 'gamma'"),
        (
            "+callbacks.ema.decay=0.9",
            r"callbacks\.ema: nothing says what it is; say callbacks=ema too, and its keys",
        ),
        ("+callbacks.progres.refresh_rate=1", r"callbacks\.progres: nothing says what it is; did you mean 'progress'"),
        ("+logger.wandb.mode=offline", r"logger\.wandb: nothing says what it is; say logger=wandb too"),
        ("+sweep.njobs=4", r"sweep\.njobs: a sweep has no such key; did you mean 'n_jobs'"),
        ("+sed=5", r"sed: .*did you mean 'seed'"),
        ("+data.prepare.sizes=5", r"data\.prepare\.sizes: .*did you mean 'size'"),
        ("model.bank._target_=aggmask.nothing", r"model\.bank\._target_: cannot import 'aggmask\.nothing'"),
    ],
)
def test_what_nothing_reads_is_named(override, message):
    cfg = composed("experiment=demo", "name=x", "output_dir=x", override)
    with pytest.raises(UserError, match=message):
        checking.check(cfg, "train")


def test_a_key_without_a_close_name_lists_the_valid_ones():
    cfg = composed("experiment=demo", "name=x", "output_dir=x", "+decoder.qqq=5")
    with pytest.raises(UserError, match=r"decoder\.qqq: .*valid: keep_threshold"):
        checking.check(cfg, "train")


def test_all_problems_are_told_at_once():
    cfg = composed("experiment=demo", "name=x", "output_dir=x", "+seedd=1", "+decoder.sigmaa=1")
    with pytest.raises(UserError) as error:
        checking.check(cfg, "train")
    assert len(str(error.value).splitlines()) == 2


def test_a_whole_number_fits_a_float_and_a_truth_value_does_not():
    checking.check(composed("experiment=demo", "name=x", "output_dir=x", "optim.lr=1"), "train")
    with pytest.raises(UserError, match=r"optim\.lr=True: must be float"):
        checking.check(composed("experiment=demo", "name=x", "output_dir=x", "optim.lr=true"), "train")


def test_a_part_is_checked_as_checkpoints_hold_it():
    """Places may be paths, and hold signs that a configuration would read as its own."""
    data = {"_target_": "aggmask.data.datamodule.CocoDataModule", "root": Path("/x"), "cache_dir": "a ${b}"}
    checking.check_part(data, "data")
    with pytest.raises(UserError, match=r"^data\.batch_size=many: must be int$"):
        checking.check_part({**data, "batch_size": "many"}, "data")
