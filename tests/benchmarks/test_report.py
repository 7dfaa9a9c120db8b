import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.records import Figure
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

    parts = {"data": lambda settings, tell: iter([FIGURES[3]]), "training": stopped}
    monkeypatch.setattr(command, "figures_of", parts.get)
    assert [f.name for f in command.measure(["data"], QUICK, tmp_path)] == ["pictures"]
    with pytest.raises(SystemExit) as stop:
        command.measure(["data", "training", "gpu"], QUICK, tmp_path)
    assert stop.value.code == 130
    assert f"what was measured is in {tmp_path}: for the rest say training gpu" in capsys.readouterr().err
    assert (tmp_path / "benchmarks.png").stat().st_size > 10_000
    written = json.loads((tmp_path / "benchmarks.json").read_text())["figures"]
    assert [row["name"] for row in written] == ["pictures", "AggMask, head"]
    assert all(row["time"] for row in written)
    assert [f.name for f in command.measure(["data"], QUICK, tmp_path)] == ["AggMask, head", "pictures"]
    assert "6.17 x" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="say --output=ANOTHER_FOLDER"):
        command.measure(["data"], FULL, tmp_path)


def test_the_plot_has_stages_ratios_and_curves():
    stages, ratios, curve, *unused = plot(
        [replace(f, curve=f.curve and "step by objects") for f in FIGURES], MACHINE
    ).axes
    assert len(unused) == 3
    assert not any(axes.axison for axes in unused)
    assert [t.get_text() for t in stages.get_yticklabels()] == [
        "AggMask, head (training)",
        "AggMask, head (training), dense",
    ]
    assert [bar.get_width() for bar in stages.patches] == [1.0, 2.0]
    assert len(ratios.patches) == 3  # neither stages nor points of curves
    assert {bar.get_x() for bar in ratios.patches} == {1}
    ends = [1 + bar.get_width() for bar in ratios.patches]
    assert ends == pytest.approx([FIGURES[0].ratio, 0.5, FIGURES[3].ratio])
    assert "right of 1 is faster" in ratios.get_title()
    assert ratios.get_yticklabels()[1].get_text() == "training: AggMask, head, MB against dense"
    assert curve.get_title() == "step by objects"
    assert curve.get_xlabel() == "objects"
    assert curve.lines[0].get_xydata().tolist() == [[1.0, 1.0], [1000.0, 1000.0]]
    assert curve.get_xscale() == curve.get_yscale() == "log"
    low, high = curve.get_ylim()
    assert 0.1 < low < 1
    assert 1000 < high < 10_000


def test_figures_say_of_which_code_they_are(tmp_path):
    figures = [replace(FIGURES[0], time="today", commit="abc"), replace(FIGURES[3], time="before", commit="def")]
    machine = {**MACHINE, "commit": "fed"}
    write(tmp_path, figures, machine, {})
    assert kept(tmp_path, machine, {}) == figures
    lines = (tmp_path / "benchmarks.txt").read_text().splitlines()
    assert lines[0] == "processor Abacus, cores 2, threads 1, torch 2.9"
    assert lines[1:3] == ["training: today, commit abc", "data: before, commit def"]
    figures[1] = replace(figures[1], commit="")
    assert table(figures, machine).splitlines()[1:3] == [
        "training: today, commit abc",
        "data: before, commit not known",
    ]


def test_what_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "benchmarks.json"
    for text in ('{"figures": [', "[1]", '{"figures": [{"part": "data"}]}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"benchmarks\.json cannot be read as figures.*--output=ANOTHER_FOLDER"):
            kept(tmp_path, MACHINE, {})
    file.write_text("{}")
    assert kept(tmp_path, MACHINE, {}) == []
    write(tmp_path, FIGURES, MACHINE, {})
    content = json.loads(file.read_text())
    for row in content["figures"]:
        del row["time"], row["commit"]  # which older records lack
    file.write_text(json.dumps(content))
    assert kept(tmp_path, MACHINE, {}) == FIGURES


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(command, "figures_of", lambda part: pytest.fail("measured"))
    for place in ("/proc/x", str(tmp_path / "file")):
        with pytest.raises(SystemExit, match=rf"--output={place}: cannot be written \("):
            command.measure(["data"], QUICK, Path(place))


@pytest.mark.parametrize("module", ["__main__", "study"])
def test_words_are_read_before_anything_slow_is_imported(module):
    code = f"import sys, benchmarks.{module}; sys.exit(bool({{'torch', 'matplotlib'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert all(callable(command.figures_of(part)) for part in command.PARTS)


def test_nothing_to_measure_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "figures_of", lambda part: lambda settings, tell: iter([]))
    with pytest.raises(SystemExit, match="nothing to measure here for gpu"):
        command.measure(["gpu"], QUICK, tmp_path)


def test_the_plot_of_nothing_is_a_plot():
    assert plot([], MACHINE).axes == []


def test_the_command_line_chooses_parts_and_sizes():
    parts, settings, output = command.arguments([])
    assert (parts, settings, str(output)) == (list(command.PARTS), FULL, "runs/benchmarks")
    assert str(command.arguments(["--quick"])[2]) == "runs/benchmarks-quick"
    parts, settings, output = command.arguments(["data", "growth", "--quick", *OPTIONS])
    assert (parts, str(output)) == (["data", "growth"], "x")
    assert command.arguments(["data", "growth", "data"])[0] == ["data", "growth"]
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

        return figures

    monkeypatch.setattr(command, "figures_of", {"one": part(0), "two": part(3)}.get)
    found = command.measure(["one", "two"], QUICK, tmp_path)
    assert [figure.name for figure in found] == [FIGURES[0].name, FIGURES[3].name]
    said = capsys.readouterr()
    assert "one: at work with 2 repeats" in said.err
    assert "two: at work" in said.err
    assert "123 " in said.out
    assert len(json.loads((tmp_path / "benchmarks.json").read_text())["figures"]) == 2
