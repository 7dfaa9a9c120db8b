import inspect
import re
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from aggmask.assembly import config
from aggmask.errors import UserError
from tests.runs import composed

CONF = Path(config.conf_dir())
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
AGGREGATING = [name for name in EXPERIMENTS if not re.fullmatch(r"solo(v2)?(_light)?_r\d+", name)]
DEBUG = sorted(path.stem for path in (CONF / "debug").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_without_a_problem(experiment):
    config.check(composed(f"experiment={experiment}", "name=x", "output_dir=x"), "train")


@pytest.mark.parametrize("debug", DEBUG)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_can_be_debugged(experiment, debug):
    """With an evaluation that Lightning takes: not after more batches than an epoch has."""
    cfg = composed(f"experiment={experiment}", f"debug={debug}", "name=x", "output_dir=x")
    config.check(cfg, "train")
    trainer = cfg.trainer
    assert trainer.get("val_check_interval", 1.0) == 1.0
    assert 0 < trainer.check_val_every_n_epoch <= trainer.max_epochs
    assert trainer.max_steps == -1 or trainer.max_steps >= trainer.max_epochs * trainer.limit_train_batches


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_a_small_difference_with_its_command_on_top(experiment):
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert f"# python -m aggmask.train experiment={experiment}" in lines[1]
    difference = [line for line in lines if not line.startswith("#")]
    assert len(difference) <= 8


@pytest.mark.parametrize("experiment", AGGREGATING)
def test_neighbors_that_move_change_nothing_else(experiment):
    """Not even the start and the branch of a study, which another whole aggregation would replace."""
    said = f"experiment={experiment}", "name=x", "output_dir=x"
    given = OmegaConf.to_container(composed(*said).model)
    moved = OmegaConf.to_container(composed(*said, "model/aggregation/neighbors=deformable").model)
    assert [model["aggregation"].pop("neighbors").get("bound") for model in (given, moved)] == [None, 2]
    assert moved == given


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
        config.check(cfg, "train")


def test_a_key_without_a_close_name_lists_the_valid_ones():
    cfg = composed("experiment=demo", "name=x", "output_dir=x", "+decoder.qqq=5")
    with pytest.raises(UserError, match=r"decoder\.qqq: .*valid: keep_threshold"):
        config.check(cfg, "train")


def test_all_problems_are_told_at_once():
    cfg = composed("experiment=demo", "name=x", "output_dir=x", "+seedd=1", "+decoder.sigmaa=1")
    with pytest.raises(UserError) as error:
        config.check(cfg, "train")
    assert len(str(error.value).splitlines()) == 2


def test_a_whole_number_fits_a_float_and_a_truth_value_does_not():
    config.check(composed("experiment=demo", "name=x", "output_dir=x", "optim.lr=1"), "train")
    with pytest.raises(UserError, match=r"optim\.lr=True: must be float"):
        config.check(composed("experiment=demo", "name=x", "output_dir=x", "optim.lr=true"), "train")


def whole(path):
    """A file of conf/ over those of its folder that it starts from, plain; other folders' files are looked at alone."""
    own = OmegaConf.load(path)
    names = [name for name in own.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*(whole(path.with_name(f"{name}.yaml")) for name in names), own))


def targets_in(node):
    """Every node that describes an object, at any depth."""
    if isinstance(node, dict) and "_target_" in node:
        yield node
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from targets_in(value)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_default_of_the_configurations_is_an_argument_of_what_it_configures(path):
    """The other direction: a file of conf/ that no experiment uses is checked too."""
    for node in targets_in(whole(path)):
        called, keys = get_object(node.pop("_target_")), set(node) - {"_partial_"}
        if path.parent.name == "trainer":
            keys -= {"on_nan", "on_oom"}  # which become callbacks
        parameters = inspect.signature(called).parameters
        if "engine" in node:  # the launcher passes on what it does not read
            parameters = parameters | inspect.signature(get_object(node["engine"])).parameters
        elif any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        assert keys <= set(parameters), called


def test_run_stamp_is_what_all_processes_of_a_job_agree_on(monkeypatch):
    def stamp(**env):
        for name in ("AGGMASK_RUN_STAMP", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "TORCHELASTIC_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return config.run_stamp()

    monkeypatch.setattr(config.sys, "argv", ["train", "seed=0"])
    words = config._words()
    assert re.fullmatch(r"[0-9a-f]{4}", words)
    assert stamp(SLURM_JOB_ID="17") == f"slurm-17-{words}"
    assert stamp(SLURM_JOB_ID="19", SLURM_ARRAY_JOB_ID="18", SLURM_ARRAY_TASK_ID="1") == f"slurm-18_1-{words}"
    assert stamp(TORCHELASTIC_RUN_ID="abcdefghijk") == f"torchrun-abcdefgh-{words}"
    monkeypatch.setattr(config.sys, "argv", ["train", "seed=1"])
    assert stamp(SLURM_JOB_ID="17") not in ("slurm-17", f"slurm-17-{words}")  # another training of the same job
    assert stamp(AGGMASK_RUN_STAMP="parent") == "parent"
    started = stamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", started)
    assert config.run_stamp() == started


def test_a_part_is_checked_as_checkpoints_hold_it():
    """Places may be paths, and hold signs that a configuration would read as its own."""
    data = {"_target_": "aggmask.data.datamodule.CocoDataModule", "root": Path("/x"), "cache_dir": "a ${b}"}
    config.check_part(data, "data")
    with pytest.raises(UserError, match=r"^data\.batch_size=many: must be int$"):
        config.check_part({**data, "batch_size": "many"}, "data")


def test_plain_resolves_and_leaves_no_configuration_objects():
    made = config.plain(OmegaConf.create({"a": 1, "b": {"c": ["${a}"]}}))
    assert made == {"a": 1, "b": {"c": [1]}}
    assert type(made["b"]) is dict
    assert type(made["b"]["c"]) is list
