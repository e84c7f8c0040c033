"""SpecMaskFoley: a frozen masked spectrogram transformer, steered by video through one ControlNet branch.

Importing the package prepares the process, be it a command, a stage or a worker.
"""

import ctypes
import os
import sys

__version__ = "0.1.0"

# OpenMP reads this once, when torch loads it. Otherwise its threads spin while they wait for each other, and take the
# cores from whatever else runs: on two busy cores a training step of the mini backbone then took 1.2 to 2.6 s, with
# sleeping threads 0.4 to 0.5 s, to the same weights (docs/training.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Arrays of many megabytes come and go at every batch. glibc would give each back to the system, which clears its pages
# again for the next: a third of the processor time of stage features (docs/scale.md). It keeps up to 1 GiB instead.
if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
    # M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD -1. Older versions allow 32 MiB for the first at most.
    for option, size in ((-3, 1 << 25), (-3, 1 << 30), (-1, 1 << 30)):
        mallopt(option, size)
