"""What is wrong with a configuration, before anything is built.

Hydra refuses an unknown key on the command line, but lets one through in a YAML file and behind a `+`. So every
`_target_` of a composed configuration is compared with the signature of what it names.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from aggmask.assembly.config import conf_dir
from aggmask.errors import UserError

_HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
# Read by this package and not by what the node names.
_OWN_KEYS = {"trainer": {"on_nan": typing.Literal["stop", "skip"], "on_oom": typing.Literal["split", "raise"]}}
_SIMPLE = (int, float, bool, str, type(None))


def check(cfg: DictConfig, command: str) -> None:
    """Look for keys that nothing reads and values of the wrong type, without building anything.

    Args:
        cfg: composed configuration.
        command: whose it is; `conf/<command>.yaml` says which keys there are at the top.

    Raises:
        UserError: names each key and what would be valid.
    """
    known = _known_keys(command)
    problems = [_unknown(str(key), "the configuration", known) for key in cfg if key not in known]
    problems += [
        f"say {key}=...; `python -m aggmask.{command} --help` shows how"
        for key in cfg
        if OmegaConf.is_missing(cfg, key)
    ]
    problems += _problems(cfg, "")
    problems += [
        f"{group}.{name}: nothing says what it is{_where_from(group, str(name), cfg[group])}"
        for group in ("callbacks", "logger")
        for name, node in (cfg.get(group) or {}).items()
        if OmegaConf.is_dict(node) and "_target_" not in node
    ]
    problems += sweep_problems(cfg)
    if problems:
        raise UserError("\n".join(problems))


def _where_from(group: str, name: str, there: DictConfig) -> str:
    if Path(conf_dir(), group, f"{name}.yaml").is_file():
        return f"; say {group}={name} too, and its keys without a +"
    return suggest(name, [str(key) for key in there if key != name])


def sweep_problems(cfg: DictConfig) -> list[str]:
    """Keys of `sweep` that nothing reads."""
    if not (given := cfg.get("sweep")):  # of most commands
        return []
    known = OmegaConf.load(Path(conf_dir(), "train.yaml")).sweep
    return [_unknown(f"sweep.{key}", "a sweep", known) for key in given if key not in known]


def check_part(node: Mapping[str, Any], where: str) -> None:
    """The same for numbers and words of one part of a configuration, as checkpoints hold it.

    Raises:
        UserError: see `check`.
    """
    plain_values = {
        key: value
        for key, value in node.items()
        if isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)
    }
    if problems := list(_problems(OmegaConf.create(plain_values), where)):
        raise UserError("\n".join(problems))


def check_score(threshold: Any) -> None:
    """Refuse a `score_threshold` that no score could be compared with.

    Raises:
        UserError: it is no number from 0 to 1.
    """
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UserError(f"score_threshold={threshold}: must be from 0 to 1")


def _known_keys(command: str) -> set[str]:
    """The keys at the top of `conf/<command>.yaml`, with those of the commands that it starts from."""
    primary = OmegaConf.load(Path(conf_dir(), f"{command}.yaml"))
    known = {str(key) for key in primary} - {"defaults", "hydra"}
    for entry in primary.get("defaults", []):
        if isinstance(entry, DictConfig):
            known.add(str(next(iter(entry))))
        elif entry != "_self_":
            known |= _known_keys(entry)
    return known - {"hydra"}


def _problems(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, ListConfig):
        for number in range(len(node)):
            yield from _problems(node._get_node(number), f"{path}[{number}]")
        return
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    if "_target_" in node:
        yield from _signature_problems(node, path)
    for key in node:
        yield from _problems(node._get_node(key), f"{path}.{key}" if path else str(key))


def _signature_problems(node: DictConfig, path: str) -> Iterator[str]:
    target = node["_target_"]
    try:
        called = get_object(target)
    except Exception as error:
        yield f"{path}._target_: cannot import '{target}' ({error})"
        return
    parameters = inspect.signature(called).parameters
    free = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    own = _OWN_KEYS.get(path, {})
    parameters, hints = {**parameters, **own}, {**_hints(called), **own}
    for key in node:
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters and not free:
            yield _unknown(f"{path}.{key}" if path else str(key), target, parameters)
        elif key in hints and not OmegaConf.is_config(value := node[key]) and not _fits(value, hints[key]):
            yield f"{path}.{key}={value}: must be {_readable(hints[key])}"


def _unknown(path: str, owner: str, known: typing.Iterable[str]) -> str:
    return f"{path}: {owner} has no such key{suggest(path.rpartition('.')[2], known)}"


def suggest(name: str, known: typing.Iterable[str]) -> str:
    """'; did you mean ...?' where something is close, else all that would be valid."""
    known = sorted(set(known) - {"self"})
    close = difflib.get_close_matches(name, known, 1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; valid: {', '.join(known)}"


def _hints(called: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(called.__init__ if inspect.isclass(called) else called)
    except Exception:  # hints of other libraries may name what is not importable
        return {}


def _alternatives(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [inner for part in typing.get_args(hint) for inner in _alternatives(part)]
    return [hint]


def _fits(value: Any, hint: Any) -> bool:
    """False only where a plain value certainly does not fit a plain hint."""
    for part in _alternatives(hint):
        if typing.get_origin(part) is typing.Literal:
            fits = value in typing.get_args(part)
        elif part not in _SIMPLE:
            fits = True
        elif isinstance(value, bool) or part is bool:
            fits = part is bool and isinstance(value, bool)
        else:
            fits = isinstance(value, (int, float) if part is float else part)
        if fits:
            return True
    return False


def _readable(hint: Any) -> str:
    names = []
    for part in _alternatives(hint):
        if typing.get_origin(part) is typing.Literal:
            names += map(str, typing.get_args(part))
        else:
            names.append("null" if part is type(None) else getattr(part, "__name__", str(part)))
    return " or ".join(names)
