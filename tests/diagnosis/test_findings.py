import pytest

from aggmask.diagnosis.findings import KINDS, Findings, Repairs


def test_faults_come_first_and_notes_are_no_faults():
    findings = Findings()
    for kind in ("crowd", "no-mask", "crowd", "record"):
        findings.add(kind, f"annotation {kind}", "text")
    assert list(findings.counts().items()) == [("record", 1), ("no-mask", 1), ("crowd", 2)]
    assert findings.faults == 2
    assert [str(finding) for finding in findings.of("record")] == ["annotation record: text"]
    with pytest.raises(KeyError):
        findings.add("nothing of the kind", "")


def test_what_is_dropped_stays_dropped():
    repairs = Repairs()
    repairs.change("images", 0, id=3)
    repairs.change("images", 0, height=4)
    assert repairs.changes["images", 0] == {"id": 3, "height": 4}
    repairs.drop("images", 0)
    repairs.change("images", 0, id=5)
    assert repairs.dropped("images", 0)
    assert not repairs.dropped("images", 1)


def test_every_kind_says_what_and_what_is_done():
    assert all(kind.what and kind.done and kind.remedy for kind in KINDS.values())
