"""Compiled or not, channels last or not: the same network."""

import shutil
from functools import partial

import pytest
import torch

from aggmask.assembly.build import load
from aggmask.errors import UserError
from aggmask.model.aggregation.dynamic import DynamicAggregation
from aggmask.model.backbone import TimmBackbone
from aggmask.model.category import CategoryBranch
from aggmask.model.execution import compile_dense
from aggmask.model.representation.predicted import PredictedBank
from aggmask.model.segmenter import Segmenter
from aggmask.structures import Cells
from aggmask.supervision.assign import Assigner
from aggmask.supervision.criterion import Criterion
from tests.data.make_coco import make_coco
from tests.runs import small_run
from tests.small import PUBLISHED_ROWS, random_objects

CANVAS = (64, 96)


def make(**options) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(
        num_classes=3,
        backbone=TimmBackbone("resnet10t", pretrained=False, frozen_stages=0),
        levels=PUBLISHED_ROWS[:2],
        interpolation={"stride": 1},
        category=partial(CategoryBranch, width=32, depth=1),
        bank=partial(PredictedBank, width=32, depth=1, channels=32, feature_width=32),
        aggregation=DynamicAggregation,
        fpn_channels=32,
        **options,
    )


def losses_and_gradients(net: Segmenter) -> list[torch.Tensor]:
    dtype = next(net.parameters()).dtype
    images = torch.randn(2, 3, *CANVAS, generator=torch.Generator().manual_seed(1), dtype=dtype)
    outputs = net.train()(images)
    objects = [random_objects(4, canvas=CANVAS, seed=seed) for seed in range(2)]
    losses = Criterion()(outputs, Assigner()(outputs, objects, CANVAS))
    net.zero_grad()
    sum(losses.values()).backward()
    return [*losses.values(), *(p.grad for p in net.parameters())]


def test_a_compiled_network_is_the_network():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = make().double(), make(compile="eager").double()
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for a, b in zip(losses_and_gradients(plain), losses_and_gradients(compiled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 6
    assert not torch._dynamo.utils.counters["graph_break"]
    images = torch.randn(1, 3, 96, 64, dtype=torch.double)  # another size, and nothing is trained
    with torch.no_grad():
        for a, b in zip(plain.eval()(images), compiled.eval()(images), strict=True):
            torch.testing.assert_close(a.logits, b.logits)


def test_what_is_compiled_is_all_that_is_dense():
    names = {name for name, module in make(compile="eager").named_modules() if module._compiled_call_impl}
    assert names == {
        "backbone", "fpn", "head.category", "head.bank.features", "head.bank.tower", "head.aggregation.context",
    }  # fmt: skip
    assert not any(module._compiled_call_impl for module in make().modules())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_inductor_computes_the_same():
    """The head alone: what a backbone would add is minutes of compiling."""
    torch.compiler.reset()
    heads = make().double().head, make().double().head
    compile_dense(heads[1], "inductor")
    for size in (16, 24):
        pyramid = [torch.randn(2, 32, size // 2**i, size // 2**i, dtype=torch.double) for i in range(5)]
        results = []
        for head in heads:
            head.zero_grad()
            outputs = head(pyramid)
            cells = Cells(torch.tensor([0, 1]), torch.tensor([40, 41]))
            sum(o.logits.square().sum() + o.field.at(cells).square().sum() for o in outputs).backward()
            results.append([*(o.logits for o in outputs), *(p.grad for p in head.parameters())])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_unknown_backends_are_named():
    with pytest.raises(UserError, match=r"model\.compile=inducto: .*did you mean inductor"):
        make(compile="inducto")
    with pytest.raises(UserError, match=r"model\.compile=True: .*there are .*inductor"):
        make(compile="True")


def test_channels_last_weights_compute_the_same():
    plain, last = make().double(), make(channels_last=True).double()
    for name, parameter in last.named_parameters():
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last), name
    assert not plain.fpn.output[0].weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    last.fpn.output[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    for a, b in zip(losses_and_gradients(plain), losses_and_gradients(last), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_a_run_with_all_of_it_leaves_an_ordinary_checkpoint(tmp_path):
    root = make_coco(tmp_path / "coco", images=4, val_images=1, sizes=[(40, 60)])
    overrides = ["model.compile=eager", "model.channels_last=true", "callbacks=ema", "data.batch_size=2"]
    parts = small_run("solo_r50", root, tmp_path / "run", *overrides)
    net = parts["module"].segmenter
    assert net.backbone._compiled_call_impl
    loaded = load(tmp_path / "run" / "last.ckpt", device="cpu").segmenter
    assert loaded.backbone._compiled_call_impl is None
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values(), strict=True))
