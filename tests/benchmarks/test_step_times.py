"""Steps of variants in turn: real ones, of tiny networks."""

from aggmask.assembly.config import plain
from benchmarks import step_times
from tests.data.make_coco import make_coco
from tests.runs import SMALL, composed


def test_steps_of_each_variant_are_timed_in_turn(monkeypatch, tmp_path):
    root = make_coco(tmp_path, images=4, empty_every=0)
    said = [
        "experiment=solo_r50_agg",
        "name=x",
        *SMALL,
        "trainer.max_steps=20",
        f"data.root={root}",
        f"output_dir={tmp_path}",
    ]
    configs = {
        name: plain(composed(*said, f"model.backbone.pretrained={pretrained}", f"model.aggregation.window={window}"))
        for name, window, pretrained in (("five", 5, "true"), ("nine", 9, "false"))  # no weights are asked for
    }
    order, steps = [], step_times.some_steps

    def noted(config, steps_each):
        run = steps(config, steps_each)
        return lambda: (order.append(config["model"]["aggregation"]["window"]), run())[1]

    monkeypatch.setattr(step_times, "some_steps", lambda config, steps: noted(config, steps))
    found = step_times.in_turn(configs, rounds=2, steps=1)
    assert order == [5, 9] * 3
    assert {name: len(values) for name, values in found.items()} == {"five": 2, "nine": 2}
    assert all(seconds > 0 for values in found.values() for seconds in values)
