"""The page in a real browser, and what can be told without one."""

import base64
import re
import shutil
from pathlib import Path

import pytest

from aggmask.reporting.page import render
from aggmask.reporting.summary import summarize
from tests.browser import browser
from tests.reporting.conftest import copied


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    sweep = copied(made, folder)
    (sweep / "5" / "results.json").unlink()
    (folder / "report.html").write_text(render(summarize(sweep, resample_count=50), pictures=2), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


def test_it_opens_loads_sorts_and_complains_of_nothing(page, chromium):
    chromium.get(page.as_uri())
    assert chromium.title == "Sweep sweep"
    images = "return Array.from(document.images, (i) => [i.complete, i.naturalWidth, i.alt.length > 0, i.clientWidth])"
    shown = chromium.execute_script(images)
    assert len(shown) == 5 + 2 * 4  # figures; ground truth and three variants of two images
    assert all(complete and natural > 50 and told and wide > 50 for complete, natural, told, wide in shown)
    names = [_column(chromium, 0)]
    for heading in ("AP", "AP", "variant", "ΔAP [95 %]"):
        _heading(chromium, heading).find_element("tag name", "button").click()
        names.append(_column(chromium, 0))
    assert names[1] == ["window=5", "window=9", "window=1"]  # the best first
    assert names[2] == ["window=1", "window=9", "window=5"]
    assert names[3] == names[0] == ["window=1", "window=5", "window=9"]
    assert names[4] == names[1]
    assert _heading(chromium, "variant").get_attribute("aria-sort") is None
    assert _heading(chromium, "ΔAP [95 %]").get_attribute("aria-sort") == "descending"
    _heading(chromium, "APl").find_element("tag name", "button").click()  # nothing but dashes
    assert _column(chromium, 0) == names[4]
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") <= len(shown)
    assert chromium.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_it_prints(page, chromium):
    chromium.get(page.as_uri())
    printed = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert printed.startswith(b"%PDF")
    assert 1 < pages < 12
    assert re.search(rb"/MediaBox\s*\[0 0 84[12]", printed)  # A4, lying


def test_data_below_the_working_folder_is_named_from_there(summary, monkeypatch):
    file = Path(summary.data.val.annotations)
    monkeypatch.chdir(file.parents[1])
    text = render(summary, pictures=0)
    assert "(annotations/instances_val2017.json)" in text
    assert str(file.parents[1]) not in text


def _heading(chromium, text):
    headings = chromium.find_elements("css selector", "#variants th")
    return next(heading for heading in headings if heading.text.strip() == text)


def _column(chromium, number):
    script = (
        "return Array.from(document.querySelectorAll('#variants tbody tr'), (r) => r.cells[arguments[0]].innerText)"
    )
    return chromium.execute_script(script, number)


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http:" not in re.sub(r"data:[^\"]*", "", text)
    assert "https:" not in re.sub(r"data:[^\"]*", "", text)


def test_every_job_is_told(page):
    text = page.read_text()
    assert "1 of 6 jobs are not finished, and not in these numbers: 5 (unfinished: nothing was evaluated)." in text
    jobs = text.partition('id="jobs"')[2]
    assert re.findall(r'<tr><td data-value="\d+">(\d)</td>', jobs) == list("012345")


def test_a_seed_that_was_run_twice_is_among_the_jobs(made, summary, tmp_path):
    """Of the test split only the runs that count were evaluated: it is here what val is."""
    for name in ("a", "b"):
        copied(made, tmp_path / name)
    for run in (tmp_path / "b" / "sweep").iterdir():
        (run / "test").mkdir()
        shutil.copy(run / "results.json", run / "test")
    root = shutil.copytree(Path(summary.data.val.annotations).parents[1], tmp_path / "data")
    (root / "annotations" / "instances_test2017.json").symlink_to(root / "annotations" / "instances_val2017.json")
    text = render(summarize(tmp_path, resample_count=2, root=str(root), split="test"), pictures=0)
    assert "12 of 12 jobs finished. 6 test images" in text
    assert "Seed 0 of window=1 was run more than once: b/sweep/0 counts, not a/sweep/0." in text
    jobs = re.findall(r"<tr><td data-value=\S+>(./sweep/\d)</td>", text.partition('id="jobs"')[2])
    assert jobs == [f"{name}/sweep/{number}" for name in "ab" for number in range(6)]


def test_names_are_text_and_never_markup(summary):
    object.__setattr__(summary.rows[0].variant, "label", "<script>alert(1)</script>")
    assert "<script>alert" not in render(summary, pictures=1)


def test_the_same_numbers_give_the_same_page(summary):
    assert render(summary, pictures=1) == render(summary, pictures=1)


def test_a_page_without_images_says_why(summary, tmp_path):
    summary.data.val = type(summary.data.val)("val", summary.data.val.annotations, str(tmp_path / "gone"))
    text = render(summary, pictures=2)
    assert re.search(r"No pictures: [^<]*gone", text)
    assert "<h2>AP by size</h2>" in text
