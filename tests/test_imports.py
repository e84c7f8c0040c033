"""What a stage imports before it does anything: nothing that takes long and that it may not need."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import ROOT

from specmaskfoley import lineage

NEVER = {
    "mlflow", "pandas", "scipy", "torchvision", "transformers", "open_clip", "laion_clap", "hear21passt", "ray",
    "sympy", "torch._dynamo", "torch._inductor", "matplotlib.pyplot", "sklearn", "numba", "librosa", "soundfile",
}  # fmt: skip
PICTURES = {"matplotlib"}
TORCH = {"torch", "torchaudio", "accelerate", "safetensors"}
PARQUET = {"pyarrow.dataset", "pyarrow.compute"}

MAY = {
    "backbone": PICTURES | TORCH,
    "control": PICTURES | TORCH,
    "evaluate": PICTURES | TORCH | PARQUET | {"pandas"},
    "report": PICTURES,
    **dict.fromkeys(("audio", "codec", "encoders", "features", "judges", "sample", "tokens"), TORCH),
}
"""What takes long and a stage imports all the same; of NEVER and the sets above."""

STAGES = ("lineage", *lineage.stages())


def modules(program: str) -> set[str]:
    """What a fresh interpreter in the folder of the stages has imported after `program`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT / "stages",
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """Stage -> the modules that its script imports."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(STAGES, pool.map(lambda stage: modules(f"import {stage}"), STAGES), strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_what_it_needs(stage: str, imported: dict[str, set[str]]) -> None:
    heavy = imported[stage] & (NEVER | PICTURES | TORCH | PARQUET)
    assert heavy <= MAY.get(stage, set())


def test_the_sets_say_what_is_imported(imported: dict[str, set[str]]) -> None:
    """Or the test above forbids names that nobody has."""
    assert imported["backbone"] >= TORCH | PICTURES


def test_a_stage_looks_for_no_garbage_in_its_imports() -> None:
    """They make a million objects, which all stay. A program that imports a stage as a module decides for itself."""
    told = (
        "import atexit, gc, runpy, sys; sys.argv = ['report.py', '--help']; sys.path.insert(0, '.')\n"
        "before = gc.get_stats()[1]['collections']\n"
        "atexit.register(lambda: print(gc.isenabled(), gc.get_stats()[1]['collections'] - before < 5))\n"
    )
    for program, found in (
        ("runpy.run_path('report.py', run_name='__main__')", "True True"),
        ("import report", "True False"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", told + program], cwd=ROOT / "stages", capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == found


def test_tables_are_written_without_pandas(tmp_path: Path) -> None:
    table = f"write_table({str(tmp_path / 'x.parquet')!r}, [], CLIP_LIST_SCHEMA)"
    assert "pandas" not in modules(f"from specmaskfoley.storage.tables import *; {table}")
