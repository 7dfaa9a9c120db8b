"""A data set that goes on without images that cannot be read, and says each time which and why.

The words travel in the batch: workers are processes of their own, and what they log or count is lost with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aggmask.data.coco import CocoInstances
from aggmask.data.sampler import Sample
from aggmask.depth import UnknownScale
from aggmask.errors import UserError
from aggmask.structures import ImageBatch

_MOST_TRIES = 100


class SkippingInstances(CocoInstances):
    """As `CocoInstances`; in training the next image stands in for a bad one, in evaluation a bad one is left out."""

    def __getitems__(self, samples: Sequence[Sample | int]) -> list[ImageBatch]:
        """One batch a sample, of one image or, in evaluation, of none; `skipped` says what was bad.

        Raises:
            UserError: a hundred images in a row are bad.
        """
        try:
            return super().__getitems__(samples)
        except UserError:  # it names one image; which of the others are bad shows one by one
            samples = [sample if isinstance(sample, Sample) else Sample(int(sample)) for sample in samples]
            return [self._next_good(sample) for sample in samples]

    def _next_good(self, sample: Sample) -> ImageBatch:
        skipped: list[str] = []
        for step in range(min(len(self), _MOST_TRIES) if self.training else 1):
            try:
                (image,) = super().__getitems__([sample._replace(index=(sample.index + step) % len(self))])
            except UnknownScale:  # of a whole data set, and mended with a word
                raise
            except UserError as error:
                skipped.append(str(error))
            else:
                image.skipped = skipped
                return image
        if self.training:
            raise UserError(f"{len(skipped)} images in a row cannot be used. The first one: {skipped[0]}")
        return ImageBatch(torch.zeros((0, 3, 1, 1), dtype=torch.uint8), [], [], skipped=skipped)
