import os
import shutil
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from aggmask import evaluate, predict, train
from aggmask.assembly.command import quoted, run_command, unquoted
from tests.assembly.test_config import EXPERIMENTS
from tests.runs import command

PATHS = ["runs/a b/best.ckpt", "runs/epoch=3/best.ckpt", "it's/[1].jpg", "in/(*).png", "a,b.jpg", "plain/x-1.ckpt",
         "~/coco", "Fotos/Grün", "/home/josé/写真", "[1].jpg", "'tis", "choice(a,b)", r"C:\Fotos\a", r"C:\My Fotos\ü\\",
         "2024", "-1", "1e3", "2026.01", "1_0", ".5", "nan", "true", "False", "007", "${seed}/é"]  # fmt: skip


@pytest.mark.parametrize("value", PATHS)
def test_a_path_reaches_the_program_as_it_was_typed(value):
    argument = quoted(f"checkpoint={value}")
    override = OverridesParser.create().parse_override(argument)
    assert override.value() == value
    assert isinstance(override.value(), str)
    assert quoted(argument) == argument  # as of another rank, which Lightning gives what this one made of its words
    assert unquoted(argument.partition("=")[2]) == value


NAMES = ["name", "split", "data.root", "data.val.images", "model.backbone.weights", "hydra.sweep.dir", "sweep.resume"]


@pytest.mark.parametrize("key", [*NAMES, "++data.train.annotations"])
def test_what_names_a_folder_is_no_number(key):
    assert OverridesParser.create().parse_override(quoted(f"{key}=2017")).value() == "2017"


@pytest.mark.parametrize("value", ["null", "plain/x-1.ckpt", "'a b'", '"a b"', "[a,b]", "{a: 1}", "${seed}"])
def test_what_is_read_as_typed_is_left_alone(value):
    assert quoted(f"checkpoint={value}") == f"checkpoint={value}"


OTHERS = ["seed=1,2,3", "data.batch_size=2", "optim.lr=.5", "object=1", "score_threshold=0", "data.flip=true",
          "data.short_side=[64,96]", "checkpoint='a b'", "optim.lr=1e-3", "data.batch_size=2,4",
          "data.copy_paste=null,{probability: 0.5}", "data.short_side=choice(64,96)"]  # fmt: skip


@pytest.mark.parametrize("argument", OTHERS)
def test_other_arguments_are_left_alone(argument):
    assert quoted(argument) == argument


@pytest.mark.parametrize("value", ["a.json,b.json", "choice(a.json,b.json)"])
def test_a_sweep_may_go_over_paths(value):
    argument = f"data.train.annotations={value}"
    assert quoted(argument, sweeps=True) == argument
    assert OverridesParser.create().parse_override(quoted(argument)).value() == value


def test_a_sweep_goes_over_any_paths():
    override = OverridesParser.create().parse_override(quoted("data.val.images=2016, Grün,~/b,null", sweeps=True))
    assert override.is_sweep_override()
    assert list(override.sweep_string_iterator()) == ["'2016'", "'Grün'", "'~/b'", "null"]


def test_the_home_folder_is_meant_where_no_shell_has_expanded_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of mine")
    monkeypatch.setattr(sys, "argv", ["train", "output_dir=~/x", "hydra.sweep.dir=~/ü", "sweep.resume=~/z", "seed=~1"])
    run_command(lambda: None)
    home = "/home/of mine"
    assert sys.argv[1:] == [
        f"output_dir={home}/x", f"hydra.sweep.dir='{home}/ü'", f"sweep.resume={home}/z", "seed=~1"
    ]  # fmt: skip


