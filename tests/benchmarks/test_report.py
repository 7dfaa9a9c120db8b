import json

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import Figure
from benchmarks.report import draw, kept, plot, table, write
from benchmarks.settings import FULL, QUICK

OPTIONS = ["--repeats", "7", "--threads", "3", "--output", "x"]
MACHINE = {"processor": "Abacus", "cores": 2, "threads": 1, "gpu": None, "torch": "2.9", "time": "today"}
FIGURES = [
    Figure("training", "AggMask, head", "s", [10.0, 11.0, 12.0], "dense", [20.0, 22.0, 36.0], target=1.8),
    Figure("training", "AggMask, head", "MB", [500.0] * 3, "dense", [1000.0] * 3, "share", 0.4),
    Figure("training", "AggMask, head: loss", "s", [1.0, 1.0, 1.0], "dense", [2.0, 2.0, 2.0]),
    Figure("data", "pictures", "images/s", [123.4], "plain", [20.0]),
    *(Figure("growth", f"step, {n} objects", "s", [n], "1 object", [1.0], "share", None, "step", n) for n in (1, 1000)),
]


def test_a_row_says_median_ratio_spread_and_target():
    lines = table(FIGURES, MACHINE).splitlines()
    assert lines[0] == "processor Abacus, cores 2, threads 1, torch 2.9, time today"
    row = " ".join(lines[5].split())
    assert row == "training AggMask, head s 11.0 dense 22.0 2.00 x 2.00 to 3.00 >= 1.80 reached"
    assert " ".join(lines[6].split()).endswith("500 dense 1000 0.500 of 0.500 to 0.500 <= 0.400 MISSED")
    assert " ".join(lines[8].split()) == "data pictures images/s 123 plain 20.0 6.17 x 6.17 to 6.17"


def test_everything_is_written(tmp_path):
    write(tmp_path / "new", FIGURES, MACHINE, {"repeats": 3})
    draw(tmp_path / "new", FIGURES, MACHINE)
    written = json.loads((tmp_path / "new" / "benchmarks.json").read_text())
    assert written["machine"]["processor"] == "Abacus"
    assert written["settings"] == {"repeats": 3}
    first = written["figures"][0]
    assert (first["values"], first["ratio"], first["ratio_spread"]) == ([10.0, 11.0, 12.0], 2.0, [2.0, 3.0])
    assert (tmp_path / "new" / "benchmarks.txt").read_text() == table(FIGURES, MACHINE) + "\n"
    assert (tmp_path / "new" / "benchmarks.png").stat().st_size > 10_000


def test_what_was_measured_alike_is_kept(tmp_path):
    settings = {"repeats": 3, "size": (8, 8)}
    assert kept(tmp_path, MACHINE, settings) == []
    write(tmp_path, FIGURES, MACHINE, settings)
    assert kept(tmp_path, {**MACHINE, "time": "tomorrow"}, settings) == FIGURES
    with pytest.raises(ValueError, match=r"torch: 2\.9, now 3\.0"):
        kept(tmp_path, {**MACHINE, "torch": "3.0"}, settings)
    with pytest.raises(ValueError, match="repeats: 3, now 2"):
        kept(tmp_path, MACHINE, {**settings, "repeats": 2})


def test_parts_are_measured_piece_by_piece_and_a_stop_loses_one_figure(tmp_path, monkeypatch, capsys):
    def stopped(settings, tell):
        yield FIGURES[0]
        raise KeyboardInterrupt

    parts = {"data": (lambda settings, tell: iter([FIGURES[3]]), 1), "training": (stopped, 1)}
    monkeypatch.setattr(command, "PARTS", parts)
    assert [f.name for f in command.measure(["data"], QUICK, tmp_path)] == ["pictures"]
    with pytest.raises(KeyboardInterrupt):
        command.measure(["training"], QUICK, tmp_path)
    written = json.loads((tmp_path / "benchmarks.json").read_text())["figures"]
    assert [row["name"] for row in written] == ["pictures", "AggMask, head"]
    assert all(row["time"] for row in written)
    assert [f.name for f in command.measure(["data"], QUICK, tmp_path)] == ["AggMask, head", "pictures"]
    assert "6.17 x" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="say --output=ANOTHER_FOLDER"):
        command.measure(["data"], FULL, tmp_path)


def test_the_plot_has_stages_ratios_and_curves():
    stages, ratios, curve, *_ = plot(FIGURES, MACHINE).axes
    assert [t.get_text() for t in stages.get_yticklabels()] == [
        "AggMask, head (training)",
        "AggMask, head (training), dense",
    ]
    assert [bar.get_width() for bar in stages.patches] == [1.0, 2.0]
    assert len(ratios.patches) == 3  # neither stages nor points of curves
    assert curve.get_title() == "step"
    assert curve.lines[0].get_xydata().tolist() == [[1.0, 1.0], [1000.0, 1000.0]]
    assert curve.get_xscale() == curve.get_yscale() == "log"
    low, high = curve.get_ylim()
    assert 0.1 < low < 1
    assert 1000 < high < 10_000


def test_the_plot_of_nothing_is_a_plot():
    assert plot([], MACHINE).axes == []


def test_the_command_line_chooses_parts_and_sizes():
    parts, settings, output = command.arguments([])
    assert (parts, settings, str(output)) == (list(command.PARTS), FULL, "runs/benchmarks")
    parts, settings, output = command.arguments(["data", "growth", "--quick", *OPTIONS])
    assert (parts, str(output)) == (["data", "growth"], "x")
    assert (settings.repeats, settings.threads, settings.size) == (7, 3, QUICK.size)
    assert settings.whole == QUICK.whole
    assert command.arguments(["--whole", "SOLO", "--whole", "AggMask*"])[1].whole == ("SOLO", "AggMask*")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dta"], "no part dta: there are training"),
        (["--repeats", "0"], "--repeats and --threads"),
        (["--whole", "solo"], "SOLO"),
    ],
)
def test_a_mistake_is_named(words, said, capsys):
    with pytest.raises(SystemExit):
        command.arguments(words)
    assert said in capsys.readouterr().err


def test_parts_are_measured_and_saved_one_after_the_other(monkeypatch, tmp_path, capsys):
    def part(number):
        def figures(settings, tell):
            tell(f"at work with {settings.repeats} repeats")
            yield FIGURES[number]

        return figures, 0

    monkeypatch.setattr(command, "PARTS", {"one": part(0), "two": part(3)})
    found = command.measure(["one", "two"], QUICK, tmp_path)
    assert [figure.name for figure in found] == [FIGURES[0].name, FIGURES[3].name]
    said = capsys.readouterr()
    assert "one: at work with 2 repeats" in said.err
    assert "two: at work" in said.err
    assert "123 " in said.out
    assert len(json.loads((tmp_path / "benchmarks.json").read_text())["figures"]) == 2
