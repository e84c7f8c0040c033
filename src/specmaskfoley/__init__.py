"""SpecMaskFoley: a frozen masked spectrogram transformer, steered by video through one ControlNet branch.

Importing the package prepares the process, be it a command, a stage or a worker.
"""

import os

__version__ = "0.1.0"

# OpenMP reads this once, when torch loads it. Otherwise its threads spin while they wait for each other, and take the
# cores from whatever else runs: on two busy cores a training step of the mini backbone then took 1.2 to 2.6 s, with
# sleeping threads 0.4 to 0.5 s, to the same weights (docs/training.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
