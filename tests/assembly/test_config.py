import inspect
import re
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from aggmask.assembly import config
from tests.runs import composed

CONF = Path(config.conf_dir())
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
AGGREGATING = [name for name in EXPERIMENTS if not re.fullmatch(r"solo(v2)?(_light)?_r\d+", name)]
DEBUG = sorted(path.stem for path in (CONF / "debug").glob("*.yaml"))


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


def test_plain_resolves_and_leaves_no_configuration_objects():
    made = config.plain(OmegaConf.create({"a": 1, "b": {"c": ["${a}"]}}))
    assert made == {"a": 1, "b": {"c": [1]}}
    assert type(made["b"]) is dict
    assert type(made["b"]["c"]) is list
