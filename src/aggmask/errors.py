"""What a person can mend. Apart from `structures`, so that a message need not wait for torch to be imported."""


class UserError(Exception):
    """A mistake that a person can mend: the message says what was wrong, where, and what to do.

    Commands print the message alone, without a traceback.
    """
