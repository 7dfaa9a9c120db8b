"""The lists of fidelity and of faults: they are numbered, their tests exist; the recipes are the published models'."""

import re
from pathlib import Path

import pytest

from aggmask.assembly.config import plain
from tests.runs import composed

DOCS = Path(__file__).parents[1] / "docs"
ROWS = {
    name: re.findall(r"^\| (\d+) \|.*\| ((?:`[^`]+`(?:, )?)+) \|$", (DOCS / f"{name}.md").read_text(), re.MULTILINE)
    for name in ("fidelity", "faults")
}


@pytest.mark.parametrize(("name", "least"), [("fidelity", 35), ("faults", 30)])
def test_points_are_numbered(name, least):
    assert [int(number) for number, _ in ROWS[name]] == list(range(1, len(ROWS[name]) + 1))
    assert len(ROWS[name]) >= least


TESTS = sorted({test for rows in ROWS.values() for _, tests in rows for test in re.findall(r"`([^`]+)`", tests)})


@pytest.mark.parametrize("named", TESTS)
def test_the_test_that_holds_a_point_exists(named):
    file, function = named.split("::")
    assert re.search(rf"^ *def {function}\(", (DOCS.parent / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("experiment", "warmup_start", "epochs", "depths", "min_area"),
    [
        ("solo_r50", 1 / 3, 36, (7, 7), 10),
        ("solo_r101_agg", 1 / 3, 36, (7, 7), 10),
        ("solov2_r50", 0.01, 36, (4, 4), 1),
        ("solov2_light_r18", 0.01, 36, (2, 2), 1),
        ("solov2_r101_agg", 1 / 3, 72, (4, 4), 10),
    ],
)
def test_recipes_of_the_published_models(experiment, warmup_start, epochs, depths, min_area):
    cfg = plain(composed(f"experiment={experiment}", "name=x", "output_dir=x"))
    assert cfg["optim"]["warmup_start"] == pytest.approx(warmup_start)
    assert [round(m * epochs) for m in cfg["optim"]["schedule"]["milestones"]] == [epochs * 3 // 4, epochs * 11 // 12]
    assert cfg["trainer"]["max_epochs"] == epochs
    assert (cfg["model"]["category"]["depth"], cfg["model"]["bank"]["depth"]) == depths
    assert cfg["assigner"]["min_area"] == min_area
    assert cfg["assigner"]["shared_cells"] == (
        "all" if experiment.startswith("solov2") and "agg" not in experiment else "last"
    )
    assert (cfg["optim"]["lr"], cfg["optim"]["reference_batch"], cfg["trainer"]["gradient_clip_val"]) == (0.01, 16, 35)
