"""Checkpoints of earlier versions give the detections that they gave then; what follows from a recipe."""

import lzma
from pathlib import Path

import numpy as np
import torch

from aggmask.assembly.build import counted_detections, load, load_module
from tests.small import close

STORED = Path(__file__).parents[1] / "checkpoints" / "data"


def test_a_checkpoint_of_format_1_finds_what_it_found(tmp_path):
    """Written before kernels could be predicted: its recipe lacks aggregation.weights, .neighbors and more.

    Weights are rounded to few bits, so that the file stays small; without the states of the optimizer.
    """
    file = tmp_path / "format1.ckpt"
    file.write_bytes(lzma.decompress((STORED / "format1.ckpt.xz").read_bytes()))
    recipe = load_module(file).hparams
    assert recipe["format"] == 1
    assert not {"weights", "neighbors"} & recipe["model"]["aggregation"].keys()
    y, x = np.mgrid[0:64, 0:96]
    picture = np.stack([y * 4 % 256, x * 3 % 256, (y // 8 + x // 8) % 2 * 255], -1).astype(np.uint8)
    found = load(file, "cpu").predict(picture)[0]
    expected = np.load(STORED / "format1.npz")
    assert len(found) == len(expected["scores"]) == 100
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-4)
    first = slice(None, 4)  # apart in score, so in this order on every machine
    assert found.labels[first].tolist() == expected["labels"][first].tolist()
    np.testing.assert_allclose(found.masks.sum((1, 2))[first], expected["areas"][first], atol=8)


def test_and_has_the_logits_that_it_had(tmp_path):
    file = tmp_path / "format1.ckpt"
    file.write_bytes(lzma.decompress((STORED / "format1.ckpt.xz").read_bytes()))
    from aggmask.data.coco import collate
    from aggmask.data.transforms import Resize, apply_frame
    from aggmask.structures import ImageBatch

    y, x = np.mgrid[0:64, 0:96]
    picture = np.stack([y * 4 % 256, x * 3 % 256, (y // 8 + x // 8) % 2 * 255], -1).astype(np.uint8)
    frame = Resize((64,), 96)(picture.shape[:2], np.random.default_rng(0))
    batch = collate([ImageBatch(apply_frame(picture, frame)[None], [frame], [0])])
    segmenter = load_module(file).segmenter
    expected = np.load(STORED / "format1.npz")
    with torch.no_grad():
        for number, output in enumerate(segmenter(segmenter.normalize(batch))):
            close(output.logits[0], torch.from_numpy(expected[f"logits{number}"]), 1e-4)


def test_detections_that_count_follow_the_decoder_where_the_metric_says_nothing():
    recipes = [{"metric": {"max_detections": said}, "decoder": {"max_detections": 300}} for said in (None, 100, 0)]
    assert [counted_detections(recipe) for recipe in recipes] == [300, 100, 0]
