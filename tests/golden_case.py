"""Golden files: numbers of the published implementations on small inputs, and the same head built from each file.

Their form: `in.*` inputs, `w.*` weights under the published names, `out.*` and `grad*` what the published code
computed, `meta` the published configuration. AGGMASK_GOLDEN names another folder of such files.
"""

import json
import os
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aggmask.checkpoints.published import to_ours
from aggmask.decoding.decode import Decoder
from aggmask.geometry.frame import Frame
from aggmask.geometry.grid import make_levels
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.aggregation.keep import KeepCell
from aggmask.model.aggregation.weights import BranchWeights
from aggmask.model.category import CategoryBranch
from aggmask.model.head import Head
from aggmask.model.representation.constant import ConstantBank
from aggmask.model.representation.predicted import PredictedBank
from aggmask.structures import Objects
from aggmask.supervision.assign import Assigner

OWN = Path(__file__).parent / "golden"
_STRIDES = (8, 8, 16, 32, 32)
KINDS = ("solo", "agg", "solov2", "aggstar")


def golden_folders() -> list[Path]:
    """The one that AGGMASK_GOLDEN names; else that of the checkout and the one that may lie beside it."""
    if named := os.environ.get("AGGMASK_GOLDEN"):
        return [Path(named)]
    return [OWN, OWN.parents[2] / "shared" / "golden"]


def golden_files(*kinds: str) -> list[Path]:
    """Files of the given kinds, by name, the same one once; a file without `meta` is of the kind "fpn"."""
    files = [path for folder in golden_folders() for path in sorted(folder.glob("*.npz"))]
    if not files:
        raise FileNotFoundError("no golden files; AGGMASK_GOLDEN names a folder without any .npz")
    distinct = {(path.name, path.read_bytes()): path for path in reversed(files)}
    return [distinct[key] for key in sorted(distinct) if _kind(distinct[key]) in kinds]


def own_files(*kinds: str) -> list[Path]:
    """Those of the checkout alone, by name: for tests of other things, which know the sizes of these."""
    return [path for path in sorted(OWN.glob("*.npz")) if _kind(path) in kinds]


def _kind(path: Path) -> str:
    with np.load(path) as data:
        return json.loads(data["meta"].tobytes())["kind"] if "meta" in data.files else "fpn"


