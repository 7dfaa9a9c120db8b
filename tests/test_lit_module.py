import json

import pytest
import torch

from aggmask.assembly.build import build, build_module, make_recipe
from aggmask.assembly.config import plain
from aggmask.errors import UserError
from aggmask.lit_module import SegmentationModule
from aggmask.metrics import ground_truth
from tests.data.make_coco import make_coco
from tests.runs import SMALL, composed, small_run


def test_ground_truth_that_cannot_be_read_ends_a_training_before_its_first_step(tmp_path, monkeypatch):
    def load(*_):
        raise UserError("no ground truth")

    monkeypatch.setattr(ground_truth, "load", load)
    monkeypatch.setattr(SegmentationModule, "training_step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(UserError, match="no ground truth"):
        small_run("solo_r50", make_coco(tmp_path / "coco", images=2, val_images=1), tmp_path / "run")


def test_a_training_without_an_end_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"max_epochs=-1 without trainer\.max_steps"):
        small_run(
            "solo_r50", make_coco(tmp_path / "coco", images=2, val_images=1), tmp_path / "run", "trainer.max_epochs=-1"
        )


def test_a_training_is_evaluated_on_categories_of_the_same_names(tmp_path):
    root = make_coco(tmp_path / "coco", images=2, val_images=1)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["id"] += 20
    for annotation in content["annotations"]:
        annotation["category_id"] += 20
    content["categories"].append({"id": 1, "name": "cup"})
    file.write_text(json.dumps(content))
    metric = small_run("solo_r50", root, tmp_path / "run", "trainer.limit_train_batches=1")["module"].metric
    assert metric.category_ids == [23, 27, 38]
    assert [score.name for score in metric.per_category().values()] == ["cup", "disc", "pair", "block"]
    content["categories"] = [{"id": 23, "name": "disk"}, *content["categories"][1:]]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"val2017\.json has no category disc, which the model knows"):
        small_run("solo_r50", root, tmp_path / "other")


def test_a_ceiling_on_asked_cells_draws_by_seed_epoch_and_images(tmp_path):
    root = make_coco(tmp_path, images=2, val_images=1)

    def drawn(epoch: int, *overrides: str) -> list[list[int]]:
        settings = ["experiment=solo_r50_agg", "name=x", "output_dir=x", f"data.root={root}", *SMALL, *overrides]
        config = plain(composed(*settings, "criterion.max_cells=9", "data.flip=0"))
        data = build(config["data"])
        module = build_module(make_recipe(config, data.categories))
        module.replayed_epoch = epoch
        batch = next(iter(data.train_dataloader()))
        targets, counts = module.targets(batch)
        assert sum(len(t.cells) for t in targets) == counts.masks == 9
        assert counts.cells > 10, "categories learn at every cell"
        return [t.cells.index.tolist() for t in targets]

    first = drawn(0)
    assert drawn(0) == first
    assert drawn(1) != first
    assert drawn(0, "data.seed=1") != first


def test_a_training_goes_on_with_as_many_images_a_step_as_it_began_with(tmp_path):
    root = make_coco(tmp_path / "coco", images=8, val_images=1)
    words = ["trainer.limit_val_batches=0", "trainer.max_epochs=2"]
    small_run("solo_r50", root, tmp_path / "run", *words, "trainer.max_steps=1", "data.batch_size=2")
    resume = [f"resume={tmp_path}/run/last.ckpt", "data.batch_size=1"]
    with pytest.raises(UserError, match=r"began with 2 images a step, and would go on with 1: data\.batch_size=1 "):
        small_run("solo_r50", root, tmp_path / "other", *words, *resume)
    other = small_run("solo_r50", root, tmp_path / "other", *words, *resume, "trainer.accumulate_grad_batches=2")
    assert other["trainer"].global_step > 1


def test_the_last_step_of_an_epoch_weighs_as_much_with_fewer_batches(tmp_path, monkeypatch):
    root = make_coco(tmp_path / "coco", images=6, val_images=1, empty_every=0)
    seen: list[torch.Tensor] = []

    def look(module, optimizer) -> None:
        seen.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))

    monkeypatch.setattr(SegmentationModule, "on_before_optimizer_step", look)

    def gradients(accumulate: int) -> list[torch.Tensor]:
        seen.clear()
        words = [
            "optim.lr=1e-60",
            "trainer.limit_val_batches=0",
            "trainer.limit_train_batches=1.0",
            "data.batch_size=2",
        ]
        words += ["data.group_by_orientation=false", f"trainer.accumulate_grad_batches={accumulate}"]
        small_run("solo_r50", root, tmp_path / str(accumulate), *words)
        return list(seen)

    one, two, three = gradients(1)
    both, last = gradients(2)
    torch.testing.assert_close(both, (one + two) / 2)
    torch.testing.assert_close(last, three)
