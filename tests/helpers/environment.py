"""What must be set before torch is imported and before a test starts a program: imported first, by conftest.py."""

from __future__ import annotations

import os

from helpers import ROOT

# One thread a process: with -n each process has a core, and threads that wait for each other on a busy machine made
# small trainings fifteen times slower (measured).
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Programs that tests start run the code of this checkout too, wherever the package is installed from.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
