"""Sound for one's own video: load, generate, save.

foley = Foley.load("params.yaml")
take = foley.generate("clip.mp4", text="hammering nail")[0]
take.save("out/clip")
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specmaskfoley.foley.inpainting import Progress, Stopped
    from specmaskfoley.foley.system import Foley
    from specmaskfoley.foley.takes import Saved, Take

__all__ = ["Foley", "Progress", "Saved", "Stopped", "Take"]

_HOMES = {"Foley": "system", "Progress": "inpainting", "Saved": "takes", "Stopped": "inpainting", "Take": "takes"}


def __getattr__(name: str) -> Any:
    """Found when first asked for: torch takes seconds, and records and names of files do not need it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(f"{__name__}.{_HOMES[name]}:{name}")
