"""What was found, as one static HTML page: no scripts, nothing to load, pictures inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from aggmask.diagnosis import report as texts
from aggmask.diagnosis.cells import CellReport
from aggmask.diagnosis.findings import KINDS
from aggmask.drawing.page import data_address
from aggmask.drawing.page import write_page as place

_MOST = 200  # findings of a kind by name
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; }
td { text-align: right; } td:first-child, th:first-child, .findings td { text-align: left; vertical-align: top; }
.fault { color: #b00020; font-weight: bold; } .note { color: #666; } pre { background: #f4f4f4; padding: 1em; }
figure { display: inline-block; margin: .5em; } figcaption { max-width: 480px; } img { max-width: 480px; }
"""


def write_page(reports: Sequence[texts.Report], path: str) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    body = "\n".join(line for report in reports for line in _section(report))
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>aggmask doctor</title>\n'
        # names come from strangers' files: should one ever slip through, nothing is run or fetched
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<style>{_STYLE}</style></head><body>\n<h1>aggmask doctor</h1>\n{body}\n</body></html>\n"
    )
    place(page, path, "html")


def _section(report: texts.Report) -> Iterator[str]:
    file, findings = report.examination.file.file, report.examination.findings
    yield f"<h2>{escape(report.name)}: {escape(report.examination.source)}</h2>"
    yield f"<p>{len(file.images)} images, {len(file.annotations)} annotations, {len(file.categories)} categories</p>"
    if not findings.found:
        yield "<p>nothing to complain about</p>"
    else:
        yield '<table class="findings"><tr><th></th><th>what</th><th>what is done</th><th>in a clean copy</th></tr>'
        for kind, count in findings.counts().items():
            about = KINDS[kind]
            name = "fault" if about.fault else "note"
            listed = "<br>".join(escape(texts.printable(str(finding))) for finding in findings.of(kind)[:_MOST])
            more = f"<br>... and {count - _MOST} more" if count > _MOST else ""
            details = f"<details><summary>{escape(about.what)}</summary>{listed}{more}</details>"
            yield (
                f'<tr><td class="{name}">{name} {count}</td><td>{details}</td><td>{escape(about.done)}</td>'
                f"<td>{escape(about.remedy)}</td></tr>"
            )
        yield "</table>"
    if report.cells is not None:
        yield from _cells(report.cells, report)


def _cells(cells: CellReport, report: texts.Report) -> Iterator[str]:
    yield f"<h3>Cells</h3><p>{escape(texts.summary(cells, report.experiment))}</p>"
    yield _table(texts.level_rows(cells), texts.LEVEL_COLUMNS)
    yield _table(texts.fate_rows(cells.by_size()), ("size", *texts.FATE_COLUMNS))
    yield _table(texts.fate_rows(cells.by_category()), ("category", *texts.FATE_COLUMNS))
    if report.advises:
        yield f"<h3>Grids for this data set</h3><p>{escape(texts.verdict(cells))}</p>"
        yield f"<pre>{escape(' '.join(cells.proposal.words()))}</pre><p>or, as an experiment in conf/experiment/:</p>"
        yield f"<pre>{escape(cells.proposal.yaml(report.experiment))}</pre>"
    if cells.pictures:
        yield "<h3>Images that lose most objects</h3>"
    for picture in cells.pictures:
        yield (
            f'<figure><img src="{data_address("image/jpeg", picture.jpeg)}" alt=""><figcaption>'
            f"{escape(texts.printable(picture.title))}</figcaption></figure>"
        )


def _table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{escape(texts.printable(str(value)))}</td>" for value in row) + "</tr>")
    return "\n".join([*lines, "</table>"])
