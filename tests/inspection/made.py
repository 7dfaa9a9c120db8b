"""Predictors whose head is real and whose pictures are not looked at: every candidate comes from random features."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from aggmask.assembly.build import build_module, make_recipe
from aggmask.assembly.config import plain
from aggmask.data.transforms import Resize
from aggmask.decoding.decode import Decoder
from aggmask.predictor import Predictor
from aggmask.structures import Category
from tests.runs import SMALL, composed
from tests.small import CANVAS, make_head, make_levels_of, make_pyramid

CATEGORIES = [Category(3, "disc"), Category(7, "<b>pair</b>"), Category(18, "block")]
ORIGINAL = (48, 60)  # resized to 64 x 80, on a canvas of 64 x 96: there is padding on the right
INTERPOLATED = make_levels_of(mask_grids=(4, 3, 3, 2, 2))
VARIANTS = {
    "solo": {},
    "solov2": {"base": "predicted"},
    "interpolated solo": {"levels": INTERPOLATED},
    "window 1": {"window": 1},
    "window 4": {"window": 4, "levels": INTERPOLATED},
    "window 5": {"window": 5, "residual": True, "init": "zero"},
    "window 9": {"window": 9, "base": "star"},
    "window 25": {"window": 25},
    "deformable": {"window": 5, "deformable": True},
    "no context": {"window": 5, "context_channels": 0},
}


class _Segmenter(nn.Module):
    """A head over features that are always the same."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.head, self.backbone = make_head(**options), nn.Module()
        self.backbone.in_chans = 3

    def normalize(self, batch):
        return batch.pixels

    def forward(self, images):
        assert images.shape[-2:] == CANVAS
        return self.head(make_pyramid(1))


def predictor(score_threshold: float = 0.3, **options) -> Predictor:
    """One of VARIANTS, whose candidates are the cells above a score."""
    decoder = Decoder(score_threshold=score_threshold)
    return Predictor(_Segmenter(**options), decoder, Resize((CANVAS[0],), CANVAS[1]), CATEGORIES, "cpu")


def picture() -> np.ndarray:
    """(48, 60, 3) uint8 noise."""
    return np.random.default_rng(0).integers(0, 255, (*ORIGINAL, 3), dtype=np.uint8)


def checkpoint(path: Path, *overrides: str, bias: float = 4.5) -> Path:
    """An untrained model as a checkpoint; the classifier's bias is raised, so that cells become candidates."""
    cfg = plain(composed("experiment=demo", "name=x", "output_dir=x", *SMALL, *overrides))
    torch.manual_seed(0)
    module = build_module(recipe := make_recipe(cfg, CATEGORIES), train=False)
    weights = module.state_dict()
    weights["segmenter.head.category.classifier.bias"] += bias
    torch.save({"hyper_parameters": recipe, "state_dict": weights}, path)
    return path
