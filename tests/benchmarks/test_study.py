"""The study's steps: variants, the tuned rate, the same time for all, and that it goes through all of them."""

import json
import signal

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from aggmask import train
from aggmask.assembly.build import build
from aggmask.launcher.ledger import Ledger
from aggmask.launcher.locks import held
from aggmask.launcher.schedule import Schedule
from aggmask.reporting.runs import FINISHED, Run
from aggmask.signals import ENDING, Interrupted
from benchmarks import by_seed, step_times, study
from tests.runs import command


def run_of(job, seconds=1.0, lr=0.001, aps=(0.1,), steps=100, name="0"):
    logged = {"train/step_seconds": [(0, i, seconds) for i in range(3)], "val/AP": [(0, 0, ap) for ap in aps]}
    run = Run(None, name, {"optim": {"lr": lr}, "trainer": {"max_steps": steps}}, ("seed=0", *job), FINISHED, "")
    object.__setattr__(run, "logged", logged)
    return run


def test_the_rate_with_the_best_ap_at_any_time_is_known():
    aps = study.aps_by_rate([run_of([], lr=0.001, aps=(0.1, 0.3, 0.2)), run_of([], lr=0.002, aps=(0.25,))])
    assert aps == {0.001: 0.3, 0.002: 0.25}


def test_a_variant_that_takes_twice_as_long_gets_half_of_the_steps():
    jobs = [["a=1"], ["a=2"], ["a=2", "b=1"]]
    timed = study.same_time(jobs, {"a=1": 1.0, "a=2": 2.0, "a=2 b=1": 0.5}, 100, ["a=1"])
    assert timed[0] == ["a=1", "trainer.max_steps=100", "trainer.val_check_interval=50"]
    assert timed[1] == ["a=2", "trainer.max_steps=50", "trainer.val_check_interval=25"]
    assert timed[2] == ["a=2", "b=1", "trainer.max_steps=200", "trainer.val_check_interval=100"]


@pytest.mark.parametrize(("sweep", "experiment"), [(name, study.experiment_of(name)) for name in study.BASELINES])
def test_every_variant_is_a_model_of_its_own(sweep, experiment, monkeypatch, capsys, tmp_path):
    """Composed and checked as the sweep does it; the list of jobs and the grid of seeds together."""
    monkeypatch.setattr(Schedule, "run", lambda self, jobs: [job.finish(None) for job in jobs])
    said = ["--multirun", f"+sweep={sweep}", f"experiment={experiment}", f"hydra.sweep.dir={tmp_path}/sweep"]
    seeds = "seed=0,1" if sweep == "study_main" else "seed=0"
    status, text = command(monkeypatch, capsys, train, *said, seeds)
    assert status == 0, text
    jobs, listed = Ledger.read(tmp_path / "sweep").jobs(), study.jobs_of(sweep)
    assert len(jobs) == (1 + seeds.count(",")) * len(listed)
    models = [json.dumps(job.config["model"]) for job in jobs if job.config["seed"] == 0]
    assert len(set(models)) == len(listed)
    assert study.BASELINES[sweep].split() in listed
    assert all(job in study.jobs_of(experiment) for job in listed)
    for text in models if sweep == experiment else ():
        model = json.loads(text)
        model["backbone"] |= {"pretrained": False, "weights": None}
        with torch.device("meta"):
            assert len(build(model, num_classes=8).head.levels) == 3
    assert all(job.config["data"]["root"] == "datasets/shapes_hard" for job in jobs)


def test_rates_are_tried_for_the_baseline_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Schedule, "run", lambda self, jobs: [job.finish(None) for job in jobs])
    said = ["--multirun", "+sweep=study_rate", "experiment=study", f"hydra.sweep.dir={tmp_path}/sweep"]
    status, text = command(monkeypatch, capsys, train, *said)
    assert status == 0, text
    jobs = Ledger.read(tmp_path / "sweep").jobs()
    assert [job.config["optim"]["lr"] for job in jobs] == [0.0005, 0.001, 0.002, 0.004]
    assert {job.config["model"]["aggregation"]["_target_"].rpartition(".")[2] for job in jobs} == {"KeepCell"}
    assert set(study.BASELINES["study"].split()) <= set(jobs[0].overrides)


