"""One-stage instance segmentation with learned aggregation of neighboring mask representations.

In Python: `model = aggmask.load(checkpoint)`, `found = model.predict(images)`, `aggmask.draw(image, found[0])`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aggmask.assembly.build import load
    from aggmask.drawing.overlay import draw

__version__ = "0.1.0"
__all__ = ["draw", "load"]

_HOMES = {"load": "aggmask.assembly.build", "draw": "aggmask.drawing.overlay"}


def __getattr__(name: str) -> Any:
    # On first use: importing torch takes seconds, which `--help` need not wait for.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'aggmask' has no attribute '{name}'")
