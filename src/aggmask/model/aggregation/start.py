"""What representations start with (method.md section 4, initialisation)."""

from __future__ import annotations

from aggmask.errors import UserError
from aggmask.model.tower import PRIOR_BIAS

STARTS = {"published": PRIOR_BIAS, "zero": 0.0}


def start_of(init: str) -> float:
    """The bias of all representations.

    Raises:
        UserError: there is no such start.
    """
    if init not in STARTS:
        raise UserError(f"model.aggregation.init={init}: must be published or zero")
    return STARTS[init]
