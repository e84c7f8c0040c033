"""`specmaskfoley repro`: order, overlap, failures, signals, and the same results as `dvc repro`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.tiny import STAGES, Project

from specmaskfoley.commands.repro import default_lanes, lines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stages of these tests are lines of a POSIX shell")


class Toy(Project):
    """A DVC project of shell commands; stage x makes x.txt of the files that it needs."""

    def __init__(self, root: Path, stages: Mapping[str, tuple[str, list[str]]]) -> None:
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    autostage = true\n", encoding="utf-8")
        super().__init__(root)
        self.git("init", "-q", "-b", "main")
        entries = {
            name: {"cmd": f"echo {name} >> log; {cmd}", "deps": needs, "outs": [f"{name}.txt"]}
            for name, (cmd, needs) in stages.items()
        }
        self.path("dvc.yaml").write_text(yaml.safe_dump({"stages": entries}, sort_keys=False), encoding="utf-8")
        self.commit()

    def ran(self) -> list[str]:
        """Stages whose commands started since the last call."""
        log = self.path("log")
        found = log.read_text(encoding="utf-8").split() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def assert_finished(self, *stages: str) -> None:
        """DVC finds nothing to do, and dvc.lock has these stages alone."""
        assert self.dvc("status", *stages) == "Data and pipelines are up to date.\n"
        assert sorted(locked(self)["stages"]) == sorted(stages)


def locked(project: Project) -> dict[str, Any]:
    return yaml.safe_load(project.path("dvc.lock").read_text(encoding="utf-8"))


def until(file: str) -> str:
    """A shell command that waits for a file, at most a minute."""
    return f"for i in $(seq 600); do test -e {file} && break; sleep 0.1; done; test -e {file}"


def make(name: str) -> str:
    return f"echo {name} > {name}.txt"


# ------------------------------------------------------------------ what runs when


def test_stages_run_beside_each_other_once_all_they_need_is_there(tmp_path):
    """Each of two waits for the other to begin: one after the other, neither would end."""
    toy = Toy(
        tmp_path / "toy",
        {
            "first": (make("first"), []),
            "left": (f"touch left.began; {until('right.began')} && cat first.txt > left.txt", ["first.txt"]),
            "right": (f"touch right.began; {until('left.began')} && cat first.txt > right.txt", ["first.txt"]),
            "last": ("cat left.txt right.txt > last.txt", ["left.txt", "right.txt"]),
        },
    )
    code, told = toy.command("repro", "--lanes", "2")
    assert code == 0, told
    assert toy.path("last.txt").read_text() == "first\nfirst\n"
    ran = toy.ran()
    assert (ran[0], sorted(ran[1:3]), ran[3]) == ("first", ["left", "right"], "last")
    assert "left  | Running stage 'left':\n" in told
    toy.assert_finished("first", "left", "right", "last")
    assert toy.command("repro") == (0, "Data and pipelines are up to date.\n")
    assert toy.ran() == []


def test_one_lane_is_one_stage_at_a_time_and_the_longest_chain_comes_first(tmp_path):
    alone = "mkdir busy && sleep 0.2 && rmdir busy"
    toy = Toy(
        tmp_path / "toy",
        {
            "single": (f"{alone} && {make('single')}", []),
            "a": (f"{alone} && {make('a')}", []),
            "c": (f"{alone} && {make('c')}", ["b.txt"]),
            "b": (f"{alone} && {make('b')}", ["a.txt"]),
        },
    )
    code, told = toy.command("repro", "--lanes", "1")
    assert code == 0, told
    assert toy.ran() == ["a", "b", "single", "c"]


def test_targets_and_what_they_need(tmp_path):
    toy = Toy(
        tmp_path / "toy",
        {"a": (make("a"), []), "b": (make("b"), ["a.txt"]), "c": (make("c"), ["b.txt"]), "d": (make("d"), [])},
    )
    code, told = toy.command("repro", "b")
    assert code == 0, told
    assert toy.ran() == ["a", "b"]
    toy.assert_finished("a", "b")
    code, told = toy.command("repro", "absent")
    assert (code, told.splitlines()) == (1, ["error: Stage 'absent' not found inside 'dvc.yaml' file"])


def test_stages_after_an_unchanged_result_cost_no_process(tmp_path):
    toy = Toy(
        tmp_path / "toy",
        {"same": (make("same"), ["source"]), "b": (make("b"), ["same.txt"]), "c": (make("c"), ["b.txt"])},
    )
    toy.path("source").write_text("one")
    assert toy.command("repro")[0] == 0
    toy.path("source").write_text("two")
    code, told = toy.command("repro")
    assert code == 0
    assert toy.ran() == ["same", "b", "c", "same"]
    assert {line.split("|")[0] for line in told.splitlines()} == {"same "}
    toy.assert_finished("same", "b", "c")


def test_outside_of_a_project_is_one_line(tmp_path):
    code, told = Project(tmp_path).command("repro")
    assert code == 1
    (line,) = told.splitlines()
    assert line.startswith("error: you are not inside of a DVC repository")


def test_a_failure_ends_nothing_that_runs_and_starts_nothing(tmp_path):
    """`good` ends a second after DVC's process for `bad` has gone."""
    toy = Toy(
        tmp_path / "toy",
        {
            "bad": (f"echo $PPID > bad.pid; {until('good.began')}; exit 3", []),
            "good": (
                f"touch good.began; {until('bad.pid')}; while kill -0 $(cat bad.pid); do sleep 0.1; done; sleep 1; "
                + make("good"),
                [],
            ),
            "after_bad": (make("after_bad"), ["bad.txt"]),
            "after_good": (make("after_good"), ["good.txt"]),
        },
    )
    code, told = toy.command("repro", "--lanes", "2")
    assert code == 1
    assert told.splitlines()[-1] == "error: stage bad failed; its lines above say why"
    assert "exited with 3" in told
    assert sorted(toy.ran()) == ["bad", "good"]
    toy.assert_finished("good")


