"""The command: a page, a figure, and what it says when something is wrong."""

import re

import numpy as np
import pytest
from PIL import Image

from aggmask import inspect
from tests.inspection.made import checkpoint
from tests.runs import command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with checkpoints, one of which finds nothing, and pictures."""
    folder = tmp_path_factory.mktemp("in here")
    checkpoint(folder / "eager.ckpt")
    checkpoint(folder / "blind.ckpt", bias=0.0)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a picture.png")
    Image.fromarray(pixels).convert("L").save(folder / "grey.png")
    (folder / "broken.jpg").write_text("not a picture")
    return folder


@pytest.fixture
def run(place, monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; (exit status, what it said)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, model="eager", image="a picture.png"):
        given = [f"checkpoint={place}/{model}.ckpt", f"image={place}/{image}", "device=cpu", "score_threshold=0.15"]
        keys = [word.partition("=")[0] for word in words]
        given = [word for word in given if word.partition("=")[0] not in keys]
        return command(monkeypatch, capsys, inspect, *given, *words)

    return run


def entries(path):
    return len(re.findall("data-choose=", path.read_text()))


def test_a_page_and_a_figure(run, tmp_path):
    status, said = run("output=here/page.html", "figure=there/x.png")
    assert status == 0, said
    objects, others = map(int, re.search(r"(\d+) objects, (\d+) other candidates", said).groups())
    assert objects > 0
    assert entries(tmp_path / "here" / "page.html") == min(objects, 12) + min(others, 12)
    assert "a picture.png, as eager.ckpt sees it" in (tmp_path / "here" / "page.html").read_text()
    assert Image.open(tmp_path / "there" / "x.png").width > 500


def test_keys_do_something(run, tmp_path):
    page = tmp_path / "inspect.html"
    assert run("max_objects=1", "max_removed=0")[0] == 0
    status, said = run("object=1")
    assert status == 2
    assert "object=1: is for the figure; say figure=FILE.png too" in said
    assert entries(page) == 1
    assert run("max_objects=0", "max_removed=2")[0] == 0
    assert entries(page) == 2
    assert "canvas of 96 x 64" in page.read_text()
    assert run("max_objects=1", "short_side=96", "long_side=128")[0] == 0
    assert "canvas of 128 x 96" in page.read_text()
    page.unlink()
    for number in (1, 2):
        assert run("output=null", f"figure={number}.png", f"object={number}")[0] == 0
    assert not page.exists()
    assert len({(tmp_path / f"{number}.png").read_bytes() for number in (1, 2)}) == 2
    more, fewer = (
        int(re.search(r"(\d+) objects", run("output=null", f"score_threshold={least}")[1])[1]) for least in (0.05, 0.3)
    )
    assert more > fewer


def test_grey_pictures(run):
    assert run("output=null", image="grey.png")[0] == 0


def test_nothing_found(run, tmp_path):
    status, said = run(model="blind")
    assert status == 0
    assert "0 objects, 0 other candidates" in said
    assert "No object" in (tmp_path / "inspect.html").read_text()
    why = "no category score reaches the decoder's own score_threshold, 0.1"
    assert why in (tmp_path / "inspect.html").read_text().replace("&#39;", "'")
    for words in (["figure=x.png"], ["figure=x.png", "object=3"]):
        status, said = run(*words, model="blind")
        assert status == 2
        assert f"figure=x.png: there is no candidate to draw: {why}" in said


def test_candidates_alone_are_told_and_drawn(run, tmp_path):
    status, said = run("output=null", "figure=x.png", "score_threshold=1")
    assert status == 2
    assert "no object to draw: the best candidate ends with a score of" in said
    best = re.search(r"object=\d+", said.partition("object=NUMBER")[2])[0]
    assert run("output=null", "figure=x.png", "score_threshold=1", best)[0] == 0
    assert (tmp_path / "x.png").is_file()


def test_a_folder_is_no_checkpoint(run, place):
    status, said = run(f"checkpoint={place}")
    assert status == 2
    assert f"is a folder; say a file in it: {place}/blind.ckpt or {place}/eager.ckpt" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["checkpoint=nowhere.ckpt"], "checkpoint=nowhere.ckpt: there is no such file"),
        (["image=nowhere.jpg"], "The image nowhere.jpg cannot be read: No such file"),
        (["figure=x.gnu"], "figure=x.gnu: must end in .png, .pdf, .svg"),
        (["figure=x.png", "object=100000"], "object=100000: must be the number of a candidate, from 1 to"),
        (["figure=x.png", "object=0"], "object=0: must be the number of a candidate"),
        (["max_objects=-1"], "max_objects=-1: must be a whole number, 0 or more"),
        (["max_removed=some"], "max_removed=some: must be a whole number, 0 or more"),
        (["score_threshold=2"], "score_threshold=2: must be from 0 to 1"),
        (["output=/proc/x.html"], "output=/proc/x.html: cannot be written"),
        (["+figures=x.png"], "did you mean 'figure'"),
    ],
)
def test_mistakes_are_named(run, words, expected):
    status, said = run(*words)
    assert status == 2
    assert expected in said
    assert "Traceback" not in said


def test_a_broken_picture_is_named(run):
    status, said = run(image="broken.jpg")
    assert status == 2
    assert "broken.jpg" in said
    assert "cannot be decoded" in said


def test_picture_and_checkpoint_are_asked_for(monkeypatch, capsys):
    status, said = command(monkeypatch, capsys, inspect, "checkpoint=x")
    assert status == 2
    assert "say image=..." in said
