from types import SimpleNamespace

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aggmask.callbacks.categories import CategoryScores
from aggmask.metrics.evaluators import CategoryScore


def test_a_category_without_ground_truth_has_no_ap(tmp_path):
    scores = {3: CategoryScore("disc", 0.5, 0.75), 7: CategoryScore("block", -1.0, -1.0)}
    module = SimpleNamespace(metric=SimpleNamespace(per_category=lambda: scores))
    sent = []
    run = SimpleNamespace(log=sent.append)
    board = TensorBoardLogger(tmp_path, name="", version="")
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        loggers=[WandbLogger(experiment=run, project="p"), board],
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=9)),
    )
    CategoryScores().on_validation_end(trainer, module)
    (row,) = sent
    assert row["trainer/global_step"] == 9
    assert row["val/categories"].columns == ["step", "id", "category", "AP", "AP50"]
    assert row["val/categories"].data == [[9, 3, "disc", 0.5, 0.75], [9, 7, "block", None, None]]
    board.experiment.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["val_AP/disc"]
    assert [(event.step, event.value) for event in events.Scalars("val_AP/disc")] == [(9, 0.5)]
    trainer.is_global_zero = False
    CategoryScores().on_validation_end(trainer, module)
    assert len(sent) == 1
