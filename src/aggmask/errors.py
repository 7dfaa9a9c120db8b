"""What a person can mend. Apart from `structures`, so that a message need not wait for torch to be imported."""

from collections.abc import Iterable


class UserError(Exception):
    """A mistake that a person can mend: the message says what was wrong, where, and what to do.

    Commands print the message alone, without a traceback, and end with `status`.
    """

    status = 2


class MachineFault(UserError):
    """The machine did not give or take what was asked for, which says nothing of what is in a file."""


class Stopped(UserError):
    """Ctrl-C has ended it, as was asked for; the message says how it goes on."""

    status = 130


def listed(values: Iterable[object], most: int = 8) -> str:
    """The first few of them, and how many more there are."""
    texts = [str(value) for value in values]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
