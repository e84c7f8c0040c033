"""A decoder that some files crash, hang or fill up; here, and not in a test, since worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from specmaskfoley.clips.inspection import Demands, inspect_clip


def misbehave(path: str, *, demands: Demands) -> dict[str, Any]:
    """Inspect a clip, unless its name asks for a fault."""
    name = os.path.basename(path)
    if name == "crash.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang.mp4":
        time.sleep(1e6)
    if name == "memory.mp4":
        np.ones(1 << 40, np.uint8)
    return inspect_clip(path, demands=demands)
