"""Index, metric and doctor say the same of a file that is none."""

import pytest

from aggmask.data.index import AnnotationIndex
from aggmask.diagnosis.structure import examine_file
from aggmask.errors import UserError
from aggmask.metrics.ground_truth import load

READERS = {
    "index": AnnotationIndex.open,
    "metric": lambda source: load(source, [1]),
    "doctor": examine_file,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no annotation file {}. COCO is laid out as"),
        ("a folder", "The annotation file {} cannot be read: "),
        (b"", "{} is not a whole JSON file (0 bytes): "),
        (b'{"images": [', "{} is not a whole JSON file (12 bytes): "),
        (b"[1, 2]", "{} is not a COCO annotation file: "),
    ],
)
def test_all_readers_say_the_same(reader, content, message, tmp_path):
    path = tmp_path / "file.json"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    try:
        (finding,) = reader(str(path)).findings.of("no-file")  # the doctor goes on, and reports it
        said = finding.text
    except UserError as error:
        said = str(error)
    assert said.startswith(message.format(path))
