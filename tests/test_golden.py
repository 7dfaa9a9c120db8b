"""The head equals the published code: every golden file, from features to detections."""

import shutil

import numpy as np
import pytest
import torch

from aggmask.checkpoints.published import to_ours
from aggmask.model.aggregation.neighbors import neighbors
from aggmask.model.fpn import FPN
from aggmask.structures import Cells
from aggmask.supervision.criterion import Criterion
from tests.golden_case import KINDS, OWN, GoldenCase, golden_files, own_files, published_objects

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=golden_files(*KINDS), ids=lambda path: path.stem)
def case(request) -> GoldenCase:
    return GoldenCase(request.param)


def all_cells(case: GoldenCase, level) -> Cells:
    cells = torch.arange(level.grid**2)
    images = torch.arange(case.batch).repeat_interleave(len(cells))
    return Cells(images, cells.repeat(case.batch))


def close(actual: torch.Tensor, expected: torch.Tensor, relative: float = 1e-4) -> None:
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=0, atol=relative * max(scale, 1e-6))


def test_golden_forward(case):
    """Representations, category logits, neighbors, dynamic weights, context."""
    head, pyramid = case.head, case.pyramid()
    features = head.at_levels(pyramid)
    banks = head.bank(features, pyramid)
    for number, (level, bank, output) in enumerate(zip(case.levels, banks, head(pyramid), strict=True)):
        if f"out.kernel{number}" in case.data.files:
            close(head.bank.predict(features[number], level.mask_grid), case.tensor(f"out.kernel{number}"))
        positions = torch.stack(torch.meshgrid(*[torch.arange(level.mask_grid)] * 2, indexing="ij"), -1).flatten(0, 1)
        every = positions[::11][:, None].repeat(case.batch, 1, 1)
        if f"out.rep{number}" in case.data.files:
            expected = case.tensor(f"out.rep{number}")
            images = torch.arange(case.batch).repeat_interleave(expected.shape[1])
            close(bank.at(images, every)[:, 0].unflatten(0, expected.shape[:2]), expected)
        close(output.logits, case.tensor(f"out.cate{number}"))
        if f"out.neighbours{number}" in case.data.files:
            cells = torch.arange(level.grid**2)
            # The file lists window 5 for window 1 too; the middle one is used.
            listed = case.tensor(f"out.neighbours{number}").long()
            found = neighbors(cells, level, case.window)[0]
            assert torch.equal(found, listed[:, 2:3] if case.window == 1 and listed.shape[1] == 5 else listed)
        if f"out.dynamic{number}" in case.data.files:
            category_features, _ = head.category(features[number], level.grid)
            cell_features = head.aggregation.weights.cell_features(features[number], category_features)
            weights = head.aggregation.weights(cell_features, all_cells(case, level))
            weights = weights.unflatten(0, (case.batch, level.grid, level.grid)).movedim(-1, 1)
            expected = case.tensor(f"out.dynamic{number}")
            close(weights[:, : expected.shape[1]], expected)
    if "out.mask_features" in case.data.files:
        close(torch.stack(banks[0].features)[:, ::4], case.tensor("out.mask_features"))
    if "out.context" in case.data.files:
        close(head.aggregation.context(pyramid)[:, ::4], case.tensor("out.context"))


def test_golden_targets(case):
    """Exactly the same cells, categories and mask pixels."""
    outputs = case.head(case.pyramid())
    background = case.cfg["num_classes"] - 1
    found = case.assigner(outputs, case.objects, case.canvas)
    for number, (target, output) in enumerate(zip(found, outputs, strict=True)):
        width = case.canvas[1] // output.mask_stride
        if f"out.target_cate0_{number}" not in case.data.files:
            assert case.meta["kind"] == "solov2"  # whose files hold no targets: the losses say whether they are equal
            continue
        for image in range(case.batch):
            expected = case.tensor(f"out.target_cate{image}_{number}").long()
            assert torch.equal(torch.where(expected == 0, background, expected - 1), target.labels[image])
            mine = target.cells.image == image
            positive = case.tensor(f"out.target_pos{image}_{number}").nonzero()[:, 0]
            assert torch.equal(target.cells.index[mine], positive)
            masks = case.bits(f"out.target_mask{image}_{number}", width)
            assert torch.equal(target.masks[target.which[mine]].to(torch.uint8), masks)


