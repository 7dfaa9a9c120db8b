import json
import re
from pathlib import Path

import pytest
import torch

from aggmask import convert, evaluate, load
from aggmask.data.coco_categories import COCO_CATEGORIES
from aggmask.errors import UserError
from tests.checkpoints.make_published import published_model, resnet
from tests.data.make_coco import make_coco
from tests.golden_case import GoldenCase, own_files
from tests.runs import command, composed


class Foreign:
    """A class that no plain file holds."""


@pytest.fixture(scope="module")
def weights() -> dict:
    return published_model(GoldenCase(own_files("solo")[0]))[0]


def test_there_and_back(weights, monkeypatch, capsys, tmp_path):
    parallel = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"state_dict": parallel}, tmp_path / "source.pth")
    arguments = [f"source={tmp_path}/source.pth", f"output={tmp_path}/a b/model.ckpt", "categories=[a,b,c,d,e]"]
    status, said = command(monkeypatch, capsys, convert, *arguments)
    assert status == 0, said
    arguments = [f"source={tmp_path}/a b/model.ckpt", f"output={tmp_path}/back.pth", "format=published"]
    assert command(monkeypatch, capsys, convert, *arguments)[0] == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back["meta"]["CLASSES"] == tuple("abcde")
    assert back["state_dict"].keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back["state_dict"].items())
    status, _ = command(monkeypatch, capsys, convert, *arguments, "names=later")
    later = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert status == 0
    assert torch.equal(later["mask_head.conv_cls.weight"], weights["bbox_head.solo_cate.weight"])


def test_every_word_of_the_documentation_is_taken(monkeypatch, capsys, tmp_path):
    """As typed: Hydra has its own idea of a key with the name of a folder of conf."""
    case = next(case for case in map(GoldenCase, own_files("agg")) if case.window == 5)
    torch.save(published_model(case)[0], tmp_path / "source.pth")
    arguments = [f"source={tmp_path}/source.pth", f"output={tmp_path}/model.ckpt"]
    page = (Path(__file__).parents[1] / "docs" / "weights.md").read_text()
    words = re.findall(r"`((?:grids|base|trust_pickle)=[^`]+)`", page)
    assert len(words) == 3
    most = {}
    for word in [*words, "base=solo_r101_agg"]:
        grids = ["grids=[9,8,7,6,5]"] if word.startswith("base") else []  # those of this small model
        word = "grids=[9,8,7,6,5]" if word.startswith("grids") else word
        status, said = command(monkeypatch, capsys, convert, *arguments, word, *grids)
        assert status == 0, said
        most[word] = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["decoder"]
    assert most["base=solo_r101_agg_bigcls"]["max_detections"] == 300
    assert most["base=solo_r101_agg"]["max_detections"] == 100


def test_a_converted_checkpoint_is_evaluated(weights, tmp_path):
    weights = dict(weights)
    size = weights["bbox_head.solo_cate.weight"].shape[1:]
    weights["bbox_head.solo_cate.weight"] = torch.randn(80, *size)
    weights["bbox_head.solo_cate.bias"] = torch.zeros(80)
    torch.save({"state_dict": weights}, tmp_path / "source.pth")
    settings = [f"source={tmp_path}/source.pth", f"output={tmp_path}/model.ckpt"]
    convert.convert(convert.plain(composed(*settings, command="convert")))
    root = make_coco(tmp_path / "coco", images=1, val_images=2)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"] = [vars(category) for category in COCO_CATEGORIES]
    file.write_text(json.dumps(content))
    settings = [f"checkpoint={tmp_path}/model.ckpt", f"+data.root={root}", f"output={tmp_path}", "+data.num_workers=0"]
    settings += ["+data.short_side=64", "+data.long_side=96", "trainer.accelerator=cpu"]
    numbers = evaluate.evaluate(evaluate.plain(composed(*settings, command="evaluate")))["numbers"]
    assert 0 <= numbers["AP"] <= 1
    assert json.loads((tmp_path / "results.json").read_text())


