"""The graph: each stage runs its own script with its own code, and depends on its line of the lineage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from helpers import ROOT

from specmaskfoley import lineage

SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_stages_are_those_that_have_a_script():
    assert sorted(STAGES) == sorted([*lineage.stages(), "lineage"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_script_hides_no_module_of_the_standard_library(stage):
    """Python looks beside a script first: torch would import ours in place of, say, `code`."""
    assert stage not in sys.stdlib_module_names


@pytest.mark.parametrize("stage", lineage.stages())
def test_a_stage_depends_on_what_it_can_reach(stage):
    assert STAGES[stage]["deps"][0] == f"${{paths.code}}/{stage}.txt"
    assert not [dep for dep in STAGES[stage]["deps"] if str(dep).startswith(("src", "stages"))]


@pytest.mark.parametrize("profile", ["mini", "vggsound", "vggsound_small", "magnet", "mini_1d"])
def test_the_code_depends_on_every_setting_that_chooses_some(profile):
    listed = {name.replace("${profile}", profile) for name in STAGES["lineage"]["params"]}
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["profiles"] = {profile: raw["profiles"][profile]}
    vocoder = f"profiles.{profile}.vocoder"  # as a whole, for it may be null
    choosing = {vocoder if name == f"{vocoder}.kind" else name for name in choosers(raw)}
    assert {*choosing, vocoder, "run.device"} == listed  # the device is checked before anything is removed


def choosers(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from choosers(value, f"{prefix}{name}.")
        elif name in lineage.CHOOSERS:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_script(stage):
    assert STAGES[stage]["cmd"] == f"python stages/{stage}.py"


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
    settings = tmp_path / "src" / "specmaskfoley" / "settings"
    (settings / "__init__.py").write_text("raise SystemExit('the code of the copy')\n")
    done = subprocess.run(
        [sys.executable, "stages/prepare.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert "the code of the copy" in done.stderr


def test_a_clone_has_the_same_bytes_whatever_git_does_to_line_ends(tmp_path):
    """DVC compares bytes: with other line ends, nothing that was made elsewhere could be reused."""
    work, clone = tmp_path / "work", tmp_path / "clone"
    shutil.copytree(ROOT / "src", work / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(ROOT / "data" / "code", work / "data" / "code")
    for name in (".gitattributes", "params.yaml", "dvc.yaml", "weights.lock.yaml"):
        shutil.copy(ROOT / name, work / name)
    shutil.copy(ROOT / "tests" / "golden" / "vggish.npz", work)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=true"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"], ["clone", "-q", ".", str(clone)]):
        subprocess.run([*git, *command], cwd=work, check=True, capture_output=True)
    files = [path for path in work.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 100
    assert [path for path in files if (clone / path.relative_to(work)).read_bytes() != path.read_bytes()] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_python_without_the_packages_is_told_in_one_line(stage):
    """`.venv/bin/dvc repro` without an activated environment runs whatever `python` there is."""
    bare = [sys.executable, "-S", f"stages/{stage}.py"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(bare, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{sys.executable} is not the Python in which this project is installed")
    assert ". .venv/bin/activate" in line


@pytest.mark.parametrize(
    "override",
    [
        "cfg.scale=2",
        "cfg.mode=text",
        "seed=1",
        "profile=vggsound",
        "data.folder=/where/my videos/are",
        "data.limit=100",
        "profiles.mini.train_backbone.optim.steps=700",
        "profiles.mini.cfg.scale=2.5",
        "profiles.vggsound.audio.fmin=1e-5",
    ],
)
def test_dvc_changes_the_line_of_a_setting_and_no_other(override, tmp_path):
    """`dvc exp run -S` writes the whole file anew: what DVC's writer would lay out otherwise would change, too."""
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, [override])
    before, after = (file.read_text(encoding="utf-8").splitlines() for file in (ROOT / "params.yaml", path))
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
