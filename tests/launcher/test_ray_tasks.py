"""Jobs on a Ray of this machine."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from aggmask.errors import UserError
from aggmask.launcher.ray_tasks import Ray
from aggmask.launcher.schedule import Schedule
from tests.launcher.processes import is_alive, python_path, until
from tests.launcher.stub_job import number_of
from tests.launcher.stub_sweep import MODULE, freeze


@pytest.fixture
def engine(monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("STUB_FAILS", "1")
    for name in ("LOCAL_RANK", "RANK", "PL_GLOBAL_SEED"):
        monkeypatch.setenv(name, "7")
    yield Ray(MODULE, n_jobs=2, gpus=None, address=None, cpus_per_device=0.5, max_retries=1)
    ray.shutdown()


class FakeRay(ModuleType):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.asked = {}

    def init(self, address, **options):
        if address == "nowhere:1":
            raise ConnectionError("nobody answers")
        self.asked["address"] = address

    def remote(self, function):
        return self

    def options(self, **options):
        self.asked |= options
        return SimpleNamespace(remote=lambda *arguments: None)


def test_what_ray_is_asked_for(tmp_path, monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    ray = Ray(MODULE, 1, None, "auto", cpus_per_device=3, max_retries=2)
    ray.start(freeze(tmp_path, 4, devices=2, accelerator="gpu"), [])
    assert fake.asked == {"address": "auto", "num_cpus": 6, "num_gpus": 2, "max_retries": 2, "name": "aggmask-4"}
    ray.start(freeze(tmp_path, 5, accelerator="cpu"), [])
    assert (fake.asked["num_cpus"], fake.asked["num_gpus"]) == (3, 0)
    with pytest.raises(UserError, match=r"trainer\.num_nodes=2: .*hydra/launcher=slurm"):
        ray.check(freeze(tmp_path, 6, num_nodes=2))
    with pytest.raises(UserError, match=r"hydra\.launcher\.address=nowhere:1: nobody answers"):
        Ray(MODULE, 1, None, "nowhere:1", 1, 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'aggmask\[ray\]'"):
        Ray(MODULE, 1, None, None, 1, 0)


@pytest.mark.slow  # Ray needs 20 s to start
def test_jobs_run_fail_and_are_interrupted(tmp_path, engine):
    jobs = [freeze(tmp_path, seed) for seed in range(3)]
    Schedule(engine).run(jobs)
    assert [job.state for job in jobs] == ["done", "failed", "done"]
    assert [jobs[n].outcome["objective"] for n in (0, 2)] == [number_of(0, 4), number_of(2, 4)]
    assert jobs[1].outcome["error"] == "ValueError: seed 1 is not liked"
    long = freeze(tmp_path, 5, epochs=1000)
    started = engine.start(long, [])
    until((long.folder / "last.ckpt").exists)
    engine.end([started])
    until(lambda: long.state == "interrupted", seconds=15)
    until(lambda: not is_alive(long.attempt["pid"]), seconds=5)
    gone = freeze(tmp_path, 7)
    Schedule(type(engine)("tests.launcher.no_such_module", 1, None, None, 0.5, 1)).run([gone])
    assert "exit code 1" in gone.outcome["error"]
