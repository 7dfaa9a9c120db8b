import sys
import time

import pytest

from aggmask import sweep
from aggmask.files import write_json
from aggmask.launcher.ledger import Ledger
from aggmask.launcher.locks import held
from tests.launcher.stub_sweep import freeze


@pytest.fixture
def ledger(tmp_path):
    """Five jobs, one in each state."""
    Ledger(tmp_path).open([], "/")
    jobs = [freeze(tmp_path, number) for number in range(5)]
    progress = {"epoch": 3, "epochs": 12, "step": 30, "steps": 120, "ap": 0.125, "seconds_left": 3725.5}
    for job in jobs[:4]:
        job.begin()
        write_json(job.folder / "progress.json", {**progress, "updated": time.time()})
    jobs[0].finish(0.25)
    jobs[1].fail("ValueError: no\nmore about it")
    with held(jobs[3].lock, "busy"):
        yield tmp_path


def test_the_table_says_how_far_each_job_is(ledger):
    lines = sweep.table(Ledger(ledger).jobs()).splitlines()
    cells = [line.split() for line in lines]
    assert cells[0] == ["job", "state", "epoch", "AP", "time", "left"]
    assert cells[1] == ["0", "seed=0", "done", "3/12", "0.2500"]
    assert cells[2] == ["1", "seed=1", "failed", "3/12", "0.1250", "ValueError:", "no"]
    assert cells[3] == ["2", "seed=2", "interrupted", "3/12", "0.1250"]
    assert cells[4] == ["3", "seed=3", "running", "3/12", "0.1250", "1", "h", "02", "min"]
    assert cells[5] == ["4", "seed=4", "waiting"]
    assert lines[-1] == "1 done, 1 failed, 1 running, 1 interrupted, 1 waiting"


def test_the_time_left_goes_down_between_two_writings(ledger):
    job = Ledger(ledger).jobs()[3]
    write_json(job.folder / "attempt.json", {**job.attempt, "since": time.time() - 3800})
    write_json(job.folder / "progress.json", {**job.progress, "updated": time.time() - 3700})
    assert "0 min 2" in sweep.table([job])


def test_the_time_left_of_an_earlier_start_does_not_count(ledger):
    job = Ledger(ledger).jobs()[3]
    job.begin()
    assert "min" not in sweep.table([job])


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 min 00 s"), (61, "1 min 01 s"), (7262, "2 h 01 min")])
def test_durations_as_a_person_reads_them(seconds, said):
    assert sweep.readable(seconds) == said


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    try:
        sweep.main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, "".join(capsys.readouterr())


def test_status_is_printed_once_into_a_file(ledger, monkeypatch, capsys):
    with held(Ledger(ledger).lock, "busy"):
        status, said = command(monkeypatch, capsys, "status", str(ledger))
    assert status == 0
    assert said == sweep.table(Ledger(ledger).jobs()) + "\n"


def test_status_says_where_nobody_works_on_the_sweep(ledger, monkeypatch, capsys):
    said = command(monkeypatch, capsys, "status", str(ledger))[1]
    advice = f"no process starts them: python -m aggmask.train sweep.resume={ledger} goes on with what is left\n"
    assert said.endswith(f"1 waiting\n{advice}")
    for job in Ledger(ledger).jobs():
        job.reopen()
        job.finish(0.5)
    assert command(monkeypatch, capsys, "status", str(ledger))[1].endswith("5 done\n")


def test_status_on_a_terminal_is_kept_up_to_date(ledger, monkeypatch, capsys):
    """It ends when no job runs and nobody would start one."""
    jobs = Ledger(ledger).jobs()

    def finish_all(seconds):
        for job in jobs[2:]:
            job.finish(0.5)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sweep.time, "sleep", finish_all)
    status, said = command(monkeypatch, capsys, "status", str(ledger))
    assert status == 0
    assert said.count("time left") == 2
    assert "\n4 done, 1 failed\n" in said
    status, said = command(monkeypatch, capsys, "status", str(ledger), "--once")
    assert said.count("time left") == 1


def test_a_folder_without_a_sweep_is_named(tmp_path, monkeypatch, capsys):
    status, said = command(monkeypatch, capsys, "status", str(tmp_path))
    assert status == 2
    assert "there is no sweep.json" in said
    (tmp_path / "file").touch()
    assert "there is no sweep.json" in command(monkeypatch, capsys, "status", str(tmp_path / "file"))[1]
