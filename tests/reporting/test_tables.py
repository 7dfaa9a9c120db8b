import math
import shutil
import subprocess

import pytest

from aggmask.metrics.resampling import Interval
from aggmask.reporting.summary import Spread, summarize
from aggmask.reporting.tables import as_latex, as_markdown, cells, columns, percent, signed


@pytest.fixture
def summary(sweep):
    (sweep / "5" / "results.json").unlink()
    return summarize(sweep, "window=9", resample_count=50)


def test_numbers_are_written_as_people_read_them():
    assert percent(Spread(0.38571, 0.0042)) == "38.6 ± 0.4"
    assert percent(Spread(0.38571, math.nan)) == "38.6"
    assert percent(Spread(math.nan, math.nan)) == "–"
    assert signed(Interval(0.012, -0.0041, 0.03)) == "+1.2 [−0.4, +3.0]"


def test_markdown_has_a_line_for_each_variant(summary):
    lines = as_markdown(summary).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == columns(summary)
    assert {len(row) for row in rows} == {len(columns(summary))}
    assert [row[0] for row in rows[2:]] == ["window=1", "window=5", "window=9"]
    assert [row[1] for row in rows[2:]] == ["2", "2", "1 of 2"]
    assert rows[4][3] == "baseline"
    assert rows[3][3].startswith("**+")
    told = [line for line in lines if line and not line.startswith("|")]
    assert "6 validation images" in told[0]
    assert told[1].startswith("1 of 6 jobs are not finished, and not in these numbers: 5 (")
    assert [line for line in as_latex(summary).splitlines() if line[0] == "%"] == [f"% {line}" for line in told]


def test_costs_that_nothing_says_have_no_column(summary):
    for row in summary.rows:
        row.costs["multiply_adds"] = None
    assert not [heading for heading in columns(summary) if heading.startswith("multiply-adds")]
    summary.rows[0].costs["multiply_adds"] = 1234.5
    assert "multiply-adds [G]" in columns(summary)
    place = columns(summary).index("multiply-adds [G]")
    assert [line[place].text for line in cells(summary)] == ["1\u2009234", "–", "–"]


def test_latex_escapes_and_has_as_many_columns(summary, tmp_path):
    object.__setattr__(summary.rows[0].variant, "label", "a_b=50% & c\\d")
    text = as_latex(summary)
    assert r"a\_b=50\% \& c\textbackslash{}d" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {len(columns(summary)) - 1}
    assert text.count(r"\textbf{$") + text.count(r"\textbf{+") >= 1
    assert text.isascii() or {letter for letter in text.partition("\n")[2] if not letter.isascii()} == set()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_compiles(summary, tmp_path):
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "table.tex").write_text(document % as_latex(summary))
    subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True)
