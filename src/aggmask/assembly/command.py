"""How every command starts and ends: paths may be typed as they are, mistakes end in one readable message."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence

from aggmask.assembly.config import suggest
from aggmask.errors import UserError

_PATHS = re.compile(r"\+{0,2}((?:checkpoint|source|output|data\.[\w.]+|model\.backbone\.weights)=)(.+)", re.DOTALL)
_PLAIN = re.compile(r"[\w./\\:~+-]*|[\[{'\"$].*", re.DOTALL)  # what Hydra reads as it stands


def run_command(main: Callable[[], None], open_nodes: Sequence[str] = ()) -> None:
    """Run a Hydra main function; a user's mistake is printed and exits with 2, without a traceback.

    Args:
        main: reads `sys.argv`.
        open_nodes: nodes of the configuration that take keys which are not in it yet.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    added = tuple(f"{node}." for node in open_nodes)
    sys.argv[1:] = [f"++{a}" if added and a.startswith(added) else a for a in map(quoted, sys.argv[1:])]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # or Hydra would print the exception and exit by itself
    try:
        main()
    except UserError as error:
        message = str(error)
    except (HydraException, OmegaConfBaseException) as error:
        mistake = _cause(error, UserError)
        if mistake is None and "Error in call to target" in str(error):
            raise  # a fault of the program, not of the configuration
        message = str(mistake) if mistake else _readable(error)
    else:
        return
    print(f"aggmask: {message}", file=sys.stderr)
    sys.exit(2)


def quoted(argument: str) -> str:
    """An override whose value is a path, quoted where Hydra's grammar would stumble over it (spaces, =, brackets)."""
    match = _PATHS.fullmatch(argument)
    if not match or _PLAIN.fullmatch(match[2]):
        return argument
    value = match[2].replace("\\", "\\\\").replace("'", "\\'")
    return f"{argument[: match.start(2)]}'{value}'"


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _readable(error: Exception) -> str:
    """Hydra's own message, with the valid keys where a key is unknown."""
    unknown = _cause(error, AttributeError) or _cause(error, KeyError)
    node, key = getattr(unknown, "parent_node", None), getattr(unknown, "key", None)
    if node is not None and key is not None and "is not in struct" in str(unknown):
        return f"{unknown.full_key}: there is no such key{suggest(str(key), map(str, node))}"
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None and str(error.__cause__) not in str(error):
        lines.append(str(error.__cause__).splitlines()[0])
    return "\n".join(line for line in lines if "HYDRA_FULL_ERROR" not in line and "Set the environment" not in line)
