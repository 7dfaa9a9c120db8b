import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aggmask import evaluate
from aggmask.errors import UserError
from aggmask.evaluate import report
from aggmask.metrics.evaluators import CategoryScore
from tests.data.make_coco import make_coco
from tests.runs import command, composed, small_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """(data, checkpoint) of a model that finds something, if nothing right."""
    return eager_checkpoint(tmp_path_factory.mktemp("trained"))


def eager_checkpoint(folder: Path, val_images: int = 5) -> tuple[Path, Path]:
    root = make_coco(folder / "coco", images=6, val_images=val_images)
    small_run("solo_r50_agg", root, folder / "run", "trainer.limit_val_batches=0", "model.aggregation.init=zero")
    content = torch.load(folder / "run" / "last.ckpt", weights_only=True)
    classifier = content["state_dict"]["segmenter.head.category.classifier.bias"]
    classifier += torch.tensor([4.5, 4.0, 3.5])  # every cell is a candidate
    torch.save(content, folder / "eager.ckpt")
    return root, folder / "eager.ckpt"


def test_numbers_equal_pycocotools_on_the_written_results(trained, monkeypatch, capsys, tmp_path):
    root, checkpoint = trained
    status, said = command(
        monkeypatch, capsys, evaluate, f"checkpoint={checkpoint}", f"output={tmp_path}", "trainer.accelerator=cpu"
    )
    assert status == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results
    truth = COCO(str(root / "annotations" / "instances_val2017.json"))
    reference = COCOeval(truth, truth.loadRes(results), "segm")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    for name, value in zip(("AP", "AP50", "AP75", "APs"), reference.stats, strict=False):
        shown = "-" if value < 0 else f"{value:.4f}"
        assert f"{name}  {shown}" in " ".join(said.split()).replace(f"{name} ", f"{name}  ")
    for category in ("disc", "pair", "block"):
        assert category in said


def test_another_split_lies_beside_val(trained, tmp_path):
    other = make_coco(tmp_path / "other", images=1, val_images=3, seed=5)
    for name in ("annotations/instances_{}2017.json", "{}2017"):
        (other / name.format("test")).symlink_to(other / name.format("val"))
    shutil.copy(trained[1], tmp_path / "own.ckpt")
    overrides = [f"checkpoint={tmp_path}/own.ckpt", "split=test", f"+data.root={other}", "trainer.accelerator=cpu"]
    evaluate.evaluate(evaluate.plain(composed(*overrides, command="evaluate")))
    assert {found["image_id"] for found in json.loads((tmp_path / "test" / "results.json").read_text())} == {
        1005, 1015, 1025,
    }  # fmt: skip
    overrides[2] = "+data.root=null"
    config = evaluate.plain(composed(*overrides, command="evaluate"))
    for named in ({}, {"val": {"annotations": str(other / "annotations" / "instances_test2017.json")}}):
        config["data"] |= named
        with pytest.raises(UserError, match=r"split=test lies in data\.root"):
            evaluate.evaluate(config)


