from collections import Counter

import numpy as np
import pytest
from torch.utils.data import DataLoader

from aggmask.data.sampler import EvaluationBatches, Sample, TrainingBatches

GROUPS = np.array([0] * 11 + [1] * 6)


def indices(batches):
    return [[sample.index for sample in batch] for batch in batches]


def test_every_image_in_every_epoch_in_full_batches():
    sampler = TrainingBatches(GROUPS, batch_size=4)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 3 + 2
        assert {len(batch) for batch in batches} == {4}
        assert {sample.epoch for batch in batches for sample in batch} == {epoch}
        counts = Counter(i for batch in indices(batches) for i in batch)
        assert set(counts) == set(range(17))
        assert set(counts.values()) <= {1, 2}


def test_groups_are_never_mixed():
    for batch in indices(TrainingBatches(GROUPS, 4)):
        assert len(set(GROUPS[batch])) == 1


def test_a_lone_image_fills_a_batch():
    sampler = TrainingBatches(np.array([0] * 11 + [1]), batch_size=4)
    counts = Counter(i for batch in indices(sampler) for i in batch)
    assert len(sampler) == 4
    assert counts.pop(11) == 4
    assert set(counts.values()) <= {1, 2}


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        sampler = TrainingBatches(GROUPS, 4, seed=seed)
        sampler.set_epoch(epoch)
        return indices(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_an_epoch_that_is_repeated_is_the_first_one_to_the_last_sample():
    first, again = TrainingBatches(GROUPS, 4, seed=3), TrainingBatches(GROUPS, 4, seed=3, repeat=True)
    for epoch in (0, 5):
        again.set_epoch(epoch)
        assert list(again) == list(first)
    again = TrainingBatches(GROUPS, 4, seed=3, repeat=True, resume=(5, 2))
    assert list(again) == list(first)[2:]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_the_epoch_equally(ranks):
    samplers = [TrainingBatches(GROUPS, 4, rank=rank, ranks=ranks) for rank in range(ranks)]
    shares = [indices(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])} == {-(-5 // ranks)}
    assert {i for share in shares for batch in share for i in batch} == set(range(17))
    if ranks == 1:
        return
    repeated = sum(Counter(tuple(batch) for share in shares for batch in share).values()) - 5
    assert repeated == -5 % ranks  # only the tail wraps around


@pytest.mark.parametrize("done", [0, 2, 4, 5])
def test_resume_is_the_rest_of_the_epoch_and_then_whole_ones(done):
    sampler = TrainingBatches(GROUPS, 4, short_sides=(64, 96))
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(4)
    following = list(sampler)
    resumed = TrainingBatches(GROUPS, 4, short_sides=(64, 96), resume=(3, done))
    resumed.set_epoch(3)
    assert list(resumed) == whole[done:]
    assert len(resumed) == 5
    unset = TrainingBatches(GROUPS, 4, short_sides=(64, 96), resume=(3, done))
    assert list(unset) == (whole[done:] if done < 5 else following)
    resumed.set_epoch(4)
    assert list(resumed) == following


def test_scale_per_batch_is_one_for_the_batch_and_for_all_ranks():
    samplers = [TrainingBatches(GROUPS, 2, rank=rank, ranks=2, short_sides=(64, 96)) for rank in (0, 1)]
    drawn = [[{sample.short_side for sample in batch} for batch in sampler] for sampler in samplers]
    assert drawn[0] == drawn[1]
    assert all(len(sides) == 1 for sides in drawn[0])
    assert set.union(*drawn[0]) == {64, 96}
    assert {sample.short_side for batch in TrainingBatches(GROUPS, 2) for sample in batch} == {None}


def test_one_image():
    assert list(TrainingBatches(np.zeros(1), 2)) == [[Sample(0), Sample(0)]]
    assert list(EvaluationBatches(np.zeros(1), 2)) == [[Sample(0)]]


def test_evaluation_sees_each_image_once_by_groups_near_the_order_of_the_data():
    groups = np.array([5, 2, 5, 5, 2, 9, 5])
    batches = indices(EvaluationBatches(groups, 2))
    assert batches == [[0, 2], [1, 4], [3, 6], [5]]


@pytest.mark.parametrize(("images", "ranks"), [(17, 2), (17, 4), (3, 2), (1, 3), (2, 4)])
def test_evaluation_on_ranks(images, ranks):
    shares = [EvaluationBatches(GROUPS[:images], 4, rank, ranks) for rank in range(ranks)]
    assert all(len(share) == len(list(share)) >= 1 for share in shares)
    seen = [i for share in shares for batch in indices(share) for i in batch]
    assert set(seen) == set(range(images))
    assert len(seen) == max(images, ranks)


def test_lightning_finds_set_epoch():
    from lightning_fabric.utilities.data import _set_sampler_epoch

    sampler = TrainingBatches(GROUPS, 4)
    _set_sampler_epoch(DataLoader(range(17), batch_sampler=sampler), 7)
    assert sampler.epoch == 7
