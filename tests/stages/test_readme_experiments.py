"""The experiments of README.md, run as written: with which settings, what they leave, how wide their tables are."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from helpers.forks import FORKS
from helpers.tiny import Project

from specmaskfoley.tracking import flatten

pytestmark = pytest.mark.pipeline

SECTION = re.search(r"^## Experiments\n(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
assert SECTION is not None
BLOCKS = re.findall(r"^    ((?:dvc|git|specmaskfoley|mlflow) .*)$", SECTION[1], re.MULTILINE)
COMMANDS = [shlex.split(block, comments=True) for block in BLOCKS]
SHOW = next(words[1:] for words in COMMANDS if words[:3] == ["dvc", "exp", "show"])
TABLE = next(words[1:] for words in COMMANDS if words[:3] == ["dvc", "metrics", "show"])
WIDTH = 120


def run(project: Project, words: list[str]) -> tuple[int, str]:
    """A command as a shell finds it: exit code and output."""
    env = project.env | {"COLUMNS": "500"}  # so that nothing is cut off
    if words[0] == "git":
        done = subprocess.run(words, cwd=project.root, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    module = {"dvc": "dvc", "specmaskfoley": "specmaskfoley.commands.main"}[words[0]]
    return FORKS.run(["-m", module, *words[1:]], project.root, env)


def settings_of(text: str) -> dict[str, Any]:
    return flatten(yaml.safe_load(text))


def asked_for() -> Iterator[dict[str, Any]]:
    """The settings after -S of each experiment of the section."""
    for words in COMMANDS:
        options = [after.partition("=") for word, after in itertools.pairwise(words) if word == "-S"]
        if words[:3] == ["dvc", "exp", "run"]:
            for values in itertools.product(*(value.split(",") for _, _, value in options)):
                yield {name: yaml.safe_load(value) for (name, _, _), value in zip(options, values, strict=True)}


def experiments(project: Project) -> list[dict[str, Any]]:
    """What differs from the committed params.yaml in each finished experiment."""
    before = settings_of(project.git("show", "HEAD:params.yaml"))
    found = []
    for revision in re.findall(
        r"^(\w+) refs/exps/[0-9a-f]{2}/", project.git("for-each-ref", "--format=%(objectname) %(refname)"), re.M
    ):
        after = settings_of(project.git("show", f"{revision}:params.yaml"))
        found.append({name: value for name, value in after.items() if before.get(name) != value})
    return found


def wait_for_queue(project: Project, count: int) -> None:
    """Until there are so many experiments; between two of them the queue may list none as running."""
    deadline = time.monotonic() + 1800
    while len(experiments(project)) < count:
        status = run(project, ["dvc", "queue", "status"])[1]
        assert "Failed" not in status, status
        assert time.monotonic() < deadline, status
        time.sleep(1)
    run(project, ["dvc", "queue", "stop"])


@pytest.fixture(scope="module")
def mine(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose first run is in git."""
    project = reproduced.copy(tmp_path_factory.mktemp("experiments") / "project")
    project.commit()
    return project


@pytest.mark.timeout(2400)
def test_every_experiment_has_the_settings_of_its_line(mine: Project) -> None:
    not_run = [words[0] for words in COMMANDS if words[0] == "mlflow"]
    assert not_run == ["mlflow"]  # a server
    asked = list(asked_for())
    assert len(asked) == 3
    head = mine.git("rev-parse", "HEAD")
    for words in COMMANDS:
        if words[0] != "mlflow":
            code, output = run(mine, words)
            assert code == 0, output
        if words[:3] == ["dvc", "queue", "start"]:
            wait_for_queue(mine, len(asked))
    found = experiments(mine)
    assert sorted(found, key=str) == sorted(asked, key=str)
    assert mine.git("rev-parse", "HEAD") == head
    assert mine.git("status", "--porcelain") == ""  # the checkout is as it was


def test_an_experiment_that_fails_changes_nothing(mine: Project) -> None:
    (temporary,) = [words for words in COMMANDS if "--temp" in words]
    finished = experiments(mine)
    for setting in ("cfg.scale=-1", "profile=huge", "run.device=cuda:99"):
        code, output = run(mine, [*temporary[: temporary.index("-S")], "-S", setting])
        assert code != 0, setting
        assert "git checkout" not in output
    assert mine.git("status", "--porcelain") == ""
    assert experiments(mine) == finished
    assert "up to date" in mine.dvc("status")


def test_what_failed_in_the_checkout_is_undone_as_the_page_says(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.commit()
    before = {path for path in project.path("data").rglob("*") if path.is_file()}
    code, output = run(project, ["dvc", "exp", "run", "-S", "run.device=cuda:99"])
    assert code != 0
    (way,) = re.findall(r"error: run\.device=.*; params\.yaml keeps what -S set: to undo it, (.*)", output)
    assert f"`{way}`" in SECTION[1].replace("\n", " ")
    assert {path for path in project.path("data").rglob("*") if path.is_file()} == before  # it was refused in time
    code, output = run(project, ["dvc", "exp", "run", "-S", "cfg.scale=-1"])
    assert code != 0
    assert (
        f"cfg.scale=-1: Input should be greater than or equal to 0; params.yaml keeps what -S set: to undo it, {way}"
        in output
    )
    for command in way.split(" && "):
        code, output = run(project, command.split())
        assert code == 0, output
    assert "Running stage" not in output
    assert {path for path in project.path("data").rglob("*") if path.is_file()} == before
    assert project.git("status", "--porcelain") == ""


def test_the_tables_fit(tmp_path: Path) -> None:
    """With numbers as long as those that are in git."""
    project = Project(tmp_path / "small")
    shutil.copytree(ROOT / "metrics" / "systems", project.path("metrics", "systems"))
    scores = json.loads((ROOT / "metrics" / "scores.json").read_text())
    code = f"""
import json, yaml
settings = yaml.safe_load(open("params.yaml"))
factor = settings["cfg"]["scale"] / 1.5 * (12 / settings["sample"]["steps"]) ** 0.1
scores = {{name: float(f"{{value * factor:.4g}}") for name, value in {scores}.items()}}
json.dump(scores, open("metrics/scores.json", "w"))
"""
    stage = {"cmd": "python stage.py", "deps": ["stage.py"], "params": ["cfg", "sample"]}
    stage["metrics"] = [{"metrics/scores.json": {"cache": False}}]
    project.path("stage.py").write_text(code)
    project.path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    project.path("params.yaml").write_text("cfg: {scale: 1.51}\nsample: {steps: 12}\n")
    for words in ("git init -q -b main", "dvc init -q", "dvc repro -q"):
        assert run(project, words.split())[0] == 0
    project.commit()
    for setting in ("cfg.scale=1.43", "sample.steps=6", "sample.steps=16", "sample.steps=24"):
        code, output = run(project, ["dvc", "exp", "run", "-q", "--temp", "-S", setting])
        assert code == 0, output
    _, shown = run(project, ["dvc", *SHOW])
    head, *rows = [line for line in shown.splitlines() if "─" * 9 not in line]
    assert head.split() == ["Experiment", *scores, "cfg.scale", "sample.steps"]
    assert len(rows) == 5
    assert max(map(len, shown.splitlines())) <= WIDTH, shown
    _, shown = run(project, ["dvc", *TABLE])
    head, *rows = shown.splitlines()
    assert sorted(head.split()) == sorted(["Path", *scores])
    assert [row.split()[0] for row in rows] == sorted(
        str(path.relative_to(project.root)) for path in project.path("metrics", "systems").iterdir()
    )
    assert max(map(len, shown.splitlines())) <= WIDTH, shown