def test_options_of_the_aggregation_are_chosen_by_hand(monkeypatch, capsys, tmp_path):
    case = GoldenCase(next(path for path in own_files("agg") if "k1" in path.stem or "5" in path.stem))
    torch.save(published_model(case)[0], tmp_path / "source.pth")
    arguments = [f"source={tmp_path}/source.pth", f"output={tmp_path}/model.ckpt", "aggregation.window=25"]
    status, said = command(monkeypatch, capsys, convert, *arguments)
    assert status == 2
    assert "aggregation: no network has" in said
    assert not (tmp_path / "model.ckpt").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"optimizer": {"state": {}}}, "holds the state of an optimizer and no weights"),
        ({"model": {"backbone.fpn_lateral2.weight": torch.zeros(1)}}, "as Detectron2's checkpoints do"),
        (torch.zeros(3), "holds a Tensor and no weights"),
        ([1, 2], "holds a list and no weights"),
        ({}, "no weights"),
        ({"state_dict": {"x": torch.zeros(1)}}, "is no published checkpoint .its first key is 'x'"),
        ({"state_dict": {"bbox_head.solo_cate.weight": 3}}, "'bbox_head.solo_cate.weight' is no tensor"),
    ],
)
def test_other_files_are_refused_by_what_they_are(content, said, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=said):
        load(tmp_path / "file.pth", "cpu")


def test_a_backbone_a_text_and_a_truncated_file_are_refused(weights, tmp_path):
    torch.save(resnet().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"a ResNet alone .model\.backbone\.weights=FILE"):
        load(tmp_path / "resnet.pth", "cpu")
    (tmp_path / "text.pth").write_text("weights\n")
    torch.save(weights, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("text", "half", "empty"):
        with pytest.raises(UserError, match=f"{name}.pth: not a checkpoint, or a damaged one"):
            load(tmp_path / f"{name}.pth", "cpu")
    with pytest.raises(UserError, match="there is no such file"):
        load(tmp_path / "nothing.pth", "cpu")


def test_a_place_below_a_file_is_refused(weights, monkeypatch, capsys, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "file.pth")
    words = [f"source={tmp_path}/file.pth", f"output={tmp_path}/file.pth/new.ckpt", "categories=[a,b,c,d,e]"]
    status, said = command(monkeypatch, capsys, convert, *words)
    assert status == 2
    assert f"output={tmp_path}/file.pth: cannot be written (File exists); name another folder" in said


def test_code_in_a_file_runs_only_when_trusted(weights, tmp_path):
    torch.save({"state_dict": weights, "history": Foreign()}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"Foreign.*trust_pickle=true"):
        load(tmp_path / "file.pth", "cpu")
    assert len(load(tmp_path / "file.pth", "cpu", trust_pickle=True).categories) == 5


@pytest.mark.parametrize("word", ["no", "yes", 1])
def test_a_word_that_is_neither_true_nor_false_trusts_nothing(word, weights, monkeypatch, capsys, tmp_path):
    """Hydra takes yes and no for text, and any text would be a yes."""
    torch.save({"state_dict": weights, "history": Foreign()}, tmp_path / "file.pth")
    said = f"trust_pickle={word}: must be true or false"
    with pytest.raises(UserError, match=said):
        load(tmp_path / "file.pth", "cpu", trust_pickle=word)
    arguments = [f"source={tmp_path}/file.pth", f"output={tmp_path}/model.ckpt", f"trust_pickle={word}"]
    status, printed = command(monkeypatch, capsys, convert, *arguments)
    assert status == 2
    assert said in printed


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("grids=40", "grids=40: must be a list of whole numbers, one a level: grids=[40,36,24,16,12]"),
        ("mask_grids=20", "mask_grids=20: must be a list of whole numbers, one a level: mask_grids=[20,18,12,8,6]"),
        ("categories=crack", "categories=crack: must be a list of names, one a label: categories=[cat,dog]"),
    ],
)
def test_what_must_be_a_list_is_asked_for_as_one(word, said, weights, monkeypatch, capsys, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "file.pth")
    arguments = [f"source={tmp_path}/file.pth", f"output={tmp_path}/model.ckpt", word]
    status, printed = command(monkeypatch, capsys, convert, *arguments)
    assert status == 2
    assert said in printed


def test_keys_are_checked(monkeypatch, capsys, tmp_path):
    (tmp_path / "x.pth").write_text("")
    for arguments, said in (
        (["format=onnx", "output=y"], "format=onnx: must be aggmask or published"),
        ([f"output={tmp_path}/x.pth"], "is the source"),
        ([f"output={tmp_path}"], "is a folder"),
    ):
        status, printed = command(monkeypatch, capsys, convert, f"source={tmp_path}/x.pth", *arguments)
        assert status == 2
        assert said in printed
    assert not Path("y").exists()