class GoldenCase:
    def __init__(self, path: Path) -> None:
        self.own = path.parent == OWN
        self.data = np.load(path)
        self.meta = json.loads(self.data["meta"].tobytes())
        self.cfg = self.meta["cfg"]
        self.canvas = tuple(self.meta["image"])
        self.batch = len(self.meta["metas"])

    def tensor(self, key: str) -> torch.Tensor:
        value = self.data[key]
        return torch.from_numpy(value.astype(np.float32) if value.dtype == np.float16 else value)

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key[len(prefix) :]: self.tensor(key) for key in self.data.files if key.startswith(prefix)}

    def bits(self, key: str, width: int) -> torch.Tensor:
        return torch.from_numpy(np.unpackbits(self.data[key], axis=-1)[..., :width])

    @cached_property
    def levels(self):
        cfg = self.cfg
        grids = cfg.get("cls_grid_number", cfg["num_grids"])
        mask_grids = cfg.get("mask_grid_number", cfg["num_grids"])
        rows = zip(_STRIDES, grids, mask_grids, cfg["scale_ranges"], strict=True)
        return make_levels(
            [
                {"stride": stride, "grid": s, "mask_grid": t, "min_size": low, "max_size": high}
                for stride, s, t, (low, high) in rows
            ]
        )

    @cached_property
    def window(self) -> int:
        """The window that the published options come down to."""
        asked = self.cfg.get("mask_interp_neighbor", 4)
        equal = any(level.grid == level.mask_grid for level in self.levels)
        return 5 if asked == 4 and (equal or self.cfg.get("interpolation_mode", 4) == 5) else asked

    @cached_property
    def network(self) -> dict[str, int]:
        """Of the aggregation, as this package names its options."""
        return {
            "window": self.window,
            "layers": self.cfg.get("conv_layer_for_comb", 3),
            "kernel": self.cfg.get("conv_kernel_for_comb", 3),
            "channels": self.cfg.get("conv_intermediate_channel_number_for_comb", 4),
        }

    @cached_property
    def assigner(self) -> Assigner:
        """As published: SOLOv2 trains a shared cell's mask towards every object that claims it, a small one too."""
        v2 = self.meta["kind"] == "solov2"
        return Assigner(min_area=1 if v2 else 10, shared_cells="all" if v2 else "last")

    @cached_property
    def decoder(self) -> Decoder:
        """As published: AggMask's heads have a category threshold of their own."""
        test = self.meta["test"]
        return Decoder(
            score_threshold=0.1 if self.meta["kind"].startswith("agg") else test["score_thr"],
            mask_threshold=test["mask_thr"],
            nms_pre=test["nms_pre"],
            kernel=test["kernel"],
            sigma=test["sigma"],
            keep_threshold=test["update_thr"],
            max_detections=test["max_per_img"],
        )

    @cached_property
    def head(self) -> Head:
        cfg, width, depth = self.cfg, self.cfg["seg_feat_channels"], self.cfg["stacked_convs"]
        head = Head(
            self.levels,
            cfg["in_channels"],
            cfg["num_classes"] - 1,
            category=partial(CategoryBranch, width=width, depth=depth),
            bank=self._bank(width, depth),
            aggregation=self._aggregation(width, depth),
        )
        head.load_state_dict(self.named("w."))
        return head

    def _bank(self, width: int, depth: int):
        kind, channels = self.meta["kind"], self.cfg.get("ins_out_channels", self.cfg["in_channels"])
        if kind == "solov2":
            features = self.cfg["mask_feature_channels"]
            return partial(PredictedBank, width=width, depth=depth, channels=channels, feature_width=features)
        if kind == "aggstar":
            plain = {"kernel": 1, "feature_width": width, "feature_norm": False}
            return partial(PredictedBank, width=width, depth=depth, channels=width, **plain)
        return partial(ConstantBank, width=width, depth=depth)

    def _aggregation(self, width: int, depth: int):
        cfg, kind = self.cfg, self.meta["kind"]
        if not kind.startswith("agg"):
            return KeepCell
        weights = {"weights": partial(BranchWeights, width=width, depth=depth)} if kind == "aggstar" else {}
        return partial(
            DynamicAggregation,
            **self.network,
            context_channels=cfg.get("context_feature_channel", 16),
            context_layers=cfg.get("context_agg_layer", 2),
            **weights,
        )

    def named(self, prefix: str) -> dict[str, torch.Tensor]:
        """Values that the file gives for weights of the head, under this package's names."""
        return {name.removeprefix("head."): value for name, value in to_ours(self.published(prefix)).items()}

    def published(self, prefix: str) -> dict[str, torch.Tensor]:
        """The same under published names; SOLO's and AggMask's files give those of the head without its prefix."""
        values = self.tensors(prefix)
        plain = not any(name.startswith("bbox_head.") for name in values)
        return {f"bbox_head.{name}" if plain else name: value for name, value in values.items()}

    def pyramid(self) -> list[torch.Tensor]:
        return [self.tensor(f"in.feat{i}").clone().requires_grad_() for i in range(5)]

    @cached_property
    def objects(self) -> list[Objects]:
        """Objects as the published code sees them: masks resized from full-resolution bitmaps."""
        return [
            published_objects(
                self.bits(f"in.gt_masks{b}", self.canvas[1]),
                self.tensor(f"in.gt_boxes{b}"),
                self.tensor(f"in.gt_labels{b}") - 1,
            )
            for b in range(self.batch)
        ]

    def frame(self, image: int) -> Frame:
        meta = self.meta["metas"][image]
        return Frame.resized(tuple(meta["ori_shape"][:2]), tuple(meta["img_shape"][:2])).on_canvas(self.canvas)


def published_objects(bitmaps: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> Objects:
    """(n, H, W) full-resolution bitmaps -> objects with bilinear masks at strides 4, 8 and 16, rounded half up."""
    full = bitmaps.double()
    areas = full.sum((1, 2))
    rows, columns = (torch.arange(s, dtype=torch.float64) for s in full.shape[-2:])
    centers = torch.stack([(full.sum(1) * columns).sum(1), (full.sum(2) * rows).sum(1)], 1) / areas[:, None].clamp(
        min=1
    )
    resized = partial(F.interpolate, mode="bilinear") if len(full) else _resized_nothing
    masks = {s: (resized(full[None], scale_factor=1 / s)[0] >= 0.5).to(torch.uint8) for s in (4, 8, 16)}
    return Objects(labels=labels, boxes=boxes, centers=centers, areas=areas, masks=masks)


def _resized_nothing(masks: torch.Tensor, scale_factor: float) -> torch.Tensor:
    """(1, 0, H, W) to its scale, which `interpolate` refuses."""
    height, width = (int(side * scale_factor) for side in masks.shape[-2:])
    return masks.new_zeros(1, 0, height, width)
