import logging
import shutil
from pathlib import Path

import pytest

from aggmask import report
from tests.disks import small_files_only
from tests.reporting.made_sweep import make_sweep
from tests.runs import command


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("made"), {1: 1, 5: 0}, seeds=1)


@pytest.fixture
def said(monkeypatch, capsys):
    yield lambda *arguments: command(monkeypatch, capsys, report, *map(str, arguments))
    logging.root.setLevel(logging.WARNING)


def test_a_sweep_becomes_a_page_and_two_tables(sweep, said, tmp_path):
    place = tmp_path / "my report"
    status, text = said(sweep, "baseline='window=5'", f"output={place}", "resamples=30", "pictures=1")
    assert status == 0
    assert {path.name for path in place.iterdir()} == {"report.html", "table.md", "table.tex"}
    page, markdown = (place / "report.html").read_text(), (place / "table.md").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "30 paired bootstrap resamples" in page
    assert "| window=5 | 1 |" in markdown
    assert markdown in text
    assert f"page: {place}/report.html" in text
    assert "Baseline: window=5" in page


def test_another_split_is_told_of_after_its_evaluation(sweep, said, tmp_path):
    """The test split is here what val is, and so are its results."""
    own = Path(shutil.copytree(sweep.parent, tmp_path / "own"))
    root = own / "coco"
    for name in ("annotations/instances_{}2017.json", "{}2017"):
        (root / name.format("test")).symlink_to(root / name.format("val"))
    status, text = said(own / "sweep", "split=test", f"root={root}", "resamples=5", "pictures=0")
    assert status == 2
    assert "test/results.json is missing: python -m aggmask.evaluate checkpoint=" in text
    for run in (own / "sweep").iterdir():
        if run.is_dir():
            (run / "test").mkdir()
            (run / "results.json").rename(run / "test" / "results.json")
            (run / "results.json").write_text("[]")
    status, text = said(own / "sweep", "split=test", f"root={root}", "resamples=5", "pictures=1", "baseline=window=5")
    assert status == 0, text
    assert "6 test images" in text
    said(sweep, "resamples=5", "pictures=0", "baseline=window=5")
    tables = [(place / "table.md").read_text().replace("test", "validation") for place in (sweep, own / "sweep")]
    assert tables[0].startswith(tables[1].rstrip())  # of val it is noted, too, that other numbers were logged


def test_files_that_the_disk_does_not_take_leave_those_before_as_they_were(sweep, said, tmp_path):
    (tmp_path / "report.html").write_text("before")
    with small_files_only(1000):
        status, text = said(sweep, f"output={tmp_path}", "resamples=2", "pictures=0")
    assert status == 2
    assert "report.html: files may not become so large" in text
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report.html": "before"}


def test_a_place_that_is_a_file_is_refused_before_the_work(sweep, said, monkeypatch, tmp_path):
    monkeypatch.setattr("aggmask.reporting.summary.summarize", lambda *_: pytest.fail("summed up all the same"))
    (tmp_path / "file").touch()
    status, text = said(sweep, f"output={tmp_path}/file")
    assert status == 2
    assert f"output={tmp_path}/file: cannot be written (File exists); name another folder" in text


def test_by_default_the_page_lies_in_the_sweep(sweep, said):
    assert said(sweep, "resamples=2", "pictures=0")[0] == 0
    assert (sweep / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base=3"], "base=3: there is no such key; did you mean 'baseline'?"),
        (["window=1"], "window=1: there is no such key; valid: baseline, output, pictures, resamples, root, split"),
        (["resamples=0"], "resamples=0: must be a whole number, at least 1"),
        (["pictures=some"], "pictures=some: must be a whole number, at least 0"),
        (["baseline=nine"], "baseline=nine: no finished variant with this name; there are:\n  baseline='window=1'"),
        (["root=/nowhere"], "/nowhere: there is no such folder"),
        (["root=/"], "/annotations/instances_val2017.json: the validation annotations are not there"),
    ],
)
def test_mistakes_are_named(arguments, message, sweep, said):
    status, text = said(sweep, *arguments)
    assert status == 2
    assert message in text
    assert "Traceback" not in text


def test_a_folder_without_runs_is_refused(said, tmp_path):
    status, text = said(tmp_path)
    assert status == 2
    assert "no run in it" in text


def test_help_names_every_key(said):
    status, text = said("--help")
    assert status == 0
    assert all(f"  {key}=" in text for key in report._DEFAULTS)
