"""Published checkpoints become models that compute what the golden heads compute, and go back bit for bit."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aggmask
from aggmask.assembly.build import PARTS, build, load, load_module
from aggmask.assembly.config import plain
from aggmask.assembly.published import as_published, from_published
from aggmask.assembly.published_recipe import grids_of
from aggmask.checkpoints.published import BATCH_COUNTER, to_published
from aggmask.data.coco import collate
from aggmask.data.coco_categories import COCO_CATEGORIES
from aggmask.data.transforms import Resize, apply_frame
from aggmask.errors import UserError
from aggmask.structures import ImageBatch
from tests.checkpoints.make_published import published_model
from tests.golden_case import KINDS, GoldenCase, golden_files, own_files
from tests.runs import composed

PICTURE = (np.indices((64, 96)).sum(0)[..., None] * [2, 3, 5] % 256).astype(np.uint8)


@pytest.fixture(scope="module", params=golden_files(*KINDS), ids=lambda path: path.stem)
def case(request) -> GoldenCase:
    return GoldenCase(request.param)


def families(case: GoldenCase) -> tuple[str, ...]:
    return ("first",) if case.meta["kind"].startswith("agg") else ("first", "later")


def grids(case: GoldenCase) -> dict[str, list[int]]:
    return {"grids": [v.grid for v in case.levels], "mask_grids": [v.mask_grid for v in case.levels]}


def told(case: GoldenCase) -> dict[str, Any]:
    """What the weights may not tell, as a user would say it."""
    if not case.meta["kind"].startswith("agg"):
        return grids(case)
    # One layer has no channels between.
    asked = {key: value for key, value in case.network.items() if key != "channels" or case.network["layers"] > 1}
    return {**grids(case), "aggregation": asked}


def checkpoint_of(*overrides: str) -> tuple[dict, dict]:
    """A checkpoint with names and shapes of all weights but no numbers, and the parts of its configuration."""
    cfg = composed(*overrides)
    wanted = {part: plain(cfg[part]) for part in PARTS}
    wanted["model"]["backbone"]["pretrained"] = False
    with torch.device("meta"):
        weights = build(wanted["model"], num_classes=80).state_dict()
    content = {
        "state_dict": {f"segmenter.{n}": v for n, v in weights.items()},
        "hyper_parameters": {**wanted, "categories": [[c.id, c.name] for c in COCO_CATEGORIES]},
    }
    return content, wanted


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_golden_checkpoint_detects_what_its_parts_detect(case, tmp_path):
    for family in families(case):
        weights, net, fpn = published_model(case, family)
        names = [f"class {number}" for number in range(case.cfg["num_classes"] - 1)]
        torch.save({"meta": {"CLASSES": tuple(names)}, "state_dict": weights}, tmp_path / "model.pth")
        model = load(tmp_path / "model.pth", "cpu", short_side=64, long_side=96, **told(case))
        frame = Resize((64,), 96)(PICTURE.shape[:2], np.random.default_rng(0))
        batch = collate([ImageBatch(apply_frame(PICTURE, frame)[None], [frame], [0])])
        with torch.no_grad():
            outputs = case.head(fpn(net(model.segmenter.normalize(batch))))
            by_hand = model.decoder(outputs, batch.pixels.shape[-2:])[0]
            ours = model.decoder(model.segmenter(model.segmenter.normalize(batch)), batch.pixels.shape[-2:])[0]
        assert len(ours) or not case.own  # of other files nobody knows whether anything is found
        assert torch.equal(ours.scores, by_hand.scores)
        assert torch.equal(ours.labels, by_hand.labels)
        assert torch.equal(ours.masks, by_hand.masks)
        found = model.predict(PICTURE)[0]
        assert torch.equal(found.scores, by_hand.scores)
        assert [category.name for category in model.categories] == names


def test_golden_round_trip_is_exact(case):
    for family in families(case):
        weights = published_model(case, family)[0]
        ours = from_published({"state_dict": weights}, "model.pth", **told(case))
        back = as_published(ours)
        same(back["state_dict"], weights)
        again = from_published(back, "model.pth", **told(case))
        same(again["state_dict"], ours["state_dict"])
        assert again["hyper_parameters"] == ours["hyper_parameters"]
        bare = {name: value for name, value in weights.items() if not name.endswith(BATCH_COUNTER)}
        without = from_published(bare, "model.pth", **told(case))  # no counters, no key state_dict
        same(without["state_dict"], ours["state_dict"])
        same(as_published(without)["state_dict"], bare)


def some_case(kind: str) -> GoldenCase:
    return GoldenCase(own_files(kind)[0])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("backbone.fc.weight", torch.zeros(1), r"'backbone.fc.weight' has no place.*classifier"),
        ("backbone.layer2.0.conv2.conv_offset.weight", torch.zeros(1), r"conv_offset.*deformable"),
        ("bbox_head.dsolo_ins_list_x.0.weight", torch.zeros(1), r"Decoupled SOLO"),
        ("bbox_head.ins_convs.2.conv.bias", torch.zeros(1), r"ins_convs.2.conv.bias' has no place"),
        ("bbox_head.cate_convs.1.conv.weight", torch.zeros(32, 32, 5, 5), r"cate_convs.1.conv.weight' is \(32, 32, 5"),
        ("bbox_head.solo_ins_list.1.weight", torch.zeros(50, 32, 1, 1), "level 1 has kernels for 50 .* no square"),
        ("neck.fpn_convs.1.conv.bias", None, r"lacks 'neck.fpn_convs.1.conv.bias'"),
        ("bbox_head.solo_cate.weight", None, "head.category.classifier.weight"),
        ("backbone.layer3.1.conv1.weight", None, "no ResNet-18"),
    ],
)
def test_what_has_no_place_is_named(name, value, said):
    case = some_case("solo")
    weights = published_model(case)[0]
    weights[name] = value
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(UserError, match=f"model.pth: .*{said}"):
        from_published({"state_dict": weights}, "model.pth", **grids(case))


@pytest.mark.parametrize(
    ("experiment", "file", "expected"),
    [
        ("solo_r50", "m", "solo_r50"),
        ("solo_r101_agg_interp", "m", "solo_r101_agg_interp"),
        ("solo_r101_agg_bigcls", "r101_bigcls_3x", "solo_r101_agg_bigcls"),
        ("solov2_light_r34", "m", "solov2_light_r34"),
        ("solov2_r50_agg", "m", "solov2_r50_agg"),
        ("solov2_r101_agg_interp", "m", "solov2_r101_agg_interp"),
        ("solov2_r101_agg_bigcls60", "agg_bigcls60", "solov2_r101_agg_bigcls60"),
        ("solo_r101", "solo_r101_increasing_clsgrid", "solo_r101"),
        ("solo_r101_agg_bigcls", "aggmask_r101_fpn_increasing_clsgrid", "solo_r101_agg_bigcls"),
        ("solov2_r101_agg_bigcls", "aggmask_star_r101_fpn_increasing_clsgrid-0a1b2c3d", "solov2_r101_agg_bigcls"),
        (
            "solov2_r101_agg_bigcls60",
            "aggmask_star_r101_fpn_increasing_clsgrid_more-60-50-36-16-12",
            "solov2_r101_agg_bigcls60",
        ),
    ],
)
def test_the_weights_of_a_published_model_lead_to_its_experiment(experiment, file, expected):
    content, wanted = checkpoint_of(f"experiment={experiment}")
    recipe = from_published(as_published(content)["state_dict"], file)["hyper_parameters"]
    assert {part: recipe[part] for part in PARTS} == wanted
    assert recipe["categories"] == [[c.id, c.name] for c in COCO_CATEGORIES]


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 2},
        {"layers": 2, "context_channels": 0},
        {"layers": 4, "context_channels": 4},
        {"layers": 1},
        {"window": 1},
        {"window": 9},
        {"kernel": 1},
    ],
)
def test_of_several_networks_that_fit_the_likeliest_is_taken(options):
    """One option away from the published ones: nothing that the published code could not have made."""
    content, wanted = checkpoint_of(
        "experiment=solo_r50_agg", *(f"model.aggregation.{k}={v}" for k, v in options.items())
    )
    assert from_published(as_published(content)["state_dict"], "x")["hyper_parameters"]["model"] == wanted["model"]


@pytest.mark.parametrize("given", [5, True, {0: "a"}, ({"id": 1, "name": "a"},), [1, 2]])
def test_names_of_categories_that_are_none_are_left_aside(given, caplog):
    weights = published_model(case := some_case("solo"))[0]
    with caplog.at_level(logging.WARNING):
        made = from_published({"meta": {"CLASSES": given}, "state_dict": weights}, "x", **grids(case))
    assert "no list of names: left aside; categories=" in caplog.text
    assert [name for _, name in made["hyper_parameters"]["categories"]] == [f"class {n}" for n in range(1, 6)]


@pytest.mark.parametrize(("given", "count"), [("crack", 1), ([f"class {n}" for n in range(6)], 6)])
def test_more_or_fewer_names_of_categories_are_refused(given, count):
    weights = published_model(case := some_case("solo"))[0]
    with pytest.raises(UserError, match=rf"5 classes, but {count} names of categories; say categories=.* with 5"):
        from_published({"meta": {"CLASSES": given}, "state_dict": weights}, "x", **grids(case))


def test_parts_that_were_never_published_together_are_refused():
    content, _ = checkpoint_of("experiment=solo_r50_agg", "model/aggregation/weights=branch")
    weights = to_published({name.removeprefix("segmenter."): v for name, v in content["state_dict"].items()})
    for base in (None, "solo_r50_agg"):
        with pytest.raises(UserError, match="no published model has these kernels, this aggregation and its weights"):
            from_published(weights, "model.pth", base=base)


def test_category_grids_are_those_of_the_masks_where_nothing_speaks_against_it(caplog):
    case = next(c for c in map(GoldenCase, own_files("agg")) if c.window == 5)
    with caplog.at_level(logging.WARNING):
        content = from_published(published_model(case)[0], "model.pth")
    assert [row["grid"] for row in content["hyper_parameters"]["model"]["levels"]] == [v.mask_grid for v in case.levels]
    assert "do not tell the category grids; taken: 8-7-6-4-3" in caplog.text or case.levels[0].mask_grid != 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_of_another_kind_is_refused(kind):
    case = some_case(kind)
    weights, *_ = published_model(case)
    likeliest = {"solo": "solo_r50", "agg": "solo_r50_agg", "solov2": "solov2_light_r18", "aggstar": "solov2_r50_agg"}
    for base in ("solo_r50", "solo_r50_agg", "solov2_r50", "solov2_r50_agg"):
        if base == likeliest[kind].replace("_light_r18", "_r50"):
            assert from_published(weights, "x", base=base, **grids(case))
            continue
        told = f"base={base}: is another kind of model than the weights.*base={likeliest[kind]}"
        with pytest.raises(UserError, match=told):
            from_published(weights, "x", base=base)


def test_what_a_checkpoint_of_ours_tells_is_not_said_again(tmp_path):
    torch.save({"hyper_parameters": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="tells its grids, categories by itself; leave grids and categories out"):
        load(tmp_path / "last.ckpt", grids=[8], categories=["cat"])


def test_category_grids_are_asked_for(caplog):
    case = next(c for c in map(GoldenCase, own_files("agg")) if c.window == 4)
    weights = published_model(case)[0]
    with pytest.raises(UserError, match="do not tell the category grids"):
        from_published(weights, "model.pth")
    with pytest.raises(UserError, match="4 levels; experiment solo_r50_agg has 5"):
        from_published(weights, "model.pth", grids=[8, 7, 6, 4])
    with pytest.raises(UserError, match="base=solo_r5: there is no such experiment"):
        from_published(weights, "model.pth", base="solo_r5")
    predicted = published_model(some_case("solov2"))[0]
    with pytest.raises(UserError, match=r"meta\.category_ids .* must be 5 whole numbers, all different"):
        from_published(
            {"meta": {"CLASSES": list("abcde"), "category_ids": [1, 2, 3, 4, 4]}, "state_dict": predicted}, "x"
        )
    with caplog.at_level(logging.WARNING):
        content = from_published(predicted, "model.pth", categories=list("abcde"))
    assert "do not tell the category grids; taken: 40-36-24-16-12" in caplog.text
    assert content["hyper_parameters"]["categories"][4] == [5, "e"]
    with pytest.raises(UserError, match="5 classes, but 2 names"):
        from_published(predicted, "model.pth", categories=["a", "b"])


def test_what_was_never_published_is_not_written():
    case = some_case("agg")
    content = from_published(published_model(case)[0], "model.pth", **grids(case))
    content["hyper_parameters"]["model"]["aggregation"]["residual"] = True
    with pytest.raises(UserError, match="residual"):
        as_published(content)
    content["hyper_parameters"]["model"]["aggregation"]["residual"] = False
    with pytest.raises(UserError, match=r"published names have none for 'head\.aggregation"):
        as_published(content, "later")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["experiment=solo_r50", "model.interpolation.stride=2"], r"has grids \[40, 36.* and \[20, 18"),
        (["experiment=solov2_r50", "model.interpolation.stride=2"], "published models without aggregation have a mask"),
        (["experiment=solo_r50", "model.backbone.name=resnetaa50"], "name=resnetaa50: .* a plain resnet50"),
        (["experiment=solo_r50", "model.levels.4.stride=16"], r"at strides .* this one has \[8, 8, 16, 32, 16\]"),
        (["experiment=solo_r50", "model/levels=study"], r"at strides \[8, 8, 16, 32, 32\]; this one has \[8, 8, 16\]"),
        (["experiment=solo_r50_agg", "model.aggregation.window=25"], "window=25: published models have windows"),
        (["experiment=solo_r101_agg_interp", "model.aggregation.window=1"], "window=1: where mask grids are coarser"),
        (["experiment=solo_r50_agg", "model.aggregation.kernel=5"], "kernel=5: published models have kernels 1, 3"),
        (["experiment=solo_r50_agg", "model/aggregation/weights=branch"], "no published model has these kernels"),
        (["experiment=solov2_r50", "model/aggregation=dynamic"], "no published model has these kernels"),
        (
            ["experiment=solov2_r50", "model/bank=predicted_star"],
            r"model\.bank\.kernel=1: the published models of this kind .*solov2_r50.* have 3",
        ),
        (["experiment=solov2_r50_agg", "model.bank.feature_norm=true"], r"feature_norm=True: .*solov2_r50_agg.* False"),
    ],
)
def test_weights_that_published_code_would_use_otherwise_are_not_written(said, told):
    with pytest.raises(UserError, match=told):
        as_published(checkpoint_of(*said)[0])


@pytest.mark.parametrize(
    "said",
    [
        ["experiment=solo_r101_agg_bigcls"],
        ["experiment=solov2_r101_agg_bigcls60"],
        ["experiment=solo_r50_agg", "model.interpolation.stride=2"],
        ["experiment=solov2_r50_agg", "model.interpolation.stride=4"],
    ],
)
def test_grids_come_back(said, caplog):
    """Which the weights do not tell: of the plain model and that with more category cells they are the same."""
    content, wanted = checkpoint_of(*said)
    with caplog.at_level(logging.WARNING):
        again = from_published(as_published(content), "x.pth")["hyper_parameters"]
    assert grids_of(again) == grids_of(wanted)
    assert "grids" not in caplog.text


def test_what_is_said_goes_before_what_a_file_says():
    content = as_published(checkpoint_of("experiment=solov2_r50_agg", "model.interpolation.stride=4")[0])
    s, t = content["meta"]["grids"], content["meta"]["mask_grids"]
    for said, expected in (({"grids": s}, (s, t)), ({"mask_grids": s}, (s, s)), ({"grids": t}, (t, t))):
        assert grids_of(from_published(content, "x.pth", **said)["hyper_parameters"]) == expected


def test_grids_that_are_none_are_refused():
    weights = published_model(some_case("solo"))[0]
    with pytest.raises(UserError, match=r"x: meta\.grids \['a'\] must be whole numbers, one a level"):
        from_published({"meta": {"grids": ["a"]}, "state_dict": weights}, "x")


@pytest.mark.parametrize("said", [{"grids": 40}, {"mask_grids": "20"}, {"grids": ["a"]}, {"categories": "abcde"}])
def test_what_is_no_list_is_refused(said):
    """Five letters would be taken for the names of five classes."""
    weights = published_model(case := some_case("solo"))[0]
    key, value = next(iter(said.items()))
    with pytest.raises(UserError, match=re.escape(f"{key}={value}: must be a list of ")):
        from_published(weights, "x", **{**grids(case), **said})


def test_ids_of_categories_come_back():
    case = some_case("solo")
    content = from_published(published_model(case)[0], "model.pth", categories=list("abcde"), **grids(case))
    content["hyper_parameters"]["categories"] = [[7, "a"], [3, "b"], [9, "c"], [1, "d"], [20, "e"]]
    again = from_published(as_published(content), "model.pth", **grids(case))
    assert again["hyper_parameters"]["categories"] == content["hyper_parameters"]["categories"]


def test_labels_are_in_the_order_of_coco_ids():
    ids = [category.id for category in COCO_CATEGORIES]
    assert ids == sorted(ids)
    assert set(range(1, 91)) - set(ids) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    named = {category.id: category.name for category in COCO_CATEGORIES}
    assert (named[1], named[13], named[44], named[67], named[90]) == (
        "person",
        "stop sign",
        "bottle",
        "dining table",
        "toothbrush",
    )
    assert len(named) == 80


def test_the_table_of_weights_names_experiments_that_exist():
    root = Path(__file__).parents[2]
    rows = re.findall(r"^\|[^|]*\| `(\w+)`", (root / "docs" / "weights.md").read_text(), re.MULTILINE)
    assert len(rows) >= 15
    known = {path.stem for path in (root / "conf" / "experiment").glob("*.yaml")}
    assert set(rows) <= known


def test_load_module_says_what_to_do_with_a_published_checkpoint(tmp_path):
    torch.save({"state_dict": {"bbox_head.x": torch.zeros(1)}}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"python -m aggmask\.convert"):
        load_module(tmp_path / "model.pth")
    assert aggmask.load is load
