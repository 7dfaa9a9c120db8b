"""Jobs -> variants: runs whose configurations are equal but for the seed, named by what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aggmask.errors import UserError
from aggmask.reporting.runs import FINISHED, Run

_NOT_A_VARIANT = {"seed", "data.seed", "resume", "name", "output_dir", "logger"}
_NOR_BELOW = ("sweep.", "logger.")  # W&B's group is the sweep's name


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but the seed."""

    label: str  # short, one of its kind
    settings: tuple[str, ...]  # key=value that not all variants have, in full
    runs: list[Run]

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.state == FINISHED]


def group(runs: Sequence[Run]) -> list[Variant]:
    """Variants in the order of their first runs.

    Jobs that left no configuration are told apart by their overrides. Where the overrides are equal, a key that only
    one of two configurations has tells nothing: a newer version, in which a sweep went on, has more keys.
    """
    alike = {frozenset(_typed(run)): _identity(run) for run in runs if run.config}
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        identity = _identity(run) if run.config else alike.get(frozenset(_typed(run)), _identity(run))
        if identity not in kinds:
            kinds[identity] = next((members for members in kinds.values() if _newer_or_older(members[0], run)), [])
        kinds[identity].append(run)
    groups = list({id(members): members for members in kinds.values()}.values())
    first = [next((run for run in members if run.config), members[0]) for members in groups]
    settings = _differences([_typed(run) for run in first])
    if len({frozenset(own) for own in settings}) < len(groups):  # nobody wrote down what was typed, or too little was
        settings = _differences([_flat_settings(run) if run.config else _typed(run) for run in first])
    labels = [" ".join(map(_short(settings), own)) or "as configured" for own in settings]
    return [Variant(*parts) for parts in zip(_distinct(labels), map(tuple, settings), groups, strict=True)]


def choose(variants: Sequence[Variant], name: str | None) -> Variant:
    """The variant that a name means: its label, one of its settings, a run of it, or a part of one label only.

    Raises:
        UserError: it means none or several; lists what there is.
    """
    if name is None:
        return variants[0]
    exact = [v for v in variants if name == v.label or name in v.settings or name in [run.name for run in v.runs]]
    found = exact or [v for v in variants if name in v.label]
    if len(found) == 1:
        return found[0]
    there = "".join(f"\n  baseline='{variant.label}'" for variant in variants)
    count = "several variants" if found else "no finished variant"
    raise UserError(f"baseline={name}: {count} with this name; there are:{there}")


def _typed(run: Run) -> list[str]:
    """Overrides, those of the seed, of loggers and of the sweep itself apart."""
    return [
        text
        for text in (override.lstrip("+") for override in run.overrides)
        if text.partition("=")[0] not in _NOT_A_VARIANT and not text.startswith((*_NOR_BELOW, "hydra"))
    ]


def _identity(run: Run) -> str:
    return json.dumps(_settings(run) if run.config else sorted(_typed(run)), sort_keys=True, default=str)


def _newer_or_older(one: Run, other: Run) -> bool:
    """Whether two runs were asked for alike, and differ only in keys that one of them does not know."""
    written_down = one.overrides and other.overrides and one.config and other.config
    if not written_down or sorted(_typed(one)) != sorted(_typed(other)):
        return False
    a, b = _settings(one), _settings(other)
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def _flat_settings(run: Run) -> list[str]:
    return [f"{key}={value}" for key, value in _settings(run).items()]


def _settings(run: Run) -> dict[str, Any]:
    """Flat configuration of a run, without its seed, its folder and its loggers."""
    settings = flat(run.config)
    folder = str(settings.get("output_dir", ""))
    return {
        key: value.replace(folder, ".") if folder and isinstance(value, str) else value
        for key, value in settings.items()
        if key not in _NOT_A_VARIANT and not key.startswith(_NOR_BELOW)
    }


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by dotted keys."""
    return dict(_flat(config, ""))


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _differences(settings: Sequence[list[str]]) -> list[list[str]]:
    """Of each list what not all have."""
    shared = set.intersection(*map(set, settings))
    return [[text for text in own if text not in shared] for own in settings]


def _short(settings: Sequence[list[str]]) -> Any:
    """A function that leaves of each key the last words that no other key ends with."""
    keys = {text.partition("=")[0] for own in settings for text in own}

    def ending(key: str, words: int) -> str:
        return ".".join(key.replace("/", ".").split(".")[-words:])

    def short(text: str) -> str:
        key, equals, value = text.partition("=")
        length = key.replace("/", ".").count(".") + 1
        enough = (n for n in range(1, length) if [ending(k, n) for k in keys].count(ending(key, n)) == 1)
        return f"{ending(key, next(enough, length))}{equals}{value}"

    return short


def _distinct(labels: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    distinct = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        distinct.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return distinct
