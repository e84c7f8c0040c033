"""DVC does not see Python imports: the code each stage lists as dependencies must be what it really imports."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# What a stage says about itself, never what it computes: changing these need not train anything again.
WATCHERS = {
    "src/specmaskfoley/tracking.py",
    "src/specmaskfoley/sampling/listening.py",
    "src/specmaskfoley/__init__.py",
}


def imported_files(script: Path) -> set[str]:
    """Every file of the package that a script imports, directly or not, relative to the repository."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        for module in _modules(ast.parse(todo.pop().read_text(encoding="utf-8"))):
            parts = module.split(".")
            for length in range(1, len(parts) + 1):
                base = SOURCE.joinpath(*parts[:length])
                for file in (base.with_suffix(".py"), base / "__init__.py"):
                    if file.exists() and file not in found:
                        found.add(file)
                        todo += [] if str(file.relative_to(ROOT)) in WATCHERS else [file]
    return {str(file.relative_to(ROOT)) for file in found if file.read_text(encoding="utf-8").strip()}


def _modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("specmaskfoley")}


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_real_imports(stage):
    script = next(dep for dep in STAGES[stage]["deps"] if str(dep).startswith("stages/"))
    listed = {dep for dep in STAGES[stage]["deps"] if str(dep).startswith("src/")}
    needed = imported_files(ROOT / script) - WATCHERS
    covered = {file for file in needed if any(file == dep or file.startswith(dep.rstrip("/") + "/") for dep in listed)}
    assert needed - covered == set(), f"add to deps of {stage} in dvc.yaml"
    idle = {dep for dep in listed if not any(f == dep or f.startswith(dep.rstrip("/") + "/") for f in needed)}
    assert idle == set(), f"{stage} does not import these any more"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_script(stage):
    assert STAGES[stage]["cmd"] == f"python stages/{stage}.py"
    assert f"stages/{stage}.py" in STAGES[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_first_makes_sure_whose_code_it_runs(stage):
    lines = (ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    ours = [number for number, line in enumerate(imports) if "specmaskfoley" in line]
    assert any(line.startswith("import own_code") for line in imports[: ours[0]])


def test_a_copy_runs_its_own_code(tmp_path):
    """What `dvc exp run --queue` does: the package is installed from elsewhere."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    shutil.copytree(SOURCE, tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    (tmp_path / "src" / "specmaskfoley" / "config.py").write_text("raise SystemExit('the code of the copy')\n")
    done = subprocess.run(
        [sys.executable, "stages/prepare.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert "the code of the copy" in done.stderr
