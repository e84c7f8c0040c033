"""Imported first by every stage, and starts it: its code is that of the project it lies in.

The package is installed from one checkout, but `dvc exp run --queue` and `--temp` run copies of a project, each with
the code of its commit. Processes that a stage starts inherit the path.
"""

import gc
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

if find_spec("pydantic") is None or find_spec("torch") is None:  # DVC runs the `python` of PATH, whoever started DVC
    sys.exit(
        f"{sys.executable} is not the Python in which this project is installed. Activate its environment, then run "
        "dvc again: . .venv/bin/activate"
    )

# Nobody looks for garbage in what a stage imports: all of it stays, and looking takes a sixth of the time.
if Path(getattr(sys.modules["__main__"], "__file__", "")).resolve().parent == Path(__file__).resolve().parent:
    gc.disable()  # until `run`, so only where a stage is the program

SOURCE = str(Path(__file__).resolve().parents[1] / "src")

sys.path.insert(0, SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))

from specmaskfoley.device import stage_main  # noqa: E402  before a stage imports torch


def run(main: Callable[..., None]) -> None:
    """The stage as a program, once everything is imported."""
    gc.freeze()
    gc.enable()
    stage_main(main)()