def test_a_run_that_is_refused_leaves_no_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGGMASK_RUN_STAMP", "now")
    wrong = ["experiment=demo", "model.aggregation.window=7"]
    folder = tmp_path / "runs" / "demo" / "now"
    status, said = command(monkeypatch, capsys, train, *wrong)
    assert status == 2, said
    assert folder.parent.is_dir()
    assert not folder.exists()
    for kept in ("mine.txt", "run.lock"):  # somebody's file; another process
        folder.mkdir()
        (folder / kept).write_text("process 1 on another machine")
        assert command(monkeypatch, capsys, train, *wrong)[0] == 2
        assert (folder / kept).is_file()
        shutil.rmtree(folder)
    assert command(monkeypatch, capsys, train, *wrong, f"output_dir={folder}")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["say which experiment", "experiment=solo_r101_agg", "experiment=demo"]),
        (["--multirun", "+sweep=window"], ["say which experiment", "experiment=demo"]),
        (["experiment=solo_r1001"], ["experiment=solo_r1001", "solo_r101_agg", "demo"]),
        (["experiment=demo", "model.aggregation.windoww=5"], ["model.aggregation.windoww", "did you mean 'window'"]),
        (["experiment=demo", "model/aggregation=dynamics"], ["model/aggregation", "dynamic", "none"]),
        (
            ["experiment=demo", "model.aggregation.window=7"],
            ["model.aggregation.window=7: must be 1 or 4 or 5 or"],
        ),
        (["experiment=demo", "+model.levels.1.mask_grid=99"], ["level 1: mask grid 99 is larger than category grid"]),
        (["experiment=demo", "model.backbone.name=resnet1O1"], ["model.backbone.name=resnet1O1", "resnet101"]),
        (["experiment=demo", "model.backbone.weights=no.pth"], ["model.backbone.weights=no.pth", "no such file"]),
        (["experiment=demo", "model.interpolation.stride=0"], ["model.interpolation.stride=0"]),
        (["experiment=demo", "seed=1", "seed="], ["seed"]),
        (["experiment=solo_r50", "data.root=nowhere"], ["nowhere", "instances_train2017.json", "experiment=demo"]),
    ],
)
def test_a_mistake_ends_in_one_readable_message(arguments, expected, monkeypatch, capsys, tmp_path):
    place = [f"hydra.run.dir={tmp_path}/run"] if arguments else []
    if "experiment=demo" in arguments:
        place.append(f"data.root={tmp_path}/shapes")
        place += ["data.prepare.train_images=2", "data.prepare.val_images=2"]
    status, said = command(monkeypatch, capsys, train, *arguments, *place)
    assert status == 2
    for words in expected:
        assert words in said
    assert "Traceback" not in said
    assert "Error executing job" not in said  # Hydra's own line
    assert len(said.splitlines()) < 10 + len(EXPERIMENTS)  # some messages list them


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        (evaluate, ["checkpoint=nowhere.ckpt"], "checkpoint=nowhere.ckpt: there is no such file"),
        (evaluate, [], "say checkpoint=..."),
        (predict, ["checkpoint=x"], "say source=..."),
        (predict, ["checkpoint=nowhere.ckpt", "source=nowhere", "output=out"], "source=nowhere"),
        (predict, ["checkpoint=x", "source=x", "outputs=out"], "did you mean 'output'"),
    ],
)
def test_mistakes_of_the_other_commands(module, arguments, expected, monkeypatch, capsys):
    status, said = command(monkeypatch, capsys, module, *arguments)
    assert status == 2
    assert said.startswith("aggmask: ")
    assert expected in said
    assert "Traceback" not in said


@pytest.mark.parametrize("said", ["InductorError: InvalidCxxCompiler: No", "Failed to find C compiler. Please"])
def test_a_missing_compiler_is_named(said, monkeypatch, capsys):
    def fails():
        raise RuntimeError(said)

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit):
        run_command(fails)
    assert "model.compile=inductor needs a compiler" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    """Importing torch takes seconds."""
    code = (
        "import sys; sys.argv[1:] = ['--help']; from aggmask import train\ntry: train.main()\nexcept SystemExit: pass\n"
    )
    code += "print('torch imported:', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert "experiment" in done.stdout
    assert "torch imported: False" in done.stdout
