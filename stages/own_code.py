"""Imported first by every stage: its code is that of the project it lies in.

The package is installed from one checkout, but `dvc exp run --queue` and `--temp` run copies of a project, each with
the code of its commit. Processes that a stage starts inherit the path.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("pydantic") is None or find_spec("torch") is None:  # DVC runs the `python` of PATH, whoever started DVC
    sys.exit(
        f"{sys.executable} is not the Python in which this project is installed. Activate its environment, then run "
        "dvc again: . .venv/bin/activate"
    )

SOURCE = str(Path(__file__).resolve().parents[1] / "src")

sys.path.insert(0, SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))

import specmaskfoley  # noqa: E402, F401  before a stage imports torch
