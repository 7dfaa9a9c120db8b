"""A trained model for pictures: paths, PIL images, arrays or tensors in, objects in the original frame out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aggmask.data.coco import collate
from aggmask.data.decode import decode_image, pixels_of
from aggmask.data.transforms import Resize, apply_frame
from aggmask.decoding.decode import Decoder, as_instances
from aggmask.depth import Range
from aggmask.errors import UserError
from aggmask.model.segmenter import Segmenter
from aggmask.structures import Category, ImageBatch, Instances, LevelOutput

Picture = str | Path | Image.Image | np.ndarray | Tensor


class Predictor:
    """What `aggmask.load` returns.

    Args:
        segmenter, decoder: the trained parts.
        resize: from an image's size to the network's (the evaluation's of the training data).
        categories: label -> category.
        device: where it runs; by default a GPU if there is one.
        value_range: of pictures deeper than 8 bits, see `decode.decode_image` (that of the training data).

    Raises:
        UserError: there is no such device.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        decoder: Decoder,
        resize: Resize,
        categories: Sequence[Category],
        device: str | torch.device | None = None,
        value_range: Range | None = None,
    ) -> None:
        self.device = as_device(device)
        self.segmenter = segmenter.to(self.device).eval()
        self.decoder, self.resize, self.categories = decoder, resize, list(categories)
        self.value_range = value_range

    def predict(self, images: Picture | Sequence[Picture], score_threshold: float = 0.05) -> list[Instances]:
        """Objects of each image, best first, in its original frame.

        Args:
            images: paths; PIL images; arrays (H, W), (H, W, 3 or 4); tensors (1, 3 or 4, H, W); integers as stored or
                floats in 0..1. An EXIF rotation of files and PIL images is applied, as viewers do (`data.exif` is of
                annotations, and here are none).
            score_threshold: objects below are left out.

        Raises:
            UserError: a file cannot be read, or something is not an image.
        """
        if isinstance(images, str | Path | Image.Image) or (
            isinstance(images, np.ndarray | Tensor) and images.ndim < 4
        ):
            images = [images]
        channels = self.segmenter.backbone.in_chans
        return [self.look(read_picture(image, channels, self.value_range), score_threshold) for image in images]

    def look(self, pixels: np.ndarray, score_threshold: float, crop: bool = False) -> Instances:
        """(H, W, channels) uint8, as `read_picture` gives it -> its objects, best first.

        Args:
            crop: see `as_instances`.
        """
        batch, outputs = self.outputs(pixels)
        found = self.decoder(outputs, batch.pixels.shape[-2:])[0]
        found, decoder = found[found.scores >= score_threshold], self.decoder
        chunk = decoder.pixels_at_once
        return as_instances(found, batch.frames[0], self.categories, decoder.mask_threshold, chunk, crop)

    @torch.no_grad()
    def outputs(self, pixels: np.ndarray) -> tuple[ImageBatch, list[LevelOutput]]:
        """(H, W, channels) uint8 -> the picture as the network sees it, and what its head says."""
        frame = self.resize(pixels.shape[:2], np.random.default_rng(0))
        batch = collate([ImageBatch(apply_frame(pixels, frame)[None], [frame], [0])]).to(self.device)
        return batch, self.segmenter(self.segmenter.normalize(batch))


def as_device(named: str | torch.device | None) -> torch.device:
    """What a user named; None: a GPU if there is one.

    Raises:
        UserError: there is no such device here.
    """
    if named is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(named)
        torch.empty(1, device=device)  # a name alone does not tell whether there is one
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(f"device={named}: cannot be used here ({why}); say device=cpu, or leave it out") from error
    return device


def read_picture(image: Picture, channels: int = 3, value_range: Range | None = None) -> np.ndarray:
    """Any picture -> (H, W, channels) uint8: RGB, grey (1) or RGBA (4). `value_range`: see `decode.decode_image`.

    Raises:
        UserError: a file cannot be read, or the value is not an image.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        try:
            return decode_image(path.read_bytes(), str(path), channels=channels, value_range=value_range)
        except OSError as error:
            raise UserError(f"The image {path} cannot be read: {error.strerror}.") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu().movedim(0, -1).numpy() if image.ndim == 3 else image.detach().cpu().numpy()
    return pixels_of(image, channels, value_range)