def test_it_trains_evaluates_and_tells_both_tables(monkeypatch, tmp_path):
    """Only its own steps: what they start is replaced."""
    calls, told, seeds = [], [], []
    listed = study.jobs_of("study_main")
    runs = [run_of(job) for job in listed]
    timings = []

    def seconds(configs):
        timings.append(list(configs))
        taken = (1.0, 1.0, 2.0, 1.5, 2.5)
        return {name: [value, 9 * value, value / 2] for name, value in zip(configs, taken, strict=True)}

    monkeypatch.setattr(step_times, "step_seconds", seconds)
    for run, name in zip(runs, "01234", strict=True):
        object.__setattr__(run, "name", name)
        object.__setattr__(run, "folder", tmp_path / name)
        (tmp_path / name / "test").mkdir(parents=True)
        (tmp_path / name / "test" / "results.json").write_text("[]")
    here = study.machine(threads=1)
    monkeypatch.setattr(study, "machine", lambda threads: here)
    monkeypatch.setattr(study, "run_to_its_end", lambda words: calls.append(words[3:]) or 0)
    monkeypatch.setattr(study, "finished", lambda place: runs)
    monkeypatch.setattr(study, "report", lambda *a, **k: (told.append((a, k)), a[2].mkdir(parents=True)))
    monkeypatch.setattr(by_seed, "write", lambda file, jobs, of, pool: seeds.append((file.parent.name, jobs, of)))
    said = ["--sweep", "study_main", "--steps", "100", "--seeds", "0,1", "--data", "composites", "data.flip=0"]
    study.Study(study.settings_of([*said, "--folder", f"{tmp_path}/work", "--output", f"{tmp_path}/out"])).run()
    rate, steps, timed = calls
    assert "+sweep=study_rate" in rate
    for words in calls:
        assert {"experiment=study", "data=composites", "data.flip=0", "sweep.n_jobs=2"} <= set(words)
    assert "trainer.max_steps=100" in steps
    assert {"optim.lr=0.001", "seed=0,1", "hydra/sweeper=list"} <= set(steps) & set(timed)
    assert any("trainer.max_steps=50" in word for word in timed)  # twice as long
    assert record_of(tmp_path / "work")["seconds per step"][study.name_of(listed[2])]["most"] == 18.0
    assert "trainer.max_steps=100" not in timed
    for (folder, baseline, output), options in told:
        assert (folder.name, baseline, output.name) in [("steps", "0", "steps"), ("time", "0", "time")]
        assert options == {"pictures": 0, "split": "test"}
    assert seeds == [("steps", listed, runs), ("time", listed, runs)]
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert len(record["commands"]) == 3
    assert record["commands"][0].startswith("python -m aggmask.train --multirun")
    assert str(tmp_path / "work") in record["commands"][0]
    assert record["machine"]["cores"] > 0
    assert record["learning rate"] == 0.001
    (tmp_path / "work" / "steps" / "0").mkdir(parents=True)
    for name in ("sweep.json", "0/job.json", "0/last.ckpt"):
        (tmp_path / "work" / "steps" / name).write_text("{}")
    study.Study(study.settings_of([*said, "--folder", f"{tmp_path}/work", "--output", f"{tmp_path}/again"])).run()
    assert f"hydra.sweep.dir={tmp_path}/work/steps" in steps
    assert f"sweep.resume={tmp_path}/work/steps" in calls[4]
    again = json.loads((tmp_path / "again" / "record.json").read_text())
    assert again["commands"][:3] == record["commands"]
    assert len(again["commands"]) == 6
    assert timings == [[study.name_of(job) for job in listed]]  # once: the steps of a study stay
    study.Study(study.settings_of([*said, "--folder", f"{tmp_path}/work", "--table", "steps"])).run()
    study.Study(study.settings_of([*said, "--folder", f"{tmp_path}/work", "--table", "time"])).run()
    assert [
        place.rpartition("/")[2]
        for words in calls[6:]
        for place in words
        if place.startswith(("hydra.sweep.dir", "sweep.resume"))
    ] == ["rate", "steps", "rate", "time"]


