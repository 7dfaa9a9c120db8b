"""The floors of the house: imports go only to a lower floor, never to a neighbor room on the same floor.

Imports inside functions count. Rooms of floors 0 to 2 can be called from a notebook with plain tensors, so they import
neither Lightning nor Hydra, except the data module.
"""

import ast
from pathlib import Path

import pytest

import aggmask

SOURCES = Path(aggmask.__file__).parent
ROOMS = {
    "structures": 0,
    "errors": 0,
    "depth": 1,  # the scale of pictures with more than 8 bits, for whoever reads or shows one
    "files": 1,
    "signals": 0,
    "memory": 0,
    "geometry": 1,
    "cocofile": 1,  # the annotation format, for whoever reads it: index, metric, doctor
    "data": 2,
    "model": 2,
    "supervision": 2,
    "decoding": 2,
    "metrics": 2,
    "drawing": 2,
    "checkpoints": 2,
    "training": 3,  # the Lightning module and what hangs on it
    "predictor": 3,
    "accounting": 3,
    "diagnosis": 3,  # asks data, supervision and drawing about a data set
    "assembly": 4,
    "inspection": 4,  # asks a predictor how it came to what it found
    "reporting": 5,
    "launcher": 5,
}
ONE_ROOM = {"lit_module": "training", "optim": "training", "callbacks": "training"}
COMMANDS = 6  # any other file at the top
FRAMEWORKS = {"pytorch_lightning", "lightning", "hydra", "omegaconf"}
FILES = sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


def module_of(path: Path) -> list[str]:
    parts = ["aggmask", *path.relative_to(SOURCES).with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def room_of(module: list[str]) -> str:
    return ONE_ROOM.get(module[1], module[1])


def floor_of(room: str) -> int:
    if room not in ROOMS:
        assert (SOURCES / f"{room}.py").is_file(), f"{room}/ has no floor: give it one in ROOMS"
    return ROOMS.get(room, COMMANDS)


def imports_of(source: str, package: list[str]) -> list[tuple[int, list[str]]]:
    """(line, dotted name) of everything that a file imports, anywhere in it; `package` is where it lies."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = base + (node.module.split(".") if node.module else [])
            found += [(node.lineno, [*name, alias.name]) for alias in node.names]
    return found


def faults(path: Path) -> list[str]:
    module, package = module_of(path), module_of(path.parent / "__init__.py")
    room = room_of(module)
    wrong = []
    for line, name in imports_of(path.read_text(), package):
        where = f"{path.relative_to(SOURCES)}:{line}"
        lightning_allowed = floor_of(room) > 2 or module == ["aggmask", "data", "datamodule"]
        if name[0] in FRAMEWORKS and not lightning_allowed:
            wrong.append(f"{where}: {name[0]} in a room of floor {floor_of(room)}")
        other = room_of(name) if name[0] == "aggmask" and len(name) > 1 else room
        if other != room and floor_of(other) >= floor_of(room):
            wrong.append(f"{where}: {room} (floor {floor_of(room)}) imports {other} (floor {floor_of(other)})")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_imports_go_to_a_lower_floor(path):
    assert faults(path) == []


def test_every_room_has_files():
    rooms = {room_of(module_of(path)) for path in FILES}
    assert rooms >= {"structures", "errors", "geometry", "data", "model", "supervision", "decoding"}


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("model/head.py", "from aggmask.structures import Cells", True),
        ("model/head.py", "from aggmask.model.category import CategoryBranch", True),
        ("model/head.py", "from aggmask.decoding.decode import Decoder", False),
        ("model/head.py", "def f():\n    import aggmask.train", False),
        ("model/head.py", "from aggmask import train", False),
        ("model/head.py", "from ..supervision import assign", False),
        ("model/head.py", "from .category import CategoryBranch", True),
        ("geometry/grid.py", "def f():\n    from aggmask.model import head", False),
        ("model/head.py", "def f():\n    import pytorch_lightning.callbacks", False),
        ("model/head.py", "from omegaconf import DictConfig", False),
        ("data/datamodule.py", "import pytorch_lightning as pl", True),
        ("lit_module.py", "import pytorch_lightning as pl\nfrom aggmask.optim import x", True),
        ("lit_module.py", "from aggmask.train import main", False),
    ],
)
def test_the_rules_see_what_they_should(file, line, allowed, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_architecture.SOURCES", tmp_path)
    for name in ("train.py", file):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / file).write_text(line)
    assert (faults(tmp_path / file) == []) == allowed
