"""Imported first by every stage: its code is that of the project it lies in.

The package is installed from one checkout, but `dvc exp run --queue` and `--temp` run copies of a project, each with
the code of its commit. Processes that a stage starts inherit the path.
"""

import os
import sys
from pathlib import Path

SOURCE = str(Path(__file__).resolve().parents[1] / "src")

sys.path.insert(0, SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))