def test_golden_losses_and_gradients(case):
    head, pyramid = case.head, case.pyramid()
    head.zero_grad()
    outputs = head(pyramid)
    losses = Criterion()(outputs, case.assigner(outputs, case.objects, case.canvas))
    for name in ("mask", "category"):
        assert losses[f"loss_{name}"].item() == pytest.approx(float(case.data[f"out.loss_{name}"]), rel=1e-4)
    sum(losses.values()).backward()
    for number, features in enumerate(pyramid):
        close(features.grad.sum((2, 3)), case.tensor(f"grad.feat{number}"), 1e-3)
    if case.meta["kind"] == "solov2":
        return  # its files hold the gradients of the features only
    ours = {name: parameter.grad.norm() for name, parameter in head.named_parameters()}
    expected = case.named("gradnorm.")
    assert ours.keys() >= expected.keys()
    for name, norm in ours.items():
        # Where no cell is positive the published code leaves a level's kernels without a gradient.
        assert float(norm) == pytest.approx(float(expected.get(name, 0.0)), rel=1e-3, abs=1e-7), name


def test_golden_detections(case):
    test = case.meta["test"]
    with torch.no_grad():
        found = case.decoder(case.head(case.pyramid()), case.canvas)
    for image, detections in enumerate(found):
        frame = case.frame(image)
        scores = case.tensor(f"out.det_scores{image}")
        torch.testing.assert_close(detections.scores, scores, rtol=0, atol=1e-4)
        if not len(scores):
            continue
        masks = torch.cat(list(frame.masks_to_original(detections.masks, threshold=test["mask_thr"])))
        apart = np.ones(len(scores), bool)  # detections of nearly the same score may change places
        gaps = -np.diff(scores.numpy()) > 1e-4
        apart[1:] &= gaps
        apart[:-1] &= gaps
        apart[-1] &= len(scores) < test["max_per_img"]
        assert torch.equal(detections.labels[apart], case.tensor(f"out.det_labels{image}")[apart])
        drawn = case.bits(f"out.det_masks{image}", frame.original[1])
        first = apart[: len(drawn)]
        differ = (masks[: len(drawn)][first] != drawn[first].bool()).float().mean((1, 2))
        assert differ.numel() == 0 or float(differ.max()) <= 1e-3
        areas = case.tensor(f"out.det_areas{image}")
        pixels = frame.original[0] * frame.original[1]
        assert ((masks.sum((1, 2)) - areas)[apart].abs() <= max(1, 1e-3 * pixels)).all()


def test_golden_objects_may_be_none():
    """Of other files than those that are here."""
    nothing = published_objects(torch.zeros(0, 64, 96), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert {stride: tuple(masks.shape) for stride, masks in nothing.masks.items()} == {
        4: (0, 16, 24), 8: (0, 8, 12), 16: (0, 4, 6)
    }  # fmt: skip


@pytest.mark.parametrize("path", golden_files("fpn"), ids=lambda path: path.stem)
def test_golden_fpn(path):
    data = {key: torch.from_numpy(value.astype(np.float32)) for key, value in np.load(path).items()}
    features = [data[f"in.c{i}"] for i in range(2, 6)]
    fpn = FPN([f.shape[1] for f in features], data["out.p2"].shape[1])
    weights = to_ours({f"neck.{key[2:]}": value for key, value in data.items() if key.startswith("w.")})
    fpn.load_state_dict({name.removeprefix("fpn."): value for name, value in weights.items()})
    for number, found in enumerate(fpn(features), start=2):
        close(found, data[f"out.p{number}"])


def test_files_of_others_are_for_golden_tests_only(monkeypatch, tmp_path):
    shutil.copy(OWN / "solo.npz", tmp_path / "another.npz")
    monkeypatch.setenv("AGGMASK_GOLDEN", str(tmp_path))
    assert golden_files(*KINDS) == [tmp_path / "another.npz"]
    assert own_files("solo", "solov2") == [OWN / "solo.npz", OWN / "solov2.npz"]
    assert not GoldenCase(tmp_path / "another.npz").own
    assert GoldenCase(OWN / "solo.npz").own
