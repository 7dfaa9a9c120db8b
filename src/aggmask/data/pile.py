"""How the objects of a made picture come to lie on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

COMPANION = 0.5  # share of a crowd's objects that are followed by one of their kind
_TRIES = 6  # places before an object is given up


class Pile:
    """Objects laid on each other one at a time; one that would spoil the picture is refused.

    Args:
        size: (height, width) of the picture in pixels.
        min_visible: share of each object's area inside the picture that must stay visible.
        min_distance: between visible centers of mass, pixels: a grid cell holds only one object.
        min_area: pixels of each object that must stay visible.
    """

    def __init__(self, size: tuple[int, int], min_visible: float, min_distance: float, min_area: int = 1) -> None:
        self.min_visible, self.min_distance, self.min_area = min_visible, min_distance, min_area
        self._depths: list[np.ndarray] = []
        self._seen = np.zeros((0, *size), bool)
        self._whole = np.zeros(0, np.int64)  # pixels of each object if nothing lay above it

    @property
    def depths(self) -> np.ndarray:
        """(n, 2H+1, 2W+1) float32 of whole objects, back to front."""
        height, width = self._seen.shape[1:]
        return np.stack(self._depths) if self._depths else np.zeros((0, 2 * height + 1, 2 * width + 1), np.float32)

    def lay(self, depth: np.ndarray) -> bool:
        """Put an object on top, if enough of each object stays visible and all centers are far enough apart.

        Args:
            depth: (2H+1, 2W+1) of the whole object.
        """
        own = depth[1::2, 1::2]
        seen = np.concatenate([self._seen & (own < 0), (own > 0)[None]])
        areas = seen.sum((1, 2))
        whole = np.append(self._whole, areas[-1])
        if (areas < self.min_visible * whole).any() or (areas < self.min_area).any():
            return False
        rows = seen.sum(2) @ np.arange(seen.shape[1]) / areas
        columns = seen.sum(1) @ np.arange(seen.shape[2]) / areas
        gaps = np.hypot(rows - rows[:, None], columns - columns[:, None])
        if (gaps[np.triu_indices(len(gaps), 1)] < self.min_distance).any():
            return False
        self._depths.append(depth)
        self._seen, self._whole = seen, whole
        return True


def crowd(
    rng: np.random.Generator,
    size: tuple[int, int],
    sides: Iterable[float],
    kinds: int,
    near: tuple[float, float],
    lay: Callable[[int, tuple[float, float], float], bool],
) -> list[int]:
    """Lay objects over a picture, many of them with companions: others of their kind, on or beside them.

    Args:
        size: (height, width) of the picture in pixels.
        sides: sizes of the objects in pixels. A companion has up to a fifth less than what it joins.
        kinds: so many categories.
        near: least and largest distance of a companion's center, in sizes of what it joins.
        lay: (label, (x, y), side) -> whether the object found room there.

    Returns:
        labels of what was laid, back to front.
    """
    labels, joined = [], None
    for side in np.sort(list(sides))[::-1]:  # large ones first: small ones would vanish below them
        if joined:
            label, (x, y), beside = joined
            side, away, gap = beside * rng.uniform(0.8, 1.0), rng.uniform(0, 2 * np.pi), beside * rng.uniform(*near)
            places = [(x + gap * np.cos(away + k), y + gap * np.sin(away + k)) for k in range(_TRIES)]
        else:
            label = int(rng.integers(kinds))
            places = [tuple(rng.uniform(0.35 * side, e - 0.35 * side) for e in size[::-1]) for _ in range(_TRIES)]
        joined = None
        for center in places:
            if lay(label, center, side):
                labels.append(label)
                joined = (label, center, side) if rng.random() < COMPANION else None
                break
    return labels