@pytest.mark.slow
def test_no_entry_of_dvc_lock_and_git_is_lost(tmp_path):
    """Eight processes that end at about the same time, several times: takes a minute."""
    names = [f"stage{number}" for number in range(8)]
    toy = Toy(tmp_path / "toy", {name: (f"cat source > {name}.txt", ["source"]) for name in names})
    for content in ("one", "two", "three"):
        toy.path("source").write_text(content)
        code, told = toy.command("repro", "--lanes", "8")
        assert code == 0, told
        assert sorted(toy.ran()) == names
        toy.assert_finished(*names)
        assert toy.git("diff", "--name-only") == "", "DVC has staged dvc.lock and .gitignore as they are"
    assert sorted(toy.path(".gitignore").read_text().split()) == [f"/{name}.txt" for name in names]


# ------------------------------------------------------------------ signals


def started(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "specmaskfoley.commands.main", "repro", *arguments],
        cwd=project.root,
        env=project.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_heed_signals,
    )


def _heed_signals() -> None:
    """Those that this process ignores, as in the background of a shell or under nohup, a child would ignore, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_reaches_all_stages_and_nothing_is_left(name, tmp_path):
    """As a training does, each of them takes its time to write a file; the next run finishes the work."""
    stages = {
        one: (
            f"trap 'sleep 1; touch {one}.kept; exit 1' INT TERM HUP; touch {one}.began; "
            f"test -e fast || sleep 600; {make(one)}",
            [],
        )
        for one in ("left", "right")
    }
    toy = Toy(tmp_path / "toy", stages)
    process = started(toy, "--lanes", "2")
    wait_for(lambda: toy.path("left.began").exists() and toy.path("right.began").exists())
    number = getattr(signal, name)
    process.send_signal(number)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, told
    assert "Traceback" not in told
    assert toy.path("left.kept").exists()
    assert toy.path("right.kept").exists()
    assert toy.processes() == []
    toy.path("fast").touch()
    code, told = toy.command("repro", "--lanes", "2")
    assert code == 0, told
    toy.assert_finished("left", "right")


def test_a_second_signal_kills(tmp_path):
    toy = Toy(tmp_path / "toy", {"deaf": (f"trap '' INT TERM; touch began; sleep 600; {make('deaf')}", [])})
    process = started(toy)
    wait_for(toy.path("began").exists)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not any("dvc" in one.cmdline() for one in toy.processes()))  # it ends at once, its stage does not
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert toy.processes() == []


# ------------------------------------------------------------------ small parts


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("one\n\ntwo", ["one", "two"]),
        ("\rbar 1%\rbar 2%\rbar 3%\nafter\n", ["bar 1%", "bar 3%", "after"]),
        ("\rbar 1%\rbar 2%\rbar 3%\r      \r", ["bar 1%", "bar 3%"]),
        ("windows\r\n", ["windows"]),
    ],
)
def test_of_a_bar_the_first_state_and_the_last_are_shown(written, shown):
    assert list(lines(io.BytesIO(written.encode()))) == shown


def test_a_bar_is_shown_from_time_to_time(monkeypatch):
    monkeypatch.setattr("specmaskfoley.commands.repro.BAR_S", 0.0)
    assert list(lines(io.BytesIO(b"\rbar 1%\rbar 2%\rbar 3%\r"))) == ["bar 1%", "bar 2%", "bar 3%"]


@pytest.mark.skipif(sys.platform == "darwin", reason="always one there")
def test_where_there_is_a_gpu_one_stage_runs_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert default_lanes() == (1 if Path("/dev/nvidia0").exists() else min(os.cpu_count() or 1, 3))
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert default_lanes() == 1


# ------------------------------------------------------------------ the pipeline


@pytest.mark.pipeline
def test_the_whole_pipeline_gives_the_same_bytes(reproduced, tmp_path):
    project = Project.create(tmp_path / "side by side")
    code, told = project.command("repro", "--lanes", "3")
    assert code == 0, told
    found, expected = (
        {file.relative_to(one.root): file.read_bytes() for file in files(one)} for one in (project, reproduced)
    )
    assert len(found) > 100
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    assert sorted(locked(project)["stages"]) == sorted(STAGES)
    assert locked(project) == locked(reproduced)
    assert project.dvc("status") == "Data and pipelines are up to date.\n"
    assert project.git("diff", "--name-only") == ""


def files(project: Project) -> list[Path]:
    return [path for top in ("data", "metrics") for path in project.path(top).rglob("*") if path.is_file()]
