"""Numbers of a made-up sweep against the evaluator itself."""

import json
import math
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from aggmask.errors import UserError
from aggmask.metrics import crowding
from aggmask.metrics.evaluators import evaluate
from aggmask.reporting import figures
from aggmask.reporting.runs import Run
from aggmask.reporting.summary import Spread, summarize
from aggmask.reporting.tables import cells, columns, explanation
from tests.data.make_coco import CATEGORIES
from tests.reporting.made_sweep import moved


@pytest.fixture
def truth(summary):
    return summary.truth


def _evaluated(sweep, truth) -> list[float]:
    results = [json.loads((sweep / str(run) / "results.json").read_text()) for run in range(6)]
    return [evaluate(truth, found).summary()["AP"] for found in results]


def test_rows_are_means_and_deviations_of_the_runs(summary, sweep, truth):
    aps = np.array(_evaluated(sweep, truth)).reshape(3, 2)
    for row, own in zip(summary.rows, aps, strict=True):
        assert row.numbers["AP"].mean == pytest.approx(own.mean(), abs=1e-12)
        assert row.numbers["AP"].deviation == pytest.approx(own.std(ddof=1), abs=1e-12)
    assert summary.rows[1].numbers["AP"].mean > summary.rows[2].numbers["AP"].mean > summary.rows[0].numbers["AP"].mean
    ids = [category["id"] for category in CATEGORIES]
    assert list(summary.rows[0].categories) == ids
    whole = np.mean([summary.rows[1].categories[number].mean for number in ids])
    assert whole == pytest.approx(summary.rows[1].numbers["AP"].mean)


def test_differences_are_to_the_chosen_baseline(sweep, truth):
    aps = np.array(_evaluated(sweep, truth)).reshape(3, 2).mean(1)
    summary = summarize(sweep, "window=5", resample_count=200)
    assert summary.baseline.label == "window=5"
    assert summary.rows[1].differences == summary.rows[1].category_differences == {}
    interval = summary.rows[0].differences["AP"]
    assert interval.value == pytest.approx(aps[0] - aps[1], abs=1e-12)
    assert interval.low < interval.value < interval.high < 0
    assert set(summary.rows[0].category_differences) == {category["id"] for category in CATEGORIES}


def test_objects_that_touch_have_numbers_of_their_own(sweep, truth, monkeypatch):
    assert "APt" not in summarize(sweep, resample_count=2).rows[0].numbers  # none do
    discs = {a["id"] for a in truth.annotations if a["category_id"] == CATEGORIES[0]["id"]}
    monkeypatch.setattr(crowding, "touching", lambda truth: discs)
    summary = summarize(sweep, "window=5", resample_count=20)
    for row in summary.rows:
        assert row.numbers["APt"].mean == pytest.approx(row.categories[CATEGORIES[0]["id"]].mean)
        others = [row.categories[category["id"]].mean for category in CATEGORIES[1:]]
        assert row.numbers["APa"].mean == pytest.approx(np.mean(others))
    headings = columns(summary)
    assert headings[headings.index("AP touching") :][:4] == [
        "AP touching", "ΔAP touching [95 %]", "AP apart", "ΔAP apart [95 %]",
    ]  # fmt: skip
    assert {len(line) for line in cells(summary)} == {len(headings)}
    first = summary.rows[0].differences
    assert first[crowding.MORE].value == pytest.approx(first["APt"].value - first["APa"].value)
    assert first[crowding.MORE].low < first[crowding.MORE].value < first[crowding.MORE].high
    assert cells(summary)[0][headings.index("Δtouching − Δapart [95 %]")].value == first[crowding.MORE].value
    shown = cells(summary)[0][headings.index("ΔAP touching [95 %]")]
    assert shown.value == pytest.approx(summary.rows[0].differences["APt"].value)
    assert "Touching: objects with another one of their category at most 2 pixels away." in explanation(summary)
    assert [axes.get_title() for axes in figures.differences(summary).axes][-2:] == ["touching", "apart"]


def test_categories_of_the_same_name_are_kept_apart(sweep, summary, tmp_path):
    """Also where a third one is called as the first would be with its id."""
    root = shutil.copytree(Path(summary.data.val.annotations).parents[1], tmp_path / "own")
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    names = {3: "cat", 7: "cat", 18: "cat (3)"}
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    file.write_text(json.dumps(content))
    summary = summarize(sweep, "window=5", resample_count=2, root=str(root))
    assert summary.category_names == {3: "cat (3)", 7: "cat (7)", 18: "cat (3)"}
    row = summary.rows[0]
    assert np.mean([spread.mean for spread in row.categories.values()]) == pytest.approx(row.numbers["AP"].mean)
    assert set(row.category_differences) == set(names)
    shown = [text.get_text() for text in figures.categories(summary).axes[0].get_yticklabels()]
    assert sorted(shown) == ["cat (3)", "cat (3)", "cat (7)"]


def test_equal_results_differ_by_nothing(sweep):
    for own, other in (("2", "0"), ("3", "1")):
        (sweep / own / "results.json").write_text((sweep / other / "results.json").read_text())
    assert summarize(sweep, resample_count=50).rows[1].differences["AP"] == (0, 0, 0)


def test_the_same_number_of_resamples_gives_the_same_interval(summary, sweep):
    intervals = [summarize(sweep, "window=5", n).rows[0].differences["AP"] for n in (20, 200)]
    assert summary.rows[0].differences["AP"] == intervals[0] != intervals[1]


