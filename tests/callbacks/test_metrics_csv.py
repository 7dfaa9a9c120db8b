import csv

from aggmask.callbacks.metrics_csv import ContinuedCSVLogger
from tests.disks import small_files_only


def logged(folder, *rows: tuple[int, dict]) -> list[dict[str, str]]:
    logger = ContinuedCSVLogger(str(folder), name="", version="")
    logger.log_hyperparams({"seed": 1})
    for step, values in rows:
        logger.log_metrics(values, step)
    logger.save()
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_an_earlier_start_stay_and_lost_work_is_not_counted_twice(tmp_path):
    logged(tmp_path, (0, {"loss": 3.0}), (9, {"loss": 2.0}), (9, {"AP": 0.1}), (19, {"loss": 9.0}))
    rows = logged(tmp_path, (19, {"loss": 1.5}), (29, {"loss": 1.25}), (29, {"AP": 0.2}))  # from the checkpoint at 10
    assert [(int(row["step"]), row["loss"], row["AP"]) for row in rows] == [
        *[(0, "3.0", ""), (9, "2.0", ""), (9, "", "0.1")],
        *[(19, "1.5", ""), (29, "1.25", ""), (29, "", "0.2")],
    ]


def test_a_start_that_logs_nothing_leaves_the_file(tmp_path):
    before = logged(tmp_path, (0, {"loss": 3.0}))
    assert logged(tmp_path) == before


def test_saving_again_and_again_writes_each_row_once(tmp_path):
    logger = ContinuedCSVLogger(str(tmp_path), name="", version="", flush_logs_every_n_steps=1)
    for step in range(3):
        logger.log_metrics({"loss": float(step)}, step)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step", "0.0,0", "1.0,1", "2.0,2"]


def test_rows_that_a_disk_did_not_take_are_kept_and_written_later(tmp_path, caplog):
    logger = ContinuedCSVLogger(str(tmp_path), name="", version="", flush_logs_every_n_steps=1)
    logger.log_metrics({"loss": 0.0}, 0)
    with small_files_only(20):
        for step in (1, 2, 3):
            logger.log_metrics({"loss": float(step)}, step)
        assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step", "0.0,0"]
    assert caplog.text.count("metrics.csv: files may not become so large here") == 1  # once, not with every row
    logger.log_metrics({"loss": 4.0}, 4)
    assert len((tmp_path / "metrics.csv").read_text().split()) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_rows_that_a_checkpoint_does_not_know_go_whatever_their_step(tmp_path):
    """An evaluation is logged under the step of the row before it."""
    logged(tmp_path, (3, {"loss": 2.0}), (3, {"AP": 0.1}), (4, {"loss": 1.0}))
    logger = ContinuedCSVLogger(str(tmp_path), name="", version="")
    logger.experiment.keep(1)
    assert len(logger.experiment) == 1
    logger.log_metrics({"AP": 0.2}, 3)
    assert len(logger.experiment) == 2
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["AP,loss,step", ",2.0,3", "0.2,,3"]
