"""The whole network. Read this file first: image -> backbone -> feature pyramid -> head -> one output a level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from aggmask.errors import UserError
from aggmask.geometry.frame import content_mask
from aggmask.geometry.grid import make_levels
from aggmask.model.backbone import TimmBackbone
from aggmask.model.execution import compile_dense
from aggmask.model.fpn import FPN
from aggmask.model.head import Head
from aggmask.structures import ImageBatch, LevelOutput


class Segmenter(nn.Module):
    """Pictures in, category logits and mask fields out.

    Args:
        num_classes: without background; the data set says.
        backbone: gives C2..C5.
        levels: rows of the table in method.md section 1 (see `geometry.grid.make_levels`).
        interpolation: {"stride": s}: mask grids of ceil(mask_grid / s) cells; a level's mask_grid is S by default.
        fpn_channels: width of the pyramid.
        compile: backend of torch.compile for all that computes whole maps ("inductor"); None: nothing is compiled.
        channels_last: keep weights channels-last in memory, as pictures come from `data.coco.collate`.
        category, bank, aggregation: makers of the head's parts.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: TimmBackbone,
        levels: Sequence[Mapping],
        interpolation: Mapping,
        category: Callable[..., nn.Module],
        bank: Callable[..., nn.Module],
        aggregation: Callable[..., nn.Module],
        fpn_channels: int = 256,
        compile: str | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        grid_levels = make_levels(levels, interpolation["stride"])
        self.head = Head(grid_levels, fpn_channels, num_classes, category, bank, aggregation)
        self.fpn = FPN(backbone.channels, fpn_channels, self.head.pyramid_maps)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.to(memory_format=self.memory_format)
        if compile is not None:
            compile_dense(self, compile)

    def forward(self, images: Tensor) -> list[LevelOutput]:
        """(B, in_chans, H, W) normalized, H and W divisible by 32 -> the head's outputs, one a level."""
        return self.head(self.fpn(self.backbone(images.to(memory_format=self.memory_format))))

    def normalize(self, batch: ImageBatch) -> Tensor:
        """Pixels 0..255 -> (B, in_chans, H, W) normalized; the canvas around each image is 0, as in the published code.

        Raises:
            UserError: pictures with another number of channels.
        """
        if batch.pixels.shape[1] != self.backbone.in_chans:
            raise UserError(
                f"pictures of {batch.pixels.shape[1]} channels (data.channels), but the network takes "
                f"model.backbone.in_chans={self.backbone.in_chans}; leave data.channels to follow it"
            )
        pixels = (batch.pixels - self.backbone.mean) / self.backbone.std
        return pixels * content_mask(batch.frames, pixels.device)