def test_the_same_time_needs_no_trainings_of_as_many_steps(monkeypatch, tmp_path):
    """What is timed are the configurations of the trainings, composed."""
    timed, calls = {}, []
    monkeypatch.setattr(
        step_times, "step_seconds", lambda configs: timed.update(configs) or {name: [1.0] for name in configs}
    )
    monkeypatch.setattr(study, "run_to_its_end", lambda words: calls.append(words[3:]) or 0)
    monkeypatch.setattr(study, "finished", lambda place: [])
    monkeypatch.setattr(study.Study, "_tell", lambda self, name: None)
    said = ["--sweep", "study_solov2_main", "--steps", "100", "--lr", "0.003", "--data", "shapes_hard", "data.flip=0"]
    study.Study(study.settings_of([*said, "--folder", str(tmp_path), "--table", "time"])).run()
    assert len(calls) == 1
    assert list(timed) == [study.name_of(job) for job in study.jobs_of("study_solov2_main")]
    for config in timed.values():
        assert (config["optim"]["lr"], config["trainer"]["max_steps"], config["data"]["flip"]) == (0.003, 100, 0)
        assert config["data"]["root"] == "datasets/shapes_hard"
    models = [json.dumps(config["model"]) for config in timed.values()]
    assert len(set(models)) == len(models)


def test_a_variant_that_is_added_later_changes_no_steps_of_the_others(monkeypatch, tmp_path):
    base, *others, added = study.jobs_of("study_main")
    made = study.Study(study.settings_of(["--sweep", "study_main", "--folder", str(tmp_path), "--lr", "0.002"]))
    monkeypatch.setattr(step_times, "step_seconds", lambda configs: {name: [0.1] for name in configs})
    made._seconds([base, *others], 0.002)
    timed = {study.name_of(base): [0.2, 0.2], study.name_of(added): [0.3, 0.5]}  # the machine is slower now
    monkeypatch.setattr(step_times, "step_seconds", lambda configs: {name: timed[name] for name in configs})
    expected = {study.name_of(job): 0.1 for job in (base, *others)} | {study.name_of(added): 0.2}
    assert made._seconds([base, *others, added], 0.002) == pytest.approx(expected)


def test_step_times_are_kept_though_nothing_is_trained_by_them_yet(monkeypatch, tmp_path):
    """Else it would time anew, and the sweep get jobs of other numbers of steps beside those that it has."""
    words, jobs = ["--sweep", "study_main", "--folder", str(tmp_path), "--lr", "0.002"], study.jobs_of("study_main")
    monkeypatch.setattr(step_times, "step_seconds", lambda configs: {name: [0.1] for name in configs})
    before = study.Study(study.settings_of(words))._seconds(jobs, 0.002)
    monkeypatch.setattr(step_times, "step_seconds", lambda configs: {name: [0.2] for name in configs})
    assert study.Study(study.settings_of(words))._seconds(jobs, 0.002) == before
    other = study.Study(study.settings_of([*words, "--steps", "50"]))._seconds(jobs, 0.002)
    assert set(other.values()) == {0.2}


def record_of(folder) -> dict:
    return json.loads((folder / "record.json").read_text())


def test_a_training_that_fails_ends_it_in_plain_words(monkeypatch, tmp_path):
    made = study.Study(study.settings_of(["--folder", str(tmp_path), "--lr", "0.002"]))
    monkeypatch.setattr(study.sys, "executable", "false")
    with pytest.raises(SystemExit, match=r"a training failed \(status 1\).*start the study again with the same words"):
        made.run()
    with pytest.raises(SystemExit, match=r"no finished training of model/aggregation=none model\.aggregation\.init"):
        made._baseline_of([])
    (tmp_path / "steps").mkdir()
    with (
        held(tmp_path / "steps" / "sweep.lock", ""),
        pytest.raises(SystemExit, match=r"another process works on .*s: "),
    ):
        made.run()


def test_a_study_that_is_stopped_says_how_it_goes_on(monkeypatch, capsys, tmp_path):
    def interrupted(words):
        raise Interrupted(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in ENDING}
    monkeypatch.setattr(study, "run_to_its_end", interrupted)
    monkeypatch.setattr(study.sys, "argv", ["study", "--folder", str(tmp_path), "--lr", "0.002"])
    try:
        with pytest.raises(SystemExit) as stop:
            study.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stop.value.code == 128 + signal.SIGTERM
    assert f"this goes on: python -m benchmarks.study --folder {tmp_path} --lr 0.002" in capsys.readouterr().out


def test_folders_that_cannot_be_written_are_refused_first(tmp_path):
    for word, place in (("--folder", "/proc/x"), ("--output", "/proc/y")):
        with pytest.raises(SystemExit, match=rf"{word}={place}: cannot be written"):
            study.Study(study.settings_of(["--folder", str(tmp_path), word, place]))


