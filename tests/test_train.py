"""The whole path: the real configurations, shrunk, on a small data set in COCO layout."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aggmask.assembly.build import load, read_checkpoint
from aggmask.callbacks.agreement import SameConfiguration
from aggmask.callbacks.checkpoint_files import WholeCheckpoints
from aggmask.callbacks.step_cost import StepCost
from aggmask.errors import UserError
from aggmask.model.pretrained import read_weights
from aggmask.train import train
from tests.assembly.test_config import EXPERIMENTS
from tests.data.make_coco import make_coco
from tests.runs import composed, small_run

COCO_EXPERIMENTS = [name for name in EXPERIMENTS if not name.startswith(("demo", "study"))]


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("experiment", COCO_EXPERIMENTS)
def test_experiment_trains_evaluates_and_leaves_its_record(experiment, coco, tmp_path):
    parts = small_run(experiment, coco, tmp_path, forecasts_memory=True)
    assert parts["trainer"].global_step == 2
    norms = [m for m in parts["module"].segmenter.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.num_batches_tracked for norm in norms), "model.backbone.frozen_norm"
    for name in ("config.yaml", "metrics.csv", "best.ckpt", "last.ckpt", "results.json"):
        assert (tmp_path / name).is_file(), name
    rows = rows_of(tmp_path)
    logged = {key for row in rows for key, value in row.items() if value}
    numbers = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
    assert {f"val/{name}" for name in numbers} <= logged
    json.loads((tmp_path / "results.json").read_text())
    ids = {*map(str, range(1005, 1085, 10)), "sheet"}
    assert {path.stem for path in (tmp_path / "predictions").glob("*.png")} == ids
    recipe = read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]
    assert [name for _, name in recipe["categories"]] == ["disc", "pair", "block"]
    model = load(tmp_path / "last.ckpt", device="cpu")
    picture = next((coco / "val2017").iterdir())
    assert model.predict(picture)[0].size == Image.open(picture).size[::-1]
    for ours, kept in zip(
        model.segmenter.state_dict().values(), parts["module"].segmenter.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, kept)


@pytest.mark.parametrize("experiment", COCO_EXPERIMENTS)
def test_experiment_trains_on_batches_without_objects(experiment, tmp_path):
    root = _edge(tmp_path / "data", (40, 60), empty_every=1)
    overrides = ["data.skip_empty=false", "callbacks.pictures=null"]
    parts = small_run(experiment, root, tmp_path / "run", *overrides)
    assert parts["trainer"].global_step >= 1
    assert float(parts["trainer"].callback_metrics["train/loss_mask"]) == 0
    assert all(parameter.isfinite().all() for parameter in parts["module"].parameters())


def test_transfer_learning_without_a_hub(tmp_path):
    """demo_pretrained, with real weights, on few pictures."""
    few = ["data.prepare.train_images=16", "data.prepare.val_images=4", "data.prepare.size=64", "data.batch_size=8"]
    parts = small_run("demo_pretrained", tmp_path / "shapes", tmp_path / "run", *few)
    assert parts["trainer"].global_step == 2
    stem = parts["module"].segmenter.backbone.net.conv_stem.weight
    published = read_weights("package:efficientnet-lite0", "tf_efficientnet_lite0", {})["conv_stem.weight"]
    assert stem.shape == published.shape
    assert 0 < float((stem.detach() - published).abs().max()) < 0.1
    load(tmp_path / "run" / "last.ckpt", device="cpu").predict(next((tmp_path / "shapes" / "val2017").iterdir()))


@pytest.mark.parametrize("channels", [1, 4])
def test_the_number_of_channels_is_said_once(channels, coco, tmp_path):
    parts = small_run("solo_r50_agg", coco, tmp_path, f"model.backbone.in_chans={channels}", forecasts_memory=True)
    assert parts["data"].channels == channels
    assert parts["module"].segmenter.backbone.net.conv1[0].in_channels == channels
    model = load(tmp_path / "last.ckpt", device="cpu")
    picture = next((coco / "val2017").iterdir())
    from_file, from_memory = model.predict([picture, Image.open(picture)], score_threshold=0.0)
    assert torch.equal(from_file.scores, from_memory.scores)


def test_layer_decay_reaches_the_optimizer(coco, tmp_path):
    quick = ["trainer.limit_val_batches=0", "optim.warmup_steps=0", "optim.reference_batch=null"]
    parts = small_run("solo_r50", coco, tmp_path, "optim.layer_decay=0.5", *quick)
    segmenter, groups = parts["module"].segmenter, parts["trainer"].optimizers[0].param_groups
    rates = {p: group["initial_lr"] for group in groups for p in group["params"]}
    assert set(rates) == set(segmenter.parameters())
    net = segmenter.backbone.net
    assert rates[net.layer4[0].conv1.weight] == pytest.approx(0.01 * 0.5)
    assert rates[net.conv1[0].weight] == pytest.approx(0.01 * 0.5**5)
    assert {rates[p] for p in (*segmenter.fpn.parameters(), *segmenter.head.parameters())} == {0.01}


def test_gradient_checkpointing_and_frozen_stages_train_together(coco, tmp_path):
    overrides = ["model.backbone.grad_checkpointing=true", "model.backbone.frozen_stages=2"]
    no_evaluation = "trainer.limit_val_batches=0"
    parts = small_run("solo_r50", coco, tmp_path, *overrides, no_evaluation, forecasts_memory=True)
    assert parts["module"].segmenter.backbone.net.grad_checkpointing
    assert parts["trainer"].global_step == 2


def test_a_device_without_float64_is_refused(coco, tmp_path, monkeypatch):
    monkeypatch.setattr("pytorch_lightning.strategies.SingleDeviceStrategy.root_device", torch.device("mps"))
    with pytest.raises(UserError, match=r"trainer\.accelerator=cpu: Apple's MPS has no float64, .*; say trainer=cpu"):
        small_run("solo_r50", coco, tmp_path)


def test_losses_learning_rate_and_costs_are_recorded(coco, tmp_path):
    parts = small_run("solo_r50_agg", coco, tmp_path, "trainer.log_every_n_steps=1", "callbacks.step_cost.window=3")
    logged = {key for row in rows_of(tmp_path) for key, value in row.items() if value}
    assert {"train/loss", "train/loss_mask", "train/loss_category", "lr-SGD"} <= logged
    assert {"train/step_seconds", "train/memory_mb"} <= logged
    assert [callback.window for callback in parts["trainer"].callbacks if isinstance(callback, StepCost)] == [3]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("model.aggregation.window=9", lambda head: head.aggregation.window == 9),
        ("model.aggregation.layers=2", lambda head: len(head.aggregation.shapes) == 2),
        ("model.aggregation.kernel=1", lambda head: head.aggregation.shapes[0][-1] == 1),
        ("model.aggregation.channels=8", lambda head: head.aggregation.shapes[0][0] == 8),
        ("model.aggregation.context_channels=0", lambda head: not hasattr(head.aggregation, "context")),
        (
            "model.aggregation.context_layers=1",
            lambda head: isinstance(head.aggregation.context.norm, nn.Identity),
        ),
        ("model.aggregation.init=zero", lambda head: float(head.bank.kernels[0].bias.abs().max()) < 1),
        ("model.aggregation.residual=true", lambda head: head.aggregation.residual),
        ("model.interpolation.stride=4", lambda head: [v.mask_grid for v in head.levels] == [10, 9, 6, 4, 3]),
        ("model/aggregation=none", lambda head: not list(head.aggregation.parameters())),
        ("model.category.depth=2", lambda head: len(head.category.tower) == 2),
        ("model.bank.depth=2", lambda head: len(head.bank.tower) == 2),
        ("model/aggregation=deformable", lambda head: head.aggregation.neighbors.bound == 2),
        ("model/aggregation/neighbors=deformable", lambda head: head.aggregation.neighbors.bound == 2),
        ("model/aggregation/weights=branch", lambda head: len(head.aggregation.weights.tower) == 4),
    ],
)
def test_ablation_key_changes_the_model(override, changed, coco, tmp_path):
    assert changed(_changed_head("solo_r101_agg", override, coco, tmp_path))


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("model.bank.kernel=3", lambda head: head.bank.kernels.kernel_size == (3, 3)),
        ("model.bank.channels=64", lambda head: head.bank.kernels.out_channels == 64),
        ("model.bank.feature_width=64", lambda head: head.bank.features.levels[0][0].conv.out_channels == 64),
        ("model.bank.feature_norm=true", lambda head: isinstance(head.bank.features.levels[0][0].gn, nn.GroupNorm)),
        ("model.aggregation.weights.width=64", lambda head: head.aggregation.weights.channels == 64),
        ("model.aggregation.weights.depth=2", lambda head: len(head.aggregation.weights.tower) == 2),
    ],
)
def test_ablation_key_changes_the_model_on_the_predicted_bank(override, changed, coco, tmp_path):
    assert changed(_changed_head("solov2_r50_agg", override, coco, tmp_path))


def test_the_bound_of_deformable_neighbors_is_a_key(coco, tmp_path):
    override = ["model/aggregation/neighbors=deformable", "model.aggregation.neighbors.bound=0.5"]
    assert _changed_head("solov2_r50_agg", override, coco, tmp_path).aggregation.neighbors.bound == 0.5


def _changed_head(experiment: str, override: str | list[str], coco: Path, folder: Path) -> nn.Module:
    overrides = [override] if isinstance(override, str) else override
    settings = ["trainer.limit_val_batches=1", "callbacks.pictures=null"]
    return small_run(experiment, coco, folder, *settings, *overrides, forecasts_memory=True)["module"].segmenter.head


def test_evaluation_may_have_a_size_of_its_own(coco, tmp_path):
    settings = ["data.short_side=[32,64]", "data.evaluation_short_side=48", "trainer.limit_val_batches=1"]
    parts = small_run("solo_r50", coco, tmp_path, *settings)
    assert parts["data"].evaluation_resize.short_sides == (48,)
    assert load(tmp_path / "last.ckpt", device="cpu").resize.short_sides == (48,)


def test_detections_that_ap_counts_follow_the_decoder_unless_they_are_given(coco, tmp_path):
    settings = ["trainer.limit_val_batches=1", "callbacks.pictures=null", "decoder.max_detections=300"]
    counted = [
        small_run("solo_r50", coco, tmp_path / name, *settings, *more)["module"].metric.max_detections
        for name, more in (("follows", []), ("given", ["metric.max_detections=100"]))
    ]
    assert counted == [300, 100]


@pytest.mark.parametrize("window", [1, 4, 5, 9, 25])
def test_every_window_trains_with_interpolation(window, coco, tmp_path):
    overrides = ["model.interpolation.stride=2", f"model.aggregation.window={window}", "trainer.limit_val_batches=0"]
    parts = small_run("solo_r101_agg", coco, tmp_path, *overrides)
    assert parts["module"].segmenter.head.aggregation.window == window
    assert (tmp_path / "last.ckpt").is_file()  # without any evaluation


def _edge(root: Path, size: tuple[int, int], images: int = 2, **options) -> Path:
    return make_coco(root, images=images, val_images=images, sizes=[size], **options)


@pytest.mark.parametrize("experiment", ["solo_r50", "solo_r50_agg", "solov2_r50", "solov2_r50_agg"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("no objects at all", lambda root: _edge(root, (40, 40), empty_every=1)),
        ("one image", lambda root: _edge(root, (40, 60), images=1)),
        ("images of 1:8", lambda root: _edge(root, (24, 192))),
        ("sizes mixed in a batch", lambda root: make_coco(root, images=6, val_images=2)),
    ],
)
def test_edges_train_evaluate_and_predict(experiment, name, make, tmp_path):
    root = make(tmp_path / "data")
    overrides = ["data.skip_empty=false", "data.group_by_orientation=false", "data.batch_size=2"]
    parts = small_run(experiment, root, tmp_path / "run", *overrides)
    assert parts["trainer"].global_step >= 1
    assert all(parameter.isfinite().all() for parameter in parts["module"].parameters())
    model = load(tmp_path / "run" / "last.ckpt", device="cpu")
    picture = next((root / "val2017").iterdir())
    found = model.predict(picture)[0]
    assert found.size == Image.open(picture).size[::-1]


def test_an_image_smaller_than_a_stride_and_tiny_objects(tmp_path):
    root = make_coco(tmp_path / "data", images=2, val_images=1, sizes=[(40, 40)], empty_every=0)
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            image.update(height=3, width=5)
            Image.new("RGB", (5, 3), (200, 30, 30)).save(root / f"{split}2017" / image["file_name"])
        for annotation in content["annotations"]:
            annotation.update(segmentation=[[1, 1, 2, 1, 2, 2, 1, 2]], bbox=[1, 1, 1, 1], area=1, iscrowd=0)
        file.write_text(json.dumps(content))
    # A canvas of 32 pixels leaves one pixel to a GroupNorm, which then needs two channels a group.
    sizes = ["data.short_side=3", "data.long_side=5", "model.category.width=64", "model.bank.width=64"]
    parts = small_run("solo_r50_agg", root, tmp_path / "run", *sizes)
    assert parts["trainer"].global_step == 1
    # One square pixel is less than AggMask's least area: nothing is positive, and the mask loss is 0.
    assert float(parts["trainer"].callback_metrics["train/loss_mask"]) == 0


def test_a_run_goes_on_from_its_checkpoint(coco, tmp_path):
    overrides = ["data.flip=0", "trainer.limit_val_batches=0", "optim.warmup_steps=2"]
    whole = small_run("solo_r50_agg", coco, tmp_path / "whole", *overrides, "trainer.max_epochs=2")
    # The first half of the same two epochs: the schedule must know the whole length.
    config = ["trainer.max_epochs=2", "+trainer.min_epochs=1", "+trainer.max_time=null"]
    halted = small_run("solo_r50_agg", coco, tmp_path / "half", *overrides, *config, "trainer.max_steps=2")
    assert halted["trainer"].global_step == 2
    again = small_run(
        "solo_r50_agg", coco, tmp_path / "rest", *overrides, "trainer.max_epochs=2", f"resume={tmp_path}/half/last.ckpt"
    )
    assert again["trainer"].global_step == whole["trainer"].global_step == 4


def test_the_batch_scales_the_learning_rate(coco, tmp_path):
    parts = small_run("solo_r50", coco, tmp_path, "optim.warmup_steps=0", "trainer.limit_val_batches=0")
    optimizer = parts["trainer"].optimizers[0]
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.01 * 2 / 16)


def test_accumulated_batches_count_for_the_learning_rate(coco, tmp_path):
    overrides = ["trainer.accumulate_grad_batches=2", "trainer.limit_val_batches=0"]
    parts = small_run("solo_r50", coco, tmp_path, *overrides)
    assert parts["trainer"].optimizers[0].param_groups[0]["initial_lr"] == pytest.approx(0.01 * 4 / 16)


def test_adamw_with_a_cosine_and_without_decay_of_norms(coco, tmp_path):
    parts = small_run("solo_r50", coco, tmp_path, "optim=adamw", "optim.lr=0.16", "trainer.limit_val_batches=0")
    optimizer = parts["trainer"].optimizers[0]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0, 0.05]
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.16 * 2 / 16}
    assert parts["module"].optim_recipe.factor(1000, 2000) == pytest.approx(0.505)


@pytest.mark.parametrize(("debug", "experiment"), [("fast", "study"), ("overfit", "solo_r50")])
def test_debug_configurations_run(debug, experiment, coco, tmp_path):
    words = ["data=coco"] if debug == "fast" else ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"]
    trainer = small_run(experiment, coco, tmp_path, f"debug={debug}", *words)["trainer"]
    assert trainer.global_step == 2
    assert (tmp_path / "results.json").is_file()
    batches, shown = trainer.datamodule.train_dataloader().batch_sampler, []
    for epoch in (0, 7):
        batches.set_epoch(epoch)
        shown.append(list(batches))
    assert (shown[0] == shown[1]) == (debug == "overfit")


def test_zips_are_read_in_place(coco, tmp_path):
    import shutil

    root = tmp_path / "zipped"
    (root).mkdir()
    shutil.copytree(coco / "annotations", root / "annotations")
    for split in ("train2017", "val2017"):
        shutil.make_archive(str(root / split), "zip", coco, split)
    assert small_run("solo_r50", root, tmp_path / "run")["trainer"].global_step == 2


def test_own_file_names(coco, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (coco / "annotations" / "instances_train2017.json").rename(own / "labels of today.json")
    (coco / "train2017").rename(own / "pictures")
    try:
        overrides = [f"data.train.annotations='{own}/labels of today.json'", f"data.train.images={own}/pictures"]
        assert small_run("solo_r50", coco, tmp_path / "run", *overrides)["trainer"].global_step == 2
    finally:
        (own / "labels of today.json").rename(coco / "annotations" / "instances_train2017.json")
        (own / "pictures").rename(coco / "train2017")


@pytest.mark.parametrize("logger", ["wandb", "tensorboard"])
def test_loggers_work_without_an_account(logger, coco, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    extra = ["logger.wandb.mode=offline"] if logger == "wandb" else []
    small_run("solo_r50", coco, tmp_path, f"logger={logger}", "trainer.log_every_n_steps=1", *extra)
    assert (tmp_path / "metrics.csv").is_file()
    pattern = "wandb/offline-run-*/*.wandb" if logger == "wandb" else "tensorboard/events.out.*"
    assert list(tmp_path.glob(pattern))
    if logger == "wandb":
        assert (tmp_path / "wandb_id.txt").read_text()
        assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/val/pictures_*.png"))) == 8
        assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/mask/*"))


def test_configuration_is_kept_resolved(coco, tmp_path):
    from omegaconf import OmegaConf

    parts = small_run("solo_r50", coco, tmp_path, "seed=7", "trainer.limit_val_batches=0")
    assert [c.config for c in parts["trainer"].callbacks if isinstance(c, SameConfiguration)] == [parts["config"]]
    assert isinstance(parts["trainer"].strategy.checkpoint_io, WholeCheckpoints)
    kept = OmegaConf.load(tmp_path / "config.yaml")
    assert OmegaConf.to_container(kept) == OmegaConf.to_container(kept, resolve=True)
    assert kept.seed == kept.data.seed == 7
    assert composed("experiment=solo_r50", "name=x", "output_dir=x").data.seed == 0


def test_steps_that_end_inside_an_epoch_are_evaluated(coco, tmp_path):
    settings = ["trainer.limit_train_batches=1.0", "trainer.max_steps=1"]
    assert small_run("solo_r50", coco, tmp_path, *settings)["trainer"].global_step == 1
    assert "val/AP" in rows_of(tmp_path)[-1]
    assert (tmp_path / "results.json").is_file()
    assert (tmp_path / "last.ckpt").is_file()
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["global_step"] == 1
    on = small_run("solo_r50", coco, tmp_path, *settings, "trainer.max_steps=2", f"resume={tmp_path}/best.ckpt")
    assert on["trainer"].global_step == 2


@pytest.mark.parametrize(
    "ends",
    [
        ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"],
        ["trainer.max_epochs=-1", "trainer.max_steps=6", "trainer.check_val_every_n_epoch=2"],
        ["trainer.max_epochs=-1", "trainer.max_steps=6", "+trainer.val_check_interval=4",
         "trainer.check_val_every_n_epoch=null"],
    ],
)  # fmt: skip
def test_the_end_of_a_training_is_evaluated_once(ends, coco, tmp_path):
    settings = ["trainer.limit_train_batches=2", "data.batch_size=1", *ends]
    parts = small_run("solo_r50", coco, tmp_path, *settings)
    evaluated = [row["step"] for row in rows_of(tmp_path) if row.get("val/AP")]
    assert len(evaluated) == len(set(evaluated)) == 2, evaluated
    assert parts["module"].evaluated_at == parts["trainer"].global_step == 6
    rows = rows_of(tmp_path)
    again = small_run("solo_r50", coco, tmp_path, *settings, "resume=auto")
    assert again["module"].evaluated_at == 6
    assert rows_of(tmp_path) == rows


@pytest.mark.slow
def test_the_real_experiment_on_photographs_sizes(tmp_path):
    """Nothing shrunk but the number of steps: ResNet-101, 256 channels, short side 640 to 800."""
    sizes = [(480, 640), (640, 427), (375, 500), (612, 612)]
    root = make_coco(tmp_path / "coco", images=4, val_images=1, sizes=sizes)
    settings = ["experiment=solo_r101_agg", "name=x", f"output_dir={tmp_path}/run", f"data.root={root}"]
    random = ["model.backbone.pretrained=false", "model.backbone.frozen_stages=0", "model.backbone.frozen_norm=false"]
    limits = ["trainer.accelerator=cpu", "trainer.max_steps=2", "data.batch_size=1", "data.num_workers=2"]
    parts = train(composed(*settings, *random, *limits))
    assert parts["trainer"].global_step == 2
    assert all(value.isfinite().all() for value in parts["module"].parameters())
    assert (tmp_path / "run" / "results.json").is_file()


def test_categories_that_no_object_has_are_named(tmp_path, caplog):
    root = make_coco(tmp_path / "coco", images=2, val_images=1)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"].append({"id": 90, "name": "parent"})
        file.write_text(json.dumps(content))
    small_run("solo_r50", root, tmp_path / "run", "callbacks.pictures=null", "trainer.limit_train_batches=1")
    assert "1 of 4 categories have no object to learn from: 90 ('parent')" in caplog.text


def test_the_scale_of_deep_pictures_travels_in_the_checkpoint(tmp_path):
    root = make_coco(tmp_path / "coco", images=2, val_images=1)
    words = ["data.value_range=[0,4095]", "callbacks.pictures=null", "trainer.limit_train_batches=1"]
    small_run("solo_r50", root, tmp_path / "run", *words)
    model = load(tmp_path / "run" / "last.ckpt", device="cpu")
    assert model.value_range == (0, 4095)
    seen = []
    model.look = lambda pixels, threshold: seen.append(pixels)
    model.predict(np.full((20, 30), 4095, np.uint16))
    assert (seen[0] == 255).all()
