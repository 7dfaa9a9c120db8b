"""A clean copy of an annotation file: what cannot be used is left out, everything else is kept word for word."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from aggmask.cocofile.records import LISTS, raw_records
from aggmask.diagnosis.structure import Examination
from aggmask.errors import UserError
from aggmask.files import write_whole


def repaired(examination: Examination) -> bytes:
    """The JSON of an annotation file with the repairs of its examination; as it is where there are none.

    Raises:
        UserError: the file cannot be read at all.
    """
    if unreadable := examination.findings.of("no-file") + examination.findings.of("too-large"):
        raise UserError(f"no clean copy of {examination.source} can be made: {unreadable[0]}")
    if not examination.repairs.changes:
        return examination.data
    _follow_images(examination)
    # Records stay bytes, unless something in them changes: as objects they would take ten times as much memory.
    content = raw_records(examination.data)
    for name in LISTS:
        if name in content:
            content[name] = [
                _changed(record, change, f"{examination.source}: {name}[{k}]")
                for k, record in enumerate(content[name])
                if (change := examination.repairs.changes.get((name, k), {})) is not None
            ]
    return msgspec.json.encode(content)


def _changed(record: msgspec.Raw, change: dict, where: str) -> msgspec.Raw | dict:
    try:
        return msgspec.json.decode(record) | change if change else record
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:  # in a key that nobody has asked for
        raise UserError(f"no clean copy can be made: {where} cannot be written again: {error}") from error


def _follow_images(examination: Examination) -> None:
    """Annotations go with their images."""
    repairs = examination.repairs
    kept = {image.id for _, image in examination.images()}
    for position, a in examination.annotations():
        if repairs.value("annotations", position, a, "image_id") not in kept:
            repairs.drop("annotations", position)


def kept(examination: Examination, list_name: str) -> tuple[int, int]:
    """How many records of a list the `repaired` file has, of how many before."""
    file, repairs = examination.file, examination.repairs
    unread = [problem.position for problem in file.problems if problem.list == list_name]
    positions = file.positions[list_name] + unread
    return sum(not repairs.dropped(list_name, position) for position in positions), len(positions)


def write_copy(data: bytes, target: str) -> None:
    """Write a clean copy, at once and never over something that is there.

    Raises:
        UserError: it is there, or cannot be written.
    """
    path = Path(target).expanduser()
    if os.path.exists(path):  # not path.exists(), which fails where a name is longer than any file's
        raise UserError(f"fix={target}: there is such a file already, which stays as it is. Name another one.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise UserError(f"fix={target}: cannot be written: {error.strerror or error}") from error