def test_a_list_of_jobs_comes_through_the_command_line():
    jobs = [["model/aggregation=none", "optim.lr=0.001"], ["model.aggregation.window=9"]]
    override = OverridesParser.create().parse_override(study.quoted(jobs))
    assert override.key_or_group == "hydra.sweeper.jobs"
    assert override.value() == jobs


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--sweep", "window"], "invalid choice: 'window'"),
        (["--data", "shapes"], "invalid choice: 'shapes'"),
        (["--steps", "10"], "--steps=10: must be at least 20"),
        (["optim.lr=0.1"], "optim.lr=0.1: say --lr"),
        (["trainer.max_steps=9"], "trainer.max_steps=9: say --steps"),
        (["quickly"], "quickly: is no key=value"),
        (["++optim.lr=0.1"], "++optim.lr=0.1: say --lr"),
        (["model.interpolation.stride=2"], "the variants of study differ in it"),
        (["+model.aggregation.window=9"], "the variants of study differ in it"),
        (["model.aggregation={}"], "model.aggregation={}: the variants of study differ in it"),
        (["model/aggregation=none"], "the variants of study differ in it"),
        (["model={}"], "the variants of study differ in it"),
        (["=3"], "=3: is no key=value"),
        (["output_dir=x"], "output_dir=x: say --folder"),
        (["trainer.max_epochs=3"], "trainer.max_epochs=3: say --steps"),
        (["+sweep=window"], "+sweep=window: say --sweep"),
        (["sweep.n_jobs=3"], "sweep.n_jobs=3: say --n-jobs"),
        *(
            ([word], f"{word}: the study sees to that by itself")
            for word in ("resume=auto", "job=x", "sweep.resume=x", "hydra.sweep.dir=x", "hydra/launcher=ray")
        ),
        (["--seeds", "0,01"], "--seeds=0,01: must be different"),
        (["--n-jobs", "0"], "--n-jobs=0: must be 1 or more"),
        (["--seeds", ""], "--seeds=: must be different whole numbers"),
        (["--seeds", "0,a"], "--seeds=0,a: must be"),
        (["--seeds", "1,1"], "--seeds=1,1: must be different"),
        (["--lr", "0"], "--lr=0.0: must be a number above 0"),
        (["--lr", "nan"], "--lr=nan: must be"),
    ],
)
def test_what_makes_no_study_is_refused(said, message, capsys):
    with pytest.raises(SystemExit):
        study.settings_of(said)
    assert message in capsys.readouterr().err


def test_what_all_variants_may_have_is_passed_on():
    words = ["model.backbone.pretrained=false", "+data.test.flip=0", "trainer=gpu", "model.levels=x"]
    assert study.settings_of(words).overrides == words


def test_names_follow_from_others():
    settings = study.settings_of(["--sweep", "study_solov2_main"])
    assert settings.folder == "studies/study_solov2_main-composites-1000"
    assert settings.output == "studies/study_solov2_main-composites-1000/tables"
    assert study.experiment_of(settings.sweep) == "study_solov2"


def test_a_folder_holds_one_study(tmp_path):
    job = tmp_path / "rate" / "0"
    job.mkdir(parents=True)
    for name in ("job.json", "last.ckpt"):
        (job / name).touch()
    study.Study(study.settings_of(["--folder", str(tmp_path), "--n-jobs", "1"]))
    study.Study(study.settings_of(["--folder", str(tmp_path), "--n-jobs", "2"]))
    with pytest.raises(SystemExit, match=r"steps 1000, now 20; lr None, now 0\.1"):
        study.Study(study.settings_of(["--folder", str(tmp_path), "--steps", "20", "--lr", "0.1"]))


def test_a_damaged_record_is_named(monkeypatch, tmp_path):
    (tmp_path / "record.json").write_text("{")
    monkeypatch.setattr(study, "end_at_once", lambda: None)
    monkeypatch.setattr(study.sys, "argv", ["study", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"benchmarks\.study: .*record\.json: is damaged"):
        study.main()


def test_a_folder_in_which_nothing_was_trained_binds_nobody(tmp_path):
    """As after a word that the first training refused."""
    study.Study(study.settings_of(["--folder", str(tmp_path), "data.flipp=0"]))
    study.Study(study.settings_of(["--folder", str(tmp_path), "data.flip=0"]))
    assert record_of(tmp_path)["settings"]["overrides"] == ["data.flip=0"]
