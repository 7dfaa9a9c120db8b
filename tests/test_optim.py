from functools import partial

import pytest
import torch

from aggmask.errors import UserError
from aggmask.optim import CosineSchedule, OptimizerRecipe, StepSchedule, parameter_groups


def recipe(**options) -> OptimizerRecipe:
    settings = {"lr": 0.01, "optimizer": torch.optim.SGD, "schedule": StepSchedule(), **options}
    return OptimizerRecipe(**settings)


def test_published_schedule_step_by_step():
    """36 epochs of 100 steps: warm-up to step 500, x0.1 from epoch 27 and from epoch 33 on."""
    factor = recipe().factor
    assert factor(0, 3600) == pytest.approx(1 / 3)
    assert factor(250, 3600) == pytest.approx(2 / 3)
    assert factor(500, 3600) == factor(2699, 3600) == 1
    assert factor(2700, 3600) == factor(3299, 3600) == pytest.approx(0.1)
    assert factor(3300, 3600) == factor(3599, 3600) == pytest.approx(0.01)


def test_linear_rule_is_applied_and_told(caplog):
    caplog.set_level("INFO")
    assert recipe().scaled_lr(16) == 0.01
    assert not caplog.records
    assert recipe().scaled_lr(4) == pytest.approx(0.0025)
    assert "0.0025 for 4" in caplog.text
    assert recipe(reference_batch=None).scaled_lr(4) == 0.01


def test_a_warm_up_beyond_the_end_is_told(caplog):
    for steps, told in ((500, True), (501, False)):
        caplog.clear()
        recipe(reference_batch=None).configure([("weight", torch.nn.Parameter(torch.zeros(1)))], steps, 16)
        assert ("the whole training has 500 steps" in caplog.text) == told


def test_configured_optimizer_follows_the_schedule():
    weight = torch.nn.Parameter(torch.zeros(1))
    made = recipe(warmup_steps=0, schedule=StepSchedule([0.5], 0.1)).configure(
        [("weight", weight)], total_steps=4, images_per_step=16
    )
    rates = []
    for _ in range(4):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_layers_have_rates_that_fall_towards_the_first():
    head, last, first = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    made = recipe(layer_decay=0.5, warmup_steps=0, schedule=StepSchedule([0.5], 0.1)).configure(
        [("first", first), ("head", head), ("last", last)],
        total_steps=2,
        images_per_step=32,
        layer_depths=lambda: {first: 3, last: 1},
    )
    optimizer = made["optimizer"]
    rates = {group["params"][0]: group["lr"] for group in optimizer.param_groups}
    assert [rates[p] for p in (head, last, first)] == pytest.approx([0.02, 0.01, 0.0025])
    optimizer.step()
    made["lr_scheduler"]["scheduler"].step()
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.00025, 0.001, 0.002])


def test_without_layer_decay_there_is_one_group_and_nobody_asks_for_layers():
    made = recipe().configure([("x", torch.nn.Parameter(torch.zeros(1)))], 4, 16, lambda: pytest.fail("asked"))
    assert len(made["optimizer"].param_groups) == 1


def test_cosine_by_hand():
    factor = recipe(warmup_steps=0, schedule=CosineSchedule(final=0.1)).factor
    assert [factor(step, 300) for step in (0, 100, 150, 200, 300)] == pytest.approx([1, 0.775, 0.55, 0.325, 0.1])
    assert CosineSchedule()(1.0) == pytest.approx(0)
    assert CosineSchedule()(1.5) == pytest.approx(0)  # it does not rise again


@pytest.mark.parametrize(("decays", "shrinks"), [(True, {"0.weight", "0.bias", "1.weight"}), (False, {"0.weight"})])
def test_weight_decay_may_leave_norms_and_biases_alone(decays, shrinks):
    """With gradients of 0, AdamW changes by its weight decay alone: by the factor 1 - lr * decay."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.GroupNorm(2, 4, affine=True))
    torch.nn.init.ones_(net[0].bias)
    made = recipe(
        optimizer=partial(torch.optim.AdamW, weight_decay=0.5), warmup_steps=0, decay_norms_and_biases=decays
    ).configure(net.named_parameters(), total_steps=4, images_per_step=16)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made["optimizer"].step()
    for name, value in net.named_parameters():
        expected = before[name] * (1 - 0.01 * 0.5) if name in shrinks else before[name]
        torch.testing.assert_close(value.detach(), expected)


def test_every_parameter_is_in_one_group():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Linear(4, 4, bias=False))
    for decays in (True, False):
        groups = parameter_groups(net.named_parameters(), decays)
        assert len(groups) == 2 - decays
        assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, net.parameters()))


def test_senseless_values_are_refused():
    with pytest.raises(UserError, match=r"optim\.lr=0"):
        recipe(lr=0)
    with pytest.raises(UserError, match=r"optim\.reference_batch=0: must be 1 or more"):
        recipe(reference_batch=0)
    with pytest.raises(UserError, match=r"milestones=\[27, 33\]: shares"):
        StepSchedule([27, 33])
    with pytest.raises(UserError, match=r"optim\.layer_decay=1\.5: must be more than 0 and at most 1"):
        recipe(layer_decay=1.5)
    with pytest.raises(UserError, match=r"final=10: a share"):
        CosineSchedule(10)