def test_unfinished_jobs_are_kept_but_do_not_count(sweep):
    (sweep / "2" / "results.json").unlink()
    (sweep / "0" / "results.json").unlink()
    (sweep / "1" / "results.json").unlink()
    summary = summarize(sweep, resample_count=5)
    assert [row.variant.label for row in summary.rows] == ["window=5", "window=9"]
    assert [len(variant.finished) for variant in summary.variants] == [0, 1, 2]
    assert len(summary.runs) == 6
    assert math.isnan(summary.rows[0].numbers["AP"].deviation)
    assert summary.baseline.label == "window=5"


def test_a_seed_that_was_run_twice_counts_once(sweep, summary, tmp_path):
    """Two sweeps of the same jobs below one folder: no smaller deviation, and the report says so."""
    for name in ("a", "b"):
        shutil.copytree(sweep, tmp_path / "both" / name)
    twice = summarize(tmp_path / "both", resample_count=2)
    for row, once in zip(twice.rows, summary.rows, strict=True):
        assert [run.name for run in row.variant.runs] == [f"b/{run.name}" for run in once.variant.runs]
        assert row.numbers["AP"] == once.numbers["AP"]
    assert len([note for note in twice.notes if "more than once" in note]) == 6
    assert twice.notes[0] == "Seed 0 of window=1 was run more than once: b/0 counts, not a/0."


def test_nothing_finished_is_an_error_that_says_why(sweep):
    for run in sweep.iterdir():
        (run / "results.json").unlink()
    with pytest.raises(UserError, match="none of its jobs is finished:\n  0: unfinished, nothing was evaluated"):
        summarize(sweep)


def test_another_ap_than_training_logged_is_noted(sweep, truth):
    aps = _evaluated(sweep, truth)
    for run, ap in enumerate(aps):
        (sweep / str(run) / "metrics.csv").write_text(f"epoch,step,val/AP\n0,1,0.0\n1,3,{ap}\n")
    assert summarize(sweep, resample_count=1).notes == []
    (sweep / "3" / "metrics.csv").write_text("epoch,step,val/AP\n0,1,0.001\n")
    (note,) = summarize(sweep, resample_count=1).notes
    assert note == f"The results of 1 runs give another AP than training logged (3: {aps[3]:.4f}, logged 0.0010)."


def test_a_partial_evaluation_counts_the_images_without_a_detection_too(sweep, truth):
    """Run 0 was evaluated on three images and found something in two; the others on four."""
    for run in sweep.iterdir():
        ids = sorted(truth.sizes)[: 3 if run.name == "0" else 4]
        (run / "evaluated.json").write_text(json.dumps(ids))
        found = [r for r in json.loads((run / "results.json").read_text()) if r["image_id"] in ids]
        (run / "results.json").write_text(json.dumps([r for r in found if run.name != "0" or r["image_id"] != ids[2]]))
    summary = summarize(sweep, resample_count=1)
    assert list(summary.truth.sizes) == sorted(truth.sizes)[:3]
    assert "over the 3 images that every run has in common" in summary.notes[0]
    three = truth.restricted_to(set(ids[:3]))
    found = json.loads((sweep / "0" / "results.json").read_text())
    alone = summarize(sweep / "0", resample_count=1)
    assert alone.rows[0].numbers["AP"].mean == pytest.approx(evaluate(three, found).summary()["AP"], abs=1e-12)
    (sweep / "1" / "evaluated.json").write_text("[]")
    with pytest.raises(UserError, match="none of which all of them have in common"):
        summarize(sweep, resample_count=1)


def test_a_sweep_that_found_nothing_has_zeros(sweep, truth):
    for run in sweep.iterdir():
        (run / "evaluated.json").write_text(json.dumps(sorted(truth.sizes)[:2]))
        (run / "results.json").write_text("[]")
    summary = summarize(sweep, resample_count=3)
    assert [row.numbers["AP"].mean for row in summary.rows] == [0, 0, 0]
    assert summary.rows[1].differences["AP"] == (0, 0, 0)


def test_the_results_of_one_run_at_a_time_are_held(sweep, monkeypatch):
    class Found(dict):
        """A detection that is seen to go."""

    held, read = [], Run.results

    def results(run, split):
        assert not any(found() for found in held)
        kept = [Found(found) for found in read(run, split)]
        held.extend(map(weakref.ref, kept))
        return kept

    monkeypatch.setattr(Run, "results", results)
    summarize(sweep, resample_count=1)
    assert len(held) > 60


def test_damaged_results_are_named(sweep):
    file = sweep / "1" / "results.json"
    file.write_text(file.read_text().replace(",", "", 1))
    with pytest.raises(UserError, match=r"1/results.json: is damaged .*; put a copy of it back, or remove it"):
        summarize(sweep, resample_count=1)
    file.unlink()
    assert [len(row.variant.finished) for row in summarize(sweep, resample_count=1).rows] == [1, 2, 2]


def test_results_of_other_images_are_refused(sweep):
    file = sweep / "1" / "results.json"
    file.write_text(json.dumps([{**json.loads(file.read_text())[0], "image_id": 77}]))
    with pytest.raises(UserError, match=r"1/results.json: image 77 is not in the validation annotations"):
        summarize(sweep)


def test_the_configured_number_of_detections_counts(sweep, truth):
    file = sweep / "0" / "config.yaml"
    file.write_text(file.read_text().replace("max_detections: 100", "max_detections: 1"))
    summary = summarize(sweep / "0", resample_count=1)
    found = moved(truth, 2, np.random.default_rng((1, 0)))
    assert summary.rows[0].numbers["AP"].mean == pytest.approx(evaluate(truth, found, 1).summary()["AP"], abs=1e-12)


def test_spread():
    assert Spread.of(np.array([1.0, 3.0])) == pytest.approx((2.0, math.sqrt(2)))
    assert math.isnan(Spread.of(np.array([1.0])).deviation)
