"""benchmarks/first_gpu_hour.py in tiny sizes on the CPU: every part says something, whatever happens to others."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import ROOT

from specmaskfoley.settings import Params

SCRIPT = ROOT / "benchmarks" / "first_gpu_hour.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def table(*options: str, **environment: str) -> list[list[str]]:
    """Part, what was measured, and result of every row."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", *options], env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert lines[:2] == ["| part | measured | result |", "| --- | --- | --- |"]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@pytest.mark.slow  # six processes that import torch
def test_every_part_gives_rows_and_one_that_fails_hides_no_other(script: ModuleType):
    rows = table(PATH=str(Path(sys.executable).parent))  # without git, which the last part needs
    assert list(dict.fromkeys(part for part, _, _ in rows)) == list(script.PARTS)
    bad = [row for row in rows if "FAILED" in row[2]]
    assert len(bad) == 1
    assert bad[0][:2] == ["pipeline", "pipeline"]
    assert bad[0][2].startswith("FAILED: FileNotFoundError: ")
    assert "'git'" in bad[0][2]
    results = {(part, what): result for part, what, result in rows}
    assert results["tokens", "eager against reference, float32, batch 2"] == "100.00% of the tokens equal"
    assert results["ranks", "control, 2 processes, gloo, batch 4"].endswith("a step; weights agree")


@pytest.mark.slow  # stages in a clone
def test_the_pipeline_runs_in_a_clone():
    rows = table("--only", "pipeline")
    assert [what for _, what, _ in rows][:4] == [
        f"mini, stage {stage}" for stage in ("lineage", "fetch_weights", "clips", "prepare")
    ]
    assert not any("FAILED" in result for _, _, result in rows)


def test_a_part_ends_when_its_time_is_over(script: ModuleType):
    here = script.Here(Params.load(ROOT / "params.yaml"), torch.device("cpu"), tiny=True)
    assert script.run_part("tokens", here, 0.5) == [("tokens", "FAILED: not done after 0 s")]


def test_an_error_is_told_by_its_first_line(script: ModuleType):
    error = torch.OutOfMemoryError("CUDA out of memory | 20 MiB\nmore")
    assert script.failed(error) == r"FAILED: OutOfMemoryError: CUDA out of memory \| 20 MiB"
    assert script.failed(ValueError()) == "FAILED: ValueError: "
