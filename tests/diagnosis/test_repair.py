import json
import os

import pytest

from aggmask.cocofile.records import LISTS
from aggmask.diagnosis.repair import kept, repaired, write_copy
from aggmask.diagnosis.structure import examine
from aggmask.errors import UserError
from tests.disks import small_files_only
from tests.nasty.annotations import CASES


@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.hopeless])
def test_what_is_kept_is_what_the_copy_has(case):
    examination = examine(case.data, "file.json")
    before, copy = (json.loads(data.decode("utf-8-sig")) for data in (case.data, repaired(examination)))
    for name in LISTS:
        assert kept(examination, name) == (len(copy[name]), len(before[name]))


def test_a_copy_that_the_disk_does_not_take_leaves_nothing_in_its_place(tmp_path):
    place = tmp_path / "new folder" / "copy.json"
    with small_files_only(1000), pytest.raises(UserError, match=r"copy\.json: files may not become so large.*fix=FILE"):
        write_copy(b"x" * 2000, str(place))
    assert os.listdir(place.parent) == []
    write_copy(b"{}", str(place))
    assert place.read_bytes() == b"{}"
    with pytest.raises(UserError, match="stays as it is"):
        write_copy(b"[]", str(place))
    assert place.read_bytes() == b"{}"


def test_a_place_with_too_long_a_name_is_told(tmp_path):
    with pytest.raises(UserError, match=r"x\.json: the name is too long.*fix=FILE"):
        write_copy(b"{}", str(tmp_path / ("x" * 300 + ".json")))
