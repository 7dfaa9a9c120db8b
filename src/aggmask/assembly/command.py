"""How every command starts and ends: paths may be typed as they are, mistakes end in one readable message."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from aggmask.assembly.checking import check
from aggmask.assembly.config import conf_dir
from aggmask.assembly.explain import explain
from aggmask.checkpoints.run_folder import LOCK, worker
from aggmask.data.processors import global_rank
from aggmask.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PATHS = re.compile(  # and names of folders
    r"\+{0,2}((?:checkpoint|source|output|output_dir|resume|image|figure|fix|html|name|split|model\.backbone\.weights|"
    r"sweep\.resume|hydra\.(?:run|sweep)\.dir|data\.(?:root|cache_dir|(?:train|val)\.(?:annotations|images)))=)(.+)",
    re.DOTALL,
)
_FOLDERS = ("output_dir", "hydra.run.dir", "hydra.sweep.dir", "sweep.resume")  # that Hydra makes
_SEVERAL = re.compile(r".*,.*|(?:choice|range|interval|glob|shuffle|sort)\(.*\)", re.DOTALL)  # values of a sweep


def hydra_task(command: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """`hydra.main` of a function that takes a configuration, composed from `conf/<command>.yaml`, and checked first.

    A user's mistake ends it as in `run_command`, but for jobs of a multirun, whose errors are their launcher's.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        @wraps(task)
        def checked(cfg: DictConfig) -> Any:
            try:
                check(cfg, command)
                return task(cfg)
            except Exception as error:
                # Once it is Hydra's, a line of its own comes before the message. Of several jobs the launcher wants it.
                if HydraConfig.get().mode != RunMode.MULTIRUN:
                    _end(error, _forget_refused)
                raise

        return hydra.main(version_base="1.3", config_path=conf_dir(), config_name=command)(checked)

    return decorate


def run_command(main: Callable[[], None], open_nodes: Sequence[str] = ()) -> None:
    """Run a Hydra main function; a user's mistake is printed and ends it with 2 (Ctrl-C: 130), without a traceback.

    Args:
        main: reads `sys.argv`.
        open_nodes: nodes of the configuration that take keys which are not in it yet.
    """
    # Hydra's parser wants its flags before all overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("--multirun", "-m"))
    added = tuple(f"{node}." for node in open_nodes)
    sweeps = any(a in ("--multirun", "-m") or a.startswith("sweep.resume=") for a in sys.argv[1:])
    arguments = [quoted(_at_home(argument), sweeps) for argument in sys.argv[1:]]
    sys.argv[1:] = [f"++{a}" if added and a.startswith(added) else a for a in arguments]
    # Threads of OpenMP wait for each other in a loop; where other programs run too, a short loop is 3 to 10 times
    # faster, and alone as fast (measured on two cores, before torch is imported or it has no effect).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra would print the exception and exit by itself
    try:
        main()
    except KeyboardInterrupt:
        print("aggmask: ended by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _end(error)
        raise


def _end(error: Exception, before: Callable[[], None] = lambda: None) -> None:
    """Print what a user can do about an error, and exit; come back where it is a fault of the program."""
    message = explain(error)
    if message is not None:
        print(f"aggmask: {message}", file=sys.stderr)
        before()
        sys.exit(error.status if isinstance(error, UserError) else 2)


def _forget_refused() -> None:
    """Remove the folder that was made for a run which then never began.

    Not one that the user named, nor one that holds anything else, or that another process may be at work in.
    """
    hydra_config = HydraConfig.get()
    folder, log = Path(hydra_config.runtime.output_dir), f"{hydra_config.job.name}.log"
    lock, said = folder / LOCK, folder / ".hydra" / "overrides.yaml"
    named = any(argument.startswith(("output_dir=", "hydra.run.dir=")) for argument in sys.argv[1:])
    if global_rank() or named or not said.is_file():
        return
    if not {file.name for file in folder.iterdir()} <= {".hydra", log, lock.name}:
        return
    if lock.is_file() and lock.read_text() != worker():  # another process's, or not held yet
        return
    if OmegaConf.load(said) == hydra_config.overrides.task:
        shutil.rmtree(folder, ignore_errors=True)


def _at_home(argument: str) -> str:
    """`output_dir=~/x`, which not every shell expands; of other keys their readers do it."""
    key, equals, value = argument.partition("=")
    return f"{key}{equals}{os.path.expanduser(value)}" if key.lstrip("+") in _FOLDERS else argument


def quoted(argument: str, sweeps: bool = False) -> str:
    """An override whose value is a path, quoted where Hydra would not read it as the words that were typed.

    It stumbles over =, brackets, ~ and all letters but English ones, and takes a folder 2024 for a number.

    Args:
        sweeps: whether a comma stands between two values; else it is part of a path.
    """
    match = _PATHS.fullmatch(argument)
    if not match:
        return argument
    value = match[2]
    if not (sweeps and _SEVERAL.fullmatch(value)):
        return argument[: match.start(2)] + _as_words(value)
    if re.search(r"[(\[{'\"]", value):
        return argument
    return argument[: match.start(2)] + ",".join(map(_as_words, re.split(r"\s*,\s*", value)))


def _as_words(value: str) -> str:
    """A value, quoted where it is neither read as typed, nor in quotes already, nor null, a list or a mapping."""
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        stays = False
    else:
        in_quotes = isinstance(read, str) and value[0] in "'\""
        stays = read == value or in_quotes or read is None or isinstance(read, list | dict)
    return value if stays else QuotedString(value, Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """The path that `quoted` made a value of."""
    return OverridesParser.create().parse_override(f"key={value}").value() if value.startswith("'") else value
