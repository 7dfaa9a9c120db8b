"""Which images make which batch, on which rank: the whole epoch follows from (seed, epoch).

Nothing is drawn while an epoch runs, so any position in it can be taken up again exactly, and neither the number of
workers nor their pace changes what is seen. Groups: images of different groups never share a batch. The published
code groups by orientation in training (less padding); evaluation groups by canvas size, so that nothing is padded
more than it would be alone, and the result does not depend on the batch size (a grid spans the padded canvas).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Sample(NamedTuple):
    """One image as a sampler asks the data set for it."""

    index: int  # place in the data set
    epoch: int = 0
    short_side: int | None = None  # None: drawn for the image


class TrainingBatches(Sampler[list[Sample]]):
    """Shuffled batches of one rank. All ranks get equally many; all batches are full.

    The tail wraps around: the last batch of a group is filled up with the group's first images of that epoch, and the
    last round of batches with the first batches. So every image is seen in every epoch, a few of them twice; but a
    group of fewer images than a batch fills one by itself, as in the published code: a lone image is seen `batch_size`
    times. (Among images of another group it would need a canvas larger than any of the data set, and more memory.)

    Args:
        groups: (N,) int, group of each image.
        batch_size: images per batch and rank.
        seed: with the epoch, all that randomness comes from; the same on all ranks.
        rank: of `ranks` processes that share the epoch.
        short_sides: when given, one is drawn for each batch (the same on all ranks, for equal work), pixels.
        resume: (epoch, batches): that epoch starts after so many batches of this rank.
        repeat: every epoch is the first one again, to the last pixel.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        short_sides: Sequence[int] = (),
        resume: tuple[int, int] = (0, 0),
        repeat: bool = False,
    ) -> None:
        self.groups = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        self.batch_size = batch_size
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.short_sides = tuple(short_sides)
        self.resume, self.repeat = resume, repeat
        # Not 0: workers are sent for the first batches before the trainer sets an epoch.
        self.epoch = resume[0] if resume[1] < len(self) else resume[0] + 1

    @property
    def sampler(self) -> TrainingBatches:
        """Where Lightning looks for `set_epoch`: it asks the batch sampler's sampler, never the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch, also of one that is resumed: trainers count from its start."""
        batches = sum(-(-len(group) // self.batch_size) for group in self.groups)
        return -(-batches // self.ranks)

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch = self.epoch  # kept: the next epoch may be set while workers still fetch this one
        drawn_as = 0 if self.repeat else epoch
        rng = np.random.default_rng((self.seed, drawn_as))
        batches = np.concatenate([self._cut(rng.permutation(group)) for group in self.groups])
        order = np.resize(rng.permutation(len(batches)), len(self) * self.ranks)
        drawn = rng.choice(self.short_sides, len(self)).tolist() if self.short_sides else [None] * len(self)
        start = self.resume[1] if epoch == self.resume[0] else 0
        for number in range(start, len(self)):
            indices = batches[order[number * self.ranks + self.rank]]
            yield [Sample(index, drawn_as, drawn[number]) for index in indices.tolist()]

    def _cut(self, indices: np.ndarray) -> np.ndarray:
        """(m,) -> (batches, batch_size), wrapped around."""
        batches = -(-len(indices) // self.batch_size)
        return np.resize(indices, batches * self.batch_size).reshape(batches, self.batch_size)


class EvaluationBatches(Sampler[list[Sample]]):
    """Each image once over all ranks, in the order of the data set as far as groups allow.

    A rank that would get nothing, when there are fewer images than ranks, gets the first image: a rank without a
    batch would leave the others waiting. (The metric counts a repeated image once.)

    Args:
        groups: (N,) int, group of each image.
        batch_size: images per batch and rank; the last batch of a group may be smaller.
        rank: of `ranks` processes.
    """

    def __init__(self, groups: np.ndarray, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        by_group = np.argsort(groups, kind="stable")
        mine = by_group[rank::ranks] if rank < len(groups) else by_group[:1]
        self.batches: list[list[int]] = []
        for group in np.unique(groups[mine]):
            members = mine[groups[mine] == group]
            self.batches += [members[i : i + batch_size].tolist() for i in range(0, len(members), batch_size)]
        self.batches.sort()  # by first image: a part of the batches is then a fair part of the groups

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Sample]]:
        for indices in self.batches:
            yield [Sample(index) for index in indices]
