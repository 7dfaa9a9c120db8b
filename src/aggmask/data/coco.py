"""Images and objects of a COCO-format data set, in the network frame, one by one and as batches.

Source: method.md sections 5 and 8. Deliberate differences from the published pipeline: images without annotations may
be kept, as negatives; objects are dropped when nothing of their mask is left after the last transform (not when their
box is small); pixels stay uint8 and are normalized on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from aggmask.data.copy_paste import CopyPaste, Framed, paste, pasting_frame
from aggmask.data.decode import Exif, decode_image
from aggmask.data.index import AnnotationIndex
from aggmask.data.raster import Segmentation, bitmap, rasterize
from aggmask.data.sampler import Sample
from aggmask.data.storage import Storage
from aggmask.data.transforms import ColorJitter, apply_frame
from aggmask.depth import Range
from aggmask.geometry.cropped import CroppedMasks
from aggmask.geometry.frame import CANVAS_MULTIPLE, Frame, Size, pad_to_multiple
from aggmask.geometry.grid import MASK_STRIDE
from aggmask.structures import ImageBatch, Instances, Objects

_SOURCE, _PASTE = 1, 2  # what randomness is for, beside the transforms of an image
ChooseFrame = Callable[[Size, np.random.Generator, "int | None"], Frame]


class CocoInstances(Dataset):
    """One-image batches, asked for by `Sample`. Randomness comes from (seed, epoch, image) alone.

    Args:
        index: the annotations.
        storage: the images.
        choose_frame: (size, rng, short side or None) -> frame, see `transforms`.
        training: False leaves the objects out.
        color_jitter: None leaves colors alone.
        copy_paste: None leaves each image its own objects only.
        skip_empty: leave out images without objects (those with crowds only, too).
        seed: of the transforms.
        channels: of the pixels: 1 (grey), 3 (RGB) or 4 (RGBA).
        value_range, exif: see `decode.decode_image`.

    Attributes:
        positions: (N,) int64, which images of the index these are.
    """

    def __init__(
        self,
        index: AnnotationIndex,
        storage: Storage,
        choose_frame: ChooseFrame,
        training: bool,
        color_jitter: ColorJitter | None = None,
        copy_paste: CopyPaste | None = None,
        skip_empty: bool = False,
        seed: int = 0,
        channels: int = 3,
        value_range: Range | None = None,
        exif: Exif = "auto",
    ) -> None:
        self.index, self.storage = index, storage
        self.choose_frame, self.color_jitter, self.copy_paste = choose_frame, color_jitter, copy_paste
        self.training, self.seed = training, seed
        self.channels, self.value_range, self.exif = channels, value_range, exif
        self.positions = np.arange(len(index))
        if skip_empty:
            self.positions = np.flatnonzero(index.object_counts())
        self._with_objects = np.flatnonzero(index.object_counts()) if copy_paste else self.positions[:0]

    @property
    def sizes(self) -> np.ndarray:
        """(N, 2) int32 (height, width) of the originals."""
        return self.index.sizes[self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, sample: Sample | int) -> ImageBatch:
        """A batch of one image on a canvas of its own size; `collate` joins them. A bare number means epoch 0."""
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[Sample | int]) -> list[ImageBatch]:
        """What the data loader calls: all files of a batch are asked for at once, for the sake of remote storage.

        Raises:
            UserError: a file is missing, damaged, or not of the size that the annotations say.
        """
        samples = [sample if isinstance(sample, Sample) else Sample(int(sample)) for sample in samples]
        sources = [self._source(sample) for sample in samples]
        wanted = {int(self.positions[sample.index]) for sample in samples} | set(sources) - {None}
        names = {i: self.index.file_name(i) for i in sorted(wanted)}
        files = dict(zip(names, self.storage.read_many(list(names.values())), strict=True))
        return [self._load(sample, source, files) for sample, source in zip(samples, sources, strict=True)]

    def _rng(self, sample: Sample, *purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, sample.epoch, int(self.positions[sample.index]), *purpose))

    def _source(self, sample: Sample) -> int | None:
        """The image whose objects are pasted into this one, if any; another one where there is another."""
        if self.copy_paste is None or not len(self._with_objects):
            return None
        drawn, place = self._rng(sample, _SOURCE).random(2)
        if drawn >= self.copy_paste.probability:
            return None
        place = int(place * len(self._with_objects))
        if self._with_objects[place] == self.positions[sample.index]:
            place = (place + 1) % len(self._with_objects)
        return int(self._with_objects[place])

    def _load(self, sample: Sample, source: int | None, files: Mapping[int, bytes]) -> ImageBatch:
        i = int(self.positions[sample.index])
        shown = self._framed(i, files[i], sample.short_side, self._rng(sample))
        if source is not None:
            rng = self._rng(sample, _PASTE)
            above = self._framed(source, files[source], sample.short_side, rng, onto=shown.frame)
            shown = paste(shown, above[self.copy_paste.choose(len(above.objects), rng)], MASK_STRIDE)
        objects = [shown.objects] if self.training else []
        return ImageBatch(shown.pixels[None], [shown.frame], [int(self.index.image_ids[i])], objects)

    def _framed(
        self, i: int, data: bytes, short_side: int | None, rng: np.random.Generator, onto: Frame | None = None
    ) -> Framed:
        """Image i in a frame that is drawn for it; `onto`: the frame that its objects are pasted into."""
        size = tuple(self.index.sizes[i].tolist())
        image = decode_image(data, self.index.file_name(i), size, self.channels, self.value_range, self.exif)
        frame = self.choose_frame(image.shape[:2], rng, short_side)
        if self.color_jitter is not None:
            image = self.color_jitter(image, rng)
        if onto is not None:
            frame = pasting_frame(frame, onto)
        objects, segmentations = self._objects(i, frame) if self.training else (None, [])
        return Framed(apply_frame(image, frame), frame, objects, segmentations)

    def _objects(self, i: int, frame: Frame) -> tuple[Objects, list[Segmentation]]:
        """Objects of image i that the frame shows, and their segmentations."""
        annotations = self.index.annotations(i)
        single = np.flatnonzero(~annotations.crowd)
        masks, centers, areas = rasterize([annotations.segmentations[k] for k in single], frame, MASK_STRIDE)
        boxes = annotations.boxes[single].copy()
        boxes[:, 2:] += boxes[:, :2]
        shown = areas > 0
        objects = Objects(
            labels=torch.from_numpy(annotations.labels[single][shown]),
            boxes=torch.from_numpy(frame.boxes_to_network(boxes)[shown]).float(),
            centers=torch.from_numpy(centers[shown]),
            areas=torch.from_numpy(areas[shown]).float(),
            masks={MASK_STRIDE: torch.from_numpy(masks[shown])},
        )
        return objects, [annotations.segmentations[k] for k in single[shown]]

    def original(self, image_id: int) -> tuple[np.ndarray, Instances]:
        """An image as it is, (H, W, 3) uint8, and its annotated objects (no crowds) in the original frame, cropped."""
        i = int(np.searchsorted(self.index.image_ids, image_id))
        name, size = self.index.file_name(i), tuple(self.index.sizes[i].tolist())
        image = decode_image(self.storage.read(name), name, size, value_range=self.value_range, exif=self.exif)
        annotations = self.index.annotations(i)
        single = np.flatnonzero(~annotations.crowd)
        masks = CroppedMasks.of(size, (bitmap(annotations.segmentations[k], size) for k in single))
        labels, scores = torch.from_numpy(annotations.labels[single]), torch.ones(len(single))
        return image, Instances(masks, scores, labels, self.index.categories)


def collate(images: Sequence[ImageBatch]) -> ImageBatch:
    """Join batches on the smallest common canvas whose sides are multiples of 32.

    Pixels come channels-last in memory, (B, channels, H, W) in shape; padding is 0.
    Where all images are skipped, B is 0.
    """
    skipped = [text for image in images for text in image.skipped]
    images = [image for image in images if len(image)]
    if not images:
        return ImageBatch(torch.zeros((0, 3, 1, 1), dtype=torch.uint8), [], [], skipped=skipped)
    frames = [frame for image in images for frame in image.frames]
    height, width = pad_to_multiple(
        tuple(map(max, zip(*(frame.padded for frame in frames), strict=True))), CANVAS_MULTIPLE
    )
    pixels = torch.zeros((len(frames), height, width, images[0].pixels.shape[1]), dtype=torch.uint8).permute(0, 3, 1, 2)
    start = 0
    for image in images:
        rows, columns = image.pixels.shape[-2:]
        pixels[start : start + len(image), :, :rows, :columns] = image.pixels
        start += len(image)
    return ImageBatch(
        pixels=pixels,
        frames=[frame.on_canvas((height, width)) for frame in frames],
        image_ids=[image_id for image in images for image_id in image.image_ids],
        objects=[_on_canvas(objects, (height, width)) for image in images for objects in image.objects],
        skipped=skipped,
    )


def _on_canvas(objects: Objects, padded: Size) -> Objects:
    masks = {}
    for stride, bitmaps in objects.masks.items():
        below, beside = padded[0] // stride - bitmaps.shape[1], padded[1] // stride - bitmaps.shape[2]
        masks[stride] = F.pad(bitmaps, (0, beside, 0, below))
    return Objects(objects.labels, objects.boxes, objects.centers, objects.areas, masks)