@pytest.mark.parametrize("root", [[], ["data.root=null"]])
def test_another_split_is_what_is_named(root, trained, monkeypatch, capsys, tmp_path):
    """Not what lies in the root: the checkpoint's has no split of this name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    other = make_coco(tmp_path / "other", images=1, val_images=3, seed=5)
    other.rename(tmp_path / "früher")
    shutil.copy(trained[1], tmp_path / "own.ckpt")
    places = ["data.val.annotations=~/früher/annotations/instances_val2017.json", "data.val.images=~/früher/val2017"]
    words = ["checkpoint=~/own.ckpt", "split=2024", *places, *root, "trainer.accelerator=cpu"]
    status, said = command(monkeypatch, capsys, evaluate, *words)
    assert status == 0, said
    found = json.loads((tmp_path / "2024" / "results.json").read_text())
    assert {row["image_id"] for row in found} == {1005, 1015, 1025}


def test_another_root_is_evaluated_as_it_is(trained, tmp_path):
    other = make_coco(tmp_path / "other", images=1, val_images=3, seed=5)
    overrides = [f"checkpoint={trained[1]}", f"data.root={other}", f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    overrides = [o if not o.startswith("data.") else f"+{o}" for o in overrides]
    numbers = evaluate.evaluate(evaluate.plain(composed(*overrides, command="evaluate")))["numbers"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {found["image_id"] for found in results} == {1005, 1015, 1025}
    reference = COCOeval(
        truth := COCO(str(other / "annotations" / "instances_val2017.json")), truth.loadRes(results), "segm"
    )
    for step in (reference.evaluate, reference.accumulate, reference.summarize):
        step()
    assert list(numbers.values()) == reference.stats.tolist()  # to the last bit


def test_categories_are_matched_by_name(trained, tmp_path):
    """Ids in another file may be others; a missing category is named."""
    other = make_coco(tmp_path / "other", images=1, val_images=3, seed=5)
    file = other / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    renumbered = {3: 40, 7: 20, 18: 30}
    for category in content["categories"]:
        category["id"] = renumbered[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = renumbered[annotation["category_id"]]
    file.write_text(json.dumps(content))
    overrides = [f"checkpoint={trained[1]}", f"+data.val.annotations={file}", f"+data.val.images={other}/val2017"]
    overrides += [f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    evaluate.evaluate(evaluate.plain(composed(*overrides, command="evaluate")))
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["category_id"] for row in found} <= {40, 20, 30}
    for category in content["categories"]:
        if category["name"] == "pair":
            category.update(name="couple", id=21)
    for annotation in content["annotations"]:
        annotation["category_id"] = {20: 21}.get(annotation["category_id"], annotation["category_id"])
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="pair"):
        evaluate.evaluate(evaluate.plain(composed(*overrides, command="evaluate")))


def test_decoder_and_metric_can_be_overridden(trained, tmp_path):
    def evaluated(*overrides: str) -> tuple[int, str]:
        """How many were found, and who scored them."""
        arguments = [f"checkpoint={trained[1]}", f"output={tmp_path}", "trainer.accelerator=cpu", *overrides]
        module = evaluate.evaluate(evaluate.plain(composed(*arguments, command="evaluate")))["module"]
        return len(json.loads((tmp_path / "results.json").read_text())), module.metric.backend

    few, backend = evaluated("+decoder.max_detections=2", "+metric.backend=pycocotools")
    assert backend == "pycocotools"
    many, backend = evaluated()
    assert backend == "hotcoco"
    assert few <= 2 * 5 < many


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("decoder.sigmaa=1", "decoder.sigmaa: there is no such key; did you mean 'sigma'?"),
        ("decoder.score_threshold=high", "decoder.score_threshold=high: must be float"),
        ("data.batch_size=many", "data.batch_size=many: must be int"),
        ("output=/proc/x", "output=/proc/x: cannot be written"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_evaluated(said, told, trained, monkeypatch, capsys):
    status, printed = command(monkeypatch, capsys, evaluate, f"checkpoint={trained[1]}", said)
    assert status == 2
    assert told in printed
    assert "AP50" not in printed


def test_a_file_without_annotations_gives_results_and_no_ap(trained, monkeypatch, capsys, tmp_path, caplog):
    other = make_coco(tmp_path / "other", images=1, val_images=2)
    file = other / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    del content["annotations"]  # as in COCO's test-dev
    file.write_text(json.dumps(content))
    words = [f"checkpoint={trained[1]}", f"data.root={other}", f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    status, said = command(monkeypatch, capsys, evaluate, *words)
    assert status == 0, said
    assert "There is no AP" in said
    assert "instances_val2017.json has no object to find, so there is no AP (-1)" in said + caplog.text
    assert {found["image_id"] for found in json.loads((tmp_path / "out" / "results.json").read_text())} == {1005, 1015}


def test_results_that_cannot_be_scored_are_written(trained, monkeypatch, tmp_path):
    def broken(*_):
        raise UserError("no scores")

    monkeypatch.setattr("aggmask.metrics.coco_mask_ap.evaluate", broken)
    overrides = [f"checkpoint={trained[1]}", f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    config = evaluate.plain(composed(*overrides, command="evaluate"))
    with pytest.raises(UserError, match="no scores"):
        evaluate.evaluate(config)
    assert len(json.loads((tmp_path / "out" / "evaluated.json").read_text())) == 5
    assert json.loads((tmp_path / "out" / "results.json").read_text())


def test_a_full_disk_does_not_hide_why_results_cannot_be_scored(trained, monkeypatch, capsys, caplog, tmp_path):
    def broken(message):
        def fails(*_):
            raise UserError(message)

        return fails

    monkeypatch.setattr("aggmask.metrics.coco_mask_ap.evaluate", broken("no scores"))
    monkeypatch.setattr("aggmask.metrics.results.write", broken("the disk is full"))
    words = [f"checkpoint={trained[1]}", f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    status, said = command(monkeypatch, capsys, evaluate, *words)
    assert status == 2
    assert "aggmask: no scores" in said
    assert "The detections are not kept: the disk is full" in said + caplog.text


def test_report_shows_a_dash_where_there_is_nothing_to_find():
    assert "There is no AP" in report({"AP": -1.0}, [])
    text = report({"AP": 0.5, "APs": -1.0}, [CategoryScore("ring", -1.0, -1.0), CategoryScore("disk", 0.25, 0.5)])
    assert [line.split() for line in text.splitlines() if line] == [
        ["AP", "0.5000"],
        ["APs", "-"],
        ["category", "AP", "AP50"],
        ["ring", "-", "-"],
        ["disk", "0.2500", "0.5000"],
    ]


def test_a_checkpoint_that_names_other_code_is_refused(trained, tmp_path):
    from aggmask.assembly.build import load

    content = torch.load(trained[1], weights_only=True)
    content["hyper_parameters"]["model"]["bank"]["_target_"] = "os.system"
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"names 'os\.system'"):
        load(tmp_path / "evil.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    from aggmask.assembly.build import load

    (tmp_path / "file.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.ckpt: not a checkpoint, or a damaged one"):
        load(tmp_path / "file.ckpt")


def test_a_newer_format_is_refused(trained, tmp_path):
    from aggmask.assembly.build import load

    content = torch.load(trained[1], weights_only=True)
    content["hyper_parameters"]["format"] = 99
    torch.save(content, tmp_path / "new.ckpt")
    with pytest.raises(UserError, match="format 99 is newer"):
        load(tmp_path / "new.ckpt")


def test_results_do_not_depend_on_the_batch(trained, tmp_path):
    # The best of each image: further down, rounding decides which of many equals are among the hundred.
    best = []
    for size in (1, 3):
        arguments = [
            f"checkpoint={trained[1]}",
            f"output={tmp_path}",
            "trainer.accelerator=cpu",
            f"+data.batch_size={size}",
        ]
        evaluate.evaluate(evaluate.plain(composed(*arguments, command="evaluate")))
        found = json.loads((tmp_path / "results.json").read_text())
        scores = {row["image_id"]: [] for row in found}
        for row in found:
            scores[row["image_id"]].append(row["score"])
        best.append({image: sorted(values)[-20:] for image, values in scores.items()})
    assert best[0].keys() == best[1].keys()
    for image, values in best[0].items():
        np.testing.assert_allclose(values, best[1][image], rtol=1e-4)


def test_a_bad_image_ends_evaluation_or_is_left_out_of_it(trained, monkeypatch, capsys, tmp_path, caplog):
    root = make_coco(tmp_path / "other", images=1, val_images=3)
    (root / "val2017" / "00001.jpg").write_text("not a picture")
    words = [f"checkpoint={trained[1]}", f"data.root={root}", f"output={tmp_path}/out", "trainer.accelerator=cpu"]
    status, said = command(monkeypatch, capsys, evaluate, *words)
    assert status == 2
    assert "00001.jpg" in said
    status, said = command(monkeypatch, capsys, evaluate, *words, "data.on_bad_image=skip")
    assert status == 0, said
    assert {found["image_id"] for found in json.loads((tmp_path / "out" / "results.json").read_text())} == {1005, 1025}
    assert "evaluating the 2 images seen of 3" in said + caplog.text
    assert "images skipped: 1" in said + caplog.text
