"""The lists of fidelity and of faults: they are numbered, their tests exist; the recipes are the published models'."""

import re
from dataclasses import astuple
from functools import cache
from pathlib import Path

import pytest

from aggmask.assembly.build import counted_detections
from aggmask.assembly.config import experiments, plain
from aggmask.geometry.grid import make_levels
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


PUBLISHED = [name for name in experiments() if name.startswith("solo")]
GRIDS = (40, 36, 24, 16, 12)
LARGER_GRIDS = {"bigcls": (50, 40, 24, 16, 12), "bigcls60": (60, 50, 36, 16, 12)}
SCALES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
LIGHT_SCALES = ((1, 56), (28, 112), (56, 224), (112, 448), (224, 896))


@cache
def configuration(experiment):
    return plain(composed(f"experiment={experiment}", "name=x", "output_dir=x"))


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
    cfg = configuration(experiment)
    assert cfg["optim"]["warmup_start"] == pytest.approx(warmup_start)
    assert [round(m * epochs) for m in cfg["optim"]["schedule"]["milestones"]] == [epochs * 3 // 4, epochs * 11 // 12]
    assert cfg["trainer"]["max_epochs"] == epochs
    assert (cfg["model"]["category"]["depth"], cfg["model"]["bank"]["depth"]) == depths
    assert cfg["assigner"]["min_area"] == min_area
    assert cfg["assigner"]["shared_cells"] == (
        "all" if experiment.startswith("solov2") and "agg" not in experiment else "last"
    )
    assert (cfg["optim"]["lr"], cfg["optim"]["reference_batch"], cfg["trainer"]["gradient_clip_val"]) == (0.01, 16, 35)


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_what_all_published_models_share(experiment):
    cfg = configuration(experiment)
    for node, expected in (
        (cfg["model"], {"fpn_channels": 256}),
        (cfg["model"]["backbone"], {"pretrained": True, "frozen_stages": 1, "frozen_norm": True}),
        (cfg["assigner"], {"center_fraction": 0.2}),
        (cfg["criterion"], {"mask_weight": 3.0, "category_weight": 1.0, "alpha": 0.25, "gamma": 2.0}),
        (cfg["decoder"], {"score_threshold": 0.1, "mask_threshold": 0.5, "nms_pre": 500, "keep_threshold": 0.05}),
        (cfg["decoder"], {"kernel": "gaussian", "sigma": 2.0}),
        (cfg["optim"], {"warmup_steps": 500, "layer_decay": None, "decay_norms_and_biases": True}),
        (cfg["optim"]["optimizer"], {"_target_": "torch.optim.SGD", "momentum": 0.9, "weight_decay": 0.0001}),
        (cfg["optim"]["schedule"], {"gamma": 0.1}),
        (cfg["data"], {"batch_size": 2, "flip": 0.5, "large_scale_jitter": None, "color_jitter": None}),
    ):
        assert {key: node[key] for key in expected} == expected


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_sizes_of_the_published_models(experiment):
    data = configuration(experiment)["data"]
    sizes = data["short_side"], data["evaluation_short_side"], data["long_side"]
    if "light" in experiment:
        assert sizes == ([352, 384, 416, 448, 480, 512], 448, 768)
    else:
        assert sizes == ([640, 672, 704, 736, 768, 800], None, 1333)  # tested at the largest


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_levels_of_the_published_models(experiment):
    model, variant = configuration(experiment)["model"], experiment.split("_")[-1]
    rows = [astuple(level) for level in make_levels(model["levels"], model["interpolation"]["stride"])]
    strides, grids, mask_grids, least, most = zip(*rows, strict=True)
    assert strides == (8, 8, 16, 32, 32)
    assert grids == LARGER_GRIDS.get(variant, GRIDS)
    assert mask_grids == ((20, 18, 12, 8, 6) if variant == "interp" else GRIDS)
    assert tuple(zip(least, most, strict=True)) == (LIGHT_SCALES if "light" in experiment else SCALES)


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_aggregation_of_the_published_models(experiment):
    aggregation = configuration(experiment)["model"]["aggregation"]
    assert aggregation["init"] == "published"
    if "agg" not in experiment:
        assert aggregation["_target_"].endswith(".KeepCell")
        return
    assert aggregation["residual"] is False
    assert aggregation["window"] == (4 if experiment.endswith("interp") else 5)
    assert [aggregation[key] for key in ("layers", "kernel", "channels")] == [3, 3, 4]
    assert [aggregation[key] for key in ("context_channels", "context_layers")] == [16, 2]
    star = experiment.startswith("solov2")
    assert aggregation["weights"]["_target_"].endswith(".BranchWeights" if star else ".CategoryWeights")


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_detections_that_published_models_keep_and_ap_counts(experiment):
    cfg = configuration(experiment)
    larger = "bigcls" in experiment or ("solov2" in experiment and "agg" in experiment)
    assert cfg["decoder"]["max_detections"] == (300 if larger else 100)
    assert counted_detections(cfg) == 100
