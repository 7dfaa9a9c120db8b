"""A forecast of the memory that a training step and an inference need, before either is run.

Training: weights, gradients, the optimizer's state, and every tensor that the backward pass will read. Inference:
weights and the largest sum of maps that live at once. Both are watched on tensors without content. What the asked cells
add is a closed formula. Not in it: the workspace of convolution kernels, the allocator's gaps, and the program itself
(about 0.6 GB on a CPU, and CUDA's context on a GPU). Measured on a CPU, the forecast of a training step was 0.90
(AggMask R50, 480 x 640) and 0.97 (AggMask* R50, 320 x 480) of what the process grew by.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aggmask.accounting.flops import map_sizes
from aggmask.decoding.decode import Decoder, cell_bytes
from aggmask.model.head import Head
from aggmask.model.segmenter import Segmenter
from aggmask.supervision.losses import pixels_at_once

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Forecast:
    """Bytes."""

    weights: int
    training_state: int  # gradients and the optimizer's state
    saved: int  # whole maps that the backward pass reads, for the batch
    saved_cells: int  # the same for its asked cells
    live: int  # whole maps that live at once in inference, for the batch
    live_cells: int  # the same for the candidates of one image and the chunk in work

    @property
    def training(self) -> int:
        return self.weights + self.training_state + self.saved + self.saved_cells

    @property
    def inference(self) -> int:
        return self.weights + self.live + self.live_cells


def forecast(
    segmenter: Segmenter,
    size: tuple[int, int],
    batch: int,
    training_cells: Sequence[float],
    candidates: Sequence[float],
    state_tensors: int,
    decoder: Decoder,
    device: torch.device,
) -> Forecast:
    """Memory for a segmenter on the meta device.

    Args:
        size: (H, W) of the network input, divisible by 32.
        batch: images.
        training_cells: positive cells of one image on each level.
        candidates: candidate cells of one image on each level.
        state_tensors: numbers that the optimizer keeps for each weight: 0 for SGD, 1 with momentum, 2 for Adam.
        decoder: whose budget says how many cells are aggregated at once.
        device: that will train, see `kept_for_backward`.
    """
    weights = sum(p.numel() for p in segmenter.parameters()) * _FLOAT
    trained = sum(p.numel() for p in segmenter.parameters() if p.requires_grad) * _FLOAT
    image = torch.empty(batch, segmenter.backbone.in_chans, *size, device="meta")
    masks = map_sizes(segmenter.head, size).masks
    saved, saved_cells = kept_for_backward(segmenter, size, batch, training_cells, device)
    return Forecast(
        weights=weights,
        training_state=trained * (1 + state_tensors),
        saved=saved,
        saved_cells=saved_cells,
        live=_live(segmenter, image) + _bytes(image),
        live_cells=_decoding(segmenter.head, size, masks, candidates, decoder),
    )


def kept_for_backward(
    segmenter: Segmenter, size: tuple[int, int], batch: int, cells: Sequence[float], device: torch.device
) -> tuple[int, int]:
    """Bytes that the backward pass reads, weights apart: whole maps of a batch, and what its asked cells add.

    Args:
        segmenter: on the meta device.
        size: (H, W) of the network input, divisible by 32.
        batch: images.
        cells: positive cells of one image on each level.
        device: that will train; a GPU works on more cells at once than a processor.
    """
    image = torch.empty(batch, segmenter.backbone.in_chans, *size, device="meta")
    masks = map_sizes(segmenter.head, size).masks
    asked = batch * sum(n * pixels for n, pixels in zip(cells, masks, strict=True))
    return _saved(segmenter, image) + _bytes(image), _saved_for_cells(segmenter.head, asked, device)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy without content, in the same modes."""
    bare = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    return deepcopy(module, bare | {id(b): torch.empty_like(b, device="meta") for b in module.buffers()})


def _saved_for_cells(head: Head, pixels: float, device: torch.device) -> int:
    """Bytes for so many pixels of asked masks: targets (at most), and the values and gradients of the few in work."""
    return round(pixels + 2 * min(pixels, pixels_at_once(device)) * saved_per_pixel(head))


def saved_per_pixel(head: Head) -> int:
    """Bytes that the backward pass reads for one pixel of one asked cell's mask."""
    compared = 2  # Dice: the probability and the target
    net = head.aggregation
    if not hasattr(net, "weights"):
        return compared * _FLOAT
    hidden = sum(out for out, *_ in net.shapes[:-1])  # what each later layer reads, kept once
    return (net.window + hidden + compared) * _FLOAT


def _decoding(
    head: Head, size: tuple[int, int], masks: Sequence[int], candidates: Sequence[float], decoder: Decoder
) -> int:
    """Masks that are kept for Matrix NMS, and the chunk of cells that takes most while it is aggregated."""
    pixels, maps = map_sizes(head, size).pyramid, head.aggregation.maps_per_cell
    kept = 2 * min(sum(candidates), 2 * decoder.nms_pre) * pixels * _FLOAT
    working = (
        min(decoder.cells_at_once(maps, own, pixels), n) * cell_bytes(maps, own, pixels)
        for n, own in zip(candidates, masks, strict=True)
    )
    return round(kept + max(working))


def _saved(segmenter: nn.Module, image: Tensor) -> int:
    """Bytes of all tensors but the weights that a backward pass over the dense maps would read."""
    known = {p.untyped_storage()._cdata for p in segmenter.state_dict(keep_vars=True).values()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in known:
            found[key] = tensor  # held, so that no other tensor gets its key
        return tensor

    segmenter.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = segmenter(image)  # held too: its graph is what saves
    del outputs
    return sum(t.untyped_storage().nbytes() for t in found.values())


def _live(segmenter: nn.Module, image: Tensor) -> int:
    with LiveBytes() as watched, torch.no_grad():
        segmenter.eval()(image)
    return watched.peak


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside the context hold at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor, given)
        return result

    def _watch(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            if key in given:
                return  # a view of something that was there before
            self._users[key] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self._users[key] += 1
        finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
