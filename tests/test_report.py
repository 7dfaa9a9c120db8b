import logging

import pytest

from aggmask import report
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
    status, text = said(sweep, "baseline=window=5", f"output={place}", "resamples=30", "pictures=1")
    assert status == 0
    assert {path.name for path in place.iterdir()} == {"report.html", "table.md", "table.tex"}
    page, markdown = (place / "report.html").read_text(), (place / "table.md").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "30 paired bootstrap resamples" in page
    assert "| window=5 | 1 |" in markdown
    assert markdown in text
    assert f"page: {place}/report.html" in text
    assert "Baseline: window=5" in page


def test_by_default_the_page_lies_in_the_sweep(sweep, said):
    assert said(sweep, "resamples=2", "pictures=0")[0] == 0
    assert (sweep / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base=3"], "base=3: there is no such key; did you mean 'baseline'?"),
        (["window=1"], "window=1: there is no such key; valid: baseline, output, pictures, resamples, root"),
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
