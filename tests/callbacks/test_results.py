import json
from types import SimpleNamespace

import torch

from aggmask.callbacks.results import BestResults
from aggmask.callbacks.wandb_run import wandb_logger


class Metric:
    def __init__(self):
        self.value = 0

    def write_results(self, path):
        path.write_text(json.dumps(self.value))


def test_results_are_those_of_the_best_evaluation(tmp_path):
    path = tmp_path / "results.json"
    keeper, module = BestResults(str(path)), SimpleNamespace(metric=Metric())
    run, logger = SimpleNamespace(summary={}), wandb_logger(str(tmp_path), "p", mode="offline")
    logger._experiment = run

    def evaluated(ap: float) -> float:
        numbers = {f"val/{name}": torch.tensor(ap) for name in ("AP", "AP50", "AP75")}
        told = {"callback_metrics": numbers, "loggers": [logger], "global_step": 1}
        trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, **told)
        module.metric.value = ap
        keeper.on_validation_end(trainer, module)
        assert run.summary["best/AP"] == keeper.best
        return json.loads(path.read_text())

    assert [evaluated(ap) for ap in (0.0, 0.25, 0.125, 0.5)] == [0.0, 0.25, 0.25, 0.5]


def test_the_best_so_far_counts_where_its_checkpoint_is(tmp_path):
    resumed = BestResults(str(tmp_path / "results.json"))
    resumed.load_state_dict({"best": 0.5})
    assert resumed.best == float("-inf")
    (tmp_path / "results.json").touch()
    resumed.load_state_dict({"best": 0.5})
    assert resumed.best == 0.5
    torch.save({"callbacks": {resumed.state_key: {"best": 0.375}}}, tmp_path / "best.ckpt")
    resumed.load_state_dict({"best": 0.5})
    assert resumed.best == 0.375
