"""The page in a real browser, and what can be told without one."""

import re
from dataclasses import replace

import pytest

from aggmask.inspection.page import render
from aggmask.inspection.trace import inspect
from tests.browser import browser
from tests.inspection.made import VARIANTS, picture, predictor


@pytest.fixture(scope="module")
def looked():
    return {
        "window 5": inspect(predictor(**VARIANTS["window 5"]), picture(), 0.2),
        "deformable": inspect(predictor(**VARIANTS["deformable"]), picture(), 0.2),
        "solo": inspect(predictor(), picture(), 0.2),
        "nothing": inspect(predictor(score_threshold=0.999), picture(), 0.2),
    }


@pytest.fixture(scope="module")
def pages(looked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, inspection in looked.items():
        (folder / f"{name}.html").write_text(render(inspection, f"this is {name}", 3, 3), encoding="utf-8")
    return folder


def shown(chromium, selector):
    return [element for element in chromium.find_elements("css selector", selector) if element.is_displayed()]


def test_in_a_browser(looked, pages, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    with browser(tmp_path / "profile") as chromium:
        for name, inspection in looked.items():
            chromium.get((pages / f"{name}.html").as_uri())
            assert chromium.title == f"this is {name}"
            images = chromium.execute_script(
                "return Array.from(document.images, (i) => [i.complete, i.naturalWidth, i.hasAttribute('alt')])"
            )
            assert all(complete and width > 10 and told for complete, width, told in images)
            assert chromium.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
            count = min(3, len(inspection.candidates.shown)) + min(3, len(inspection.candidates.removed))
            assert len(shown(chromium, "nav button")) == count
        chromium.get((pages / "window 5.html").as_uri())
        first = looked["window 5"].trace(looked["window 5"].candidates.shown[0])
        over = chromium.find_element("id", "over")
        maps, dots = shown(chromium, "main button[data-part]"), shown(chromium, "svg .dot")
        assert len(maps) == 2 + 5 + 1  # mask and scores, representations, context
        assert len(dots) == 5
        assert not over.is_displayed()
        rest = chromium.find_element("id", "legend").text
        # Pointing at a number lays its map over the picture and marks its map and bars; elsewhere, all is as before.
        ActionChains(chromium).move_to_element(dots[3].find_element("css selector", "circle")).perform()
        map_of_it = next(m for m in maps if m.get_attribute("data-part") == f"{first.number}-3")
        assert over.is_displayed()
        assert over.get_attribute("src") == map_of_it.find_element("tag name", "img").get_attribute("src")
        assert "on" in map_of_it.get_attribute("class").split()
        assert "on" in dots[3].get_attribute("class").split()
        assert "representation 4" in chromium.find_element("id", "legend").text
        colors = [m.find_element("css selector", ".bar i").value_of_css_property("background-color") for m in maps[2:]]
        assert len(set(colors)) == 2
        assert colors.count(colors[3]) == 1
        ActionChains(chromium).move_to_element(chromium.find_element("tag name", "h1")).perform()
        assert not over.is_displayed()
        assert chromium.find_element("id", "legend").text == rest
        # The same with the keyboard: from the chosen object on, tab reaches its maps.
        chosen = shown(chromium, "nav button")[-1]
        assert chosen.get_attribute("aria-pressed") == "false"
        chosen.send_keys(Keys.ENTER)
        assert chosen.get_attribute("aria-pressed") == "true"
        assert len(shown(chromium, "nav [aria-pressed=true]")) == 1
        shown(chromium, "main button[data-part]")[2].send_keys(Keys.SHIFT)
        active = chromium.execute_script("return document.activeElement.dataset.part")
        assert active.split("-")[0] == chosen.get_attribute("data-choose") != str(first.number)
        assert over.is_displayed()
        chromium.switch_to.active_element.send_keys(Keys.TAB)
        assert chromium.execute_script("return document.activeElement.dataset.part") != active
        assert chromium.get_log("browser") == []
        assert chromium.execute_script("return performance.getEntriesByType('navigation').length") == 1
        addresses = chromium.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert all(address.startswith("data:") for address in addresses)


def text_of(pages, name):
    return (pages / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["window 5", "deformable", "solo", "nothing"])
def test_nothing_is_loaded_from_elsewhere_and_nothing_else_is_run(pages, name):
    text = re.sub(r"data:image[^\"]*", "data:", text_of(pages, name))
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http:" not in text
    assert "https:" not in text
    assert "<b>pair</b>" not in text
    assert re.search(r"script-src &#39;sha256-[\w+/]{43}=&#39;", text)


def test_every_variant_says_what_it_does(pages):
    assert "No aggregation" in text_of(pages, "solo")
    assert "weights</" not in text_of(pages, "solo").replace("\n", "")
    assert 'class="bar"' not in text_of(pages, "solo")
    moved = text_of(pages, "deformable")
    assert "moved by" in moved
    assert "<line " in moved
    assert "<line " not in text_of(pages, "window 5")


def test_removed_ones_name_who_removed_them(looked):
    inspection = looked["window 5"]
    removed = inspection.candidates.removed
    number = next(number for number in removed if inspection.candidates.decay.by[number] >= 0)
    text = render(inspection, "x", 1, removed.index(number) + 1)
    trace = inspection.trace(number)
    assert f"Matrix NMS x {trace.decay:.2f} because of #{trace.by + 1} (IoU {trace.iou:.2f})" in text
    assert f"mask of #{trace.by + 1}, which lowered its score" in text


def test_no_object_is_said_with_the_best_scores(pages, looked):
    text = text_of(pages, "nothing")
    assert "No object: no category score reaches the decoder&#39;s own score_threshold, 0.999" in text
    best = looked["nothing"].best_scores()
    for name, score, _, (row, column) in best:
        assert f"<td>{score:.3f}</td>" in text
        assert f"<td>{row}, {column}</td>" in text
        assert name.replace("<b>", "&lt;b&gt;").replace("</b>", "&lt;/b&gt;") in text
    weak = inspect(predictor(**VARIANTS["window 5"]), picture(), 1.0)
    assert f"the best candidate ends with a score of {max(weak.candidates.scores):.2f}" in render(weak, "x", 3, 3)


def test_numbers_of_objects_and_others(looked):
    inspection = looked["window 5"]
    for objects, removed in ((1, 0), (2, 3), (0, 1)):
        text = render(inspection, "x", objects, removed)
        assert text.count("data-choose=") == objects + removed
        more = len(inspection.candidates.shown) - objects
        assert objects == 0 or f"and {more} more" in text
    assert len(render(inspection, "x", 3, 3)) < 600_000


def test_the_same_picture_gives_the_same_page(looked):
    assert render(looked["solo"], "x", 2, 2) == render(looked["solo"], "x", 2, 2)


def test_titles_are_text(looked):
    text = render(replace(looked["solo"]), "<script>alert(1)</script>", 1, 0)
    assert "<script>alert" not in text
