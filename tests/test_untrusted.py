"""Files of others: none of them runs code, names code, or leads out of its folder.

Names and links of images that lead out of their folder: `tests/data/test_storage.py`, `tests/nasty/test_pictures.py`.
"""

import ast
import lzma
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

import aggmask
from aggmask.assembly.build import _is_part, load, load_module
from aggmask.callbacks.checkpoint_files import WholeCheckpoints
from aggmask.checkpoints.non_finite import read_rank
from aggmask.checkpoints.reading import read_file
from aggmask.data.datamodule import CocoDataModule
from aggmask.data.index import AnnotationIndex
from aggmask.data.storage import open_storage
from aggmask.diagnosis.structure import examine_file
from aggmask.errors import UserError
from aggmask.files import read_json
from aggmask.metrics import ground_truth
from aggmask.model.pretrained import read_weights
from aggmask.reporting.runs import _left
from tests.data.make_coco import make_coco

SOURCES = Path(aggmask.__file__).parent
FORMAT1 = Path(__file__).parent / "checkpoints" / "data" / "format1.ckpt.xz"


class Evil:
    """Makes a file where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def _torch(content, path):
    torch.save(content, path)


def _old_torch(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _pickle(content, path):
    path.write_bytes(pickle.dumps(content))


READERS = {  # every way in for a file with tensors
    "load": lambda path: load(path, "cpu"),
    "evaluate, predict": load_module,
    "convert": lambda path: read_file(path, key="source"),
    "resume": lambda path: WholeCheckpoints().load_checkpoint(path),
    "model.backbone.weights": lambda path: read_weights(str(path), "resnet10t", {}),
    "replay": lambda path: read_rank(path.parent, 0),
}


@pytest.mark.parametrize("write", [_torch, _old_torch, _pickle])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_code_in_a_checkpoint_does_not_run(read, write, tmp_path):
    mark, path = tmp_path / "it ran", tmp_path / "rank-0.pt"
    write({"state_dict": {"weight": torch.zeros(2)}, "batches": [], "more": Evil(mark)}, path)
    with pytest.raises(UserError):
        read(path)
    assert not mark.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)  # it would have
    assert mark.exists()


def test_nor_does_it_in_a_report(tmp_path):
    torch.save({"epoch": 1, "global_step": 2, "more": Evil(tmp_path / "it ran")}, tmp_path / "last.ckpt")
    assert _left(tmp_path, {"trainer": {"max_epochs": 2}}) == "last.ckpt cannot be read (UnpicklingError)"
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "aggmask.files.os.system",  # starts here, and leads elsewhere
        "aggmask.data.storage.os.system",
        "aggmask.model.pretrained.sys.exit",
        "aggmask.data.storage.Path",
        "aggmask.files.write_whole",
        "aggmask.train.main",
        "aggmask.model.nothing.Here",
        7,
    ],
)
def test_a_checkpoint_names_parts_of_this_package_only(target, tmp_path):
    assert not _is_part(target)
    path = tmp_path / "format1.ckpt"
    path.write_bytes(lzma.decompress(FORMAT1.read_bytes()))
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["model"]["aggregation"] = {"_target_": target, "_args_": [f"touch '{tmp_path}/ran'"]}
    torch.save(content, path)
    with pytest.raises(UserError, match=f"model names '{target}', which is not a part of aggmask: refused"):
        load(path, "cpu")
    assert not (tmp_path / "ran").exists()


def test_annotations_that_are_code_do_not_run(tmp_path):
    mark, path = tmp_path / "it ran", tmp_path / "file.json"
    expression = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    for content in (pickle.dumps(Evil(mark)), expression.encode(), f"!!python/object/apply:{expression}".encode()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"file\.json"):
            AnnotationIndex.open(path)
        with pytest.raises(UserError, match=r"file\.json"):
            ground_truth.load(path, [1])
        assert not examine_file(str(path)).readable
        with pytest.raises(UserError, match=r"is damaged \((Expecting value|.*can't decode)"):
            read_json(path)
    assert not mark.exists()


def test_images_that_are_code_do_not_run(tmp_path):
    root = make_coco(tmp_path / "coco", images=1, val_images=1)
    (root / "val2017" / "00000.jpg").write_bytes(pickle.dumps(Evil(tmp_path / "it ran")))
    data = CocoDataModule(str(root), num_workers=0)
    data.setup("validate")
    with pytest.raises(UserError, match=r"00000\.jpg"):
        data.val_dataset[0]
    assert not (tmp_path / "it ran").exists()


def test_a_zip_is_read_in_place_whatever_its_names_say(tmp_path):
    """Members that would lead out if they were unpacked can be asked for by no name, and nothing is written."""
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("../out.jpg", "/abs.jpg", "a/../../out.jpg", "in.jpg"):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    storage = open_storage(tmp_path / "images.zip")
    assert storage.read("in.jpg") == b"x"
    assert storage.read("link.jpg") == b"/etc/hostname"  # what is in the zip, not where it leads
    for name in ("../out.jpg", "/abs.jpg", "a/../../out.jpg", "/etc/hostname"):
        with pytest.raises(UserError, match="leads out of"):
            storage.read(name)
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]
    assert not (tmp_path.parent / "out.jpg").exists()


@pytest.mark.parametrize("allowed", [False, True])
def test_training_reads_what_lies_outside_only_where_it_is_allowed(allowed, tmp_path):
    """A link, an absolute name and a name with `..`, through the data module."""
    root = make_coco(tmp_path / "coco", images=1, val_images=3, sizes=[(40, 40)])
    file, folder = root / "annotations" / "instances_val2017.json", root / "val2017"
    for name in ("00000.jpg", "00001.jpg", "00002.jpg"):
        (folder / name).rename(tmp_path / name)
    (folder / "00000.jpg").symlink_to(tmp_path / "00000.jpg")
    text = file.read_text().replace("00001.jpg", str(tmp_path / "00001.jpg"))
    file.write_text(text.replace("00002.jpg", "../../00002.jpg"))
    data = CocoDataModule(str(root), num_workers=0, allow_outside=allowed)
    data.setup("validate")
    for number in range(3):
        if allowed:
            assert len(data.val_dataset[number].image_ids) == 1
        else:
            with pytest.raises(UserError, match=r"leads out of .*val2017.*data\.allow_outside=true"):
                data.val_dataset[number]
    assert Image.open(tmp_path / "00000.jpg").size == (40, 40)


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *(f"{module}.{name}" for module in ("pickle", "marshal", "dill", "cloudpickle", "shelve", "joblib")
      for name in ("load", "loads", "Unpickler", "open")),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("torch.hub.load", "torch.hub.load_state_dict_from_url", "shutil.unpack_archive", "tarfile.open"),
}  # fmt: skip
UNPACKING = ("extract", "extractall")  # of any archive
TRUSTED = {"checkpoints/reading.py": "not trust_pickle"}  # the only place where a person may say so


def unsafe(source: str, file: str = "") -> list[str]:
    """What in a source may run what a file says, or write where a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_load = name in ("torch.load", "timm.models.load_state_dict")
        if (
            name in FORBIDDEN
            or (isinstance(node.func, ast.Attribute) and node.func.attr in UNPACKING)
            or options.get("allow_pickle", "False") != "False"
            or options.get("shell", "False") != "False"
            or (is_load and options.get("weights_only") not in ("True", TRUSTED.get(file, "True")))
        ):
            found.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_no_source_runs_what_a_file_says(path):
    assert unsafe(path.read_text(), str(path.relative_to(SOURCES))) == []


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        ("torch.load(f)", False),
        ("torch.load(f, weights_only=False)", False),
        ("torch.load(f, weights_only=not trust_pickle)", False),
        ("torch.load(f, weights_only=True)", True),
        ("np.load(f, allow_pickle=True)", False),
        ("np.load(f)", True),
        ("model.eval()", True),
        ("def f():\n    return eval(text)", False),
        ("pickle.loads(b)", False),
        ("pickle.dumps(b)", True),
        ("yaml.load(f)", False),
        ("yaml.safe_load(f)", True),
        ("zipfile.ZipFile(f).extractall(p)", False),
        ("subprocess.run(c, shell=True)", False),
        ("subprocess.run(c)", True),
    ],
)
def test_the_rule_sees_what_it_should(line, safe):
    assert (unsafe(line) == []) == safe
