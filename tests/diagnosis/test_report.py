from aggmask.diagnosis.findings import KINDS
from aggmask.diagnosis.page import write_page
from aggmask.diagnosis.report import Report, as_text, printable, table
from aggmask.diagnosis.structure import examine
from tests.nasty.annotations import SHAPES, file, other


def report(**values) -> Report:
    return Report("train", examine(file(*(other(id=k, **values) for k in range(20, 29))), "file<i>.json"))


def test_text_names_a_few_and_counts_the_rest():
    text = as_text(report(segmentation=[]), examples=2)
    assert "train: file<i>.json" in text
    assert f"FAULT      9 x {KINDS['no-mask'].what}" in text
    assert KINDS["no-mask"].done in text
    assert f"(fix=FILE): {KINDS['no-mask'].remedy}" in text
    assert "annotation 20 of image 5: no polygon" in text
    assert "annotation 22 of" not in text
    assert "... and 7 more" in text
    assert "nothing to complain about" in as_text(Report("val", examine(file(), "file.json")))


def test_the_page_names_all_of_them_with_what_a_copy_has(tmp_path):
    write_page([report(segmentation=[]), report(segmentation="<script>")], str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert all(f"annotation {id} of image 5" in page for id in range(20, 29))
    assert KINDS["no-mask"].remedy in page
    assert "file&lt;i&gt;.json" in page
    assert "<script" not in page


def test_table():
    assert table([("a", 1), ("bcd", 22)], ("name", "n")) == "  name   n\n  a      1\n  bcd   22"


def test_printable():
    assert printable("straße 1\x1b[2J\n") == "straße 1\\x1b[2J\\x0a"


def test_texts_are_short():
    """A finding is one line, whatever the file holds."""
    for case in SHAPES.values():
        for finding in examine(case.data, "file.json").findings.found:
            assert len(str(finding)) < 400
