"""A throw-away copy of the whole project with a world so small that every stage runs in seconds.

The stages, the graph and the code are the real ones; only numbers in params.yaml differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from helpers import ROOT
from helpers.forks import FORKS, Fork

RECORDER = Path(__file__).with_name("recorder")
COUNTS = {"train": 24, "val": 12, "test": 12}
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def shrink(params: dict[str, Any]) -> None:
    """Make the mini profile tiny, in place."""
    params["run"] |= {"device": "cpu", "threads": 1, "workers": 2}
    params["sample"] |= {"steps": 3, "batch_size": 8, "videos": 2}
    params["evaluate"] |= {"seeds": 2, "resamples": 20, "pictures": 2}
    mini = params["profiles"]["mini"]
    mini["audio"]["duration_s"] = 2.0
    mini["video"] |= {"sync_size": 32, "semantic_size": 32}
    mini["world"] |= {f"{split}_clips": count for split, count in COUNTS.items()}
    mini["prepare"] |= {"silence_db": -120.0, "shard_rows": 10}  # two seconds may hold no event; several shards
    for role in ("sync", "semantic"):
        mini["encoders"][role] |= {"width": 16, "channels": [4, 8]}
    mini["encoders"]["prompt"] |= {"width": 16, "blocks": 1}
    mini["codec"] |= {"codebook_size": 32, "code_width": 16, "channels": 8}
    mini["backbone"] |= {"depth": 2, "width": 32, "heads": 2, "mlp_width": 64}
    mini["control"] |= {"depth": 2, "aligner_mlp_width": 32}
    mini["vocoder"]["iterations"] = 2
    mini["judges"] |= {"width": 4, "sync_window_s": 1.0, "sync_max_offset_s": 0.8, "sync_classes": 5}
    shorten(mini)


def shorten(profile: dict[str, Any]) -> None:
    """Few steps of every training of a profile, in place."""
    for training in trainings(profile):
        training |= {"steps": 6, "batch_size": 8, "warmup_steps": 1, "checkpoint_every": 2, "validate_every": 2}
    # Long enough to be caught in the middle.
    profile["train_control"]["optim"]["steps"] = 60
    profile["train_codec"]["quantize_after"] = 2
    profile["train_backbone"]["listen_every"], profile["train_control"]["listen_every"] = 4, 30


def shrink_for_one_process(params: dict[str, Any]) -> None:
    """The same for a machine that other tests use as well; the number of workers decides no result."""
    shrink(params)
    params["run"]["workers"] = 1


def trainings(section: dict[str, Any]) -> list[dict[str, Any]]:
    """All optimisation settings, however deep."""
    found = [section] if "base_learning_rate" in section else []
    return found + [item for value in section.values() if isinstance(value, dict) for item in trainings(value)]


class Project:
    """A copy of the repository in a directory of its own, with one commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched = root.with_name(f"{root.name}-touched.txt")
        """What helpers/recorder notes: the settings that stages read."""
        self.env = _environment(root, self.touched)
        self.first_output = ""

    @classmethod
    def create(cls, root: Path, change: Callable[[dict[str, Any]], None] = shrink) -> Project:
        """Copy what git would: tracked files and new ones, but no results of the real pipeline."""
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for name in filter(None, listing.stdout.decode().split("\0")):
            source = ROOT / name
            if source.is_file() and name != "dvc.lock" and not name.startswith(("metrics/", "tests/", "data/code/")):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, root / name)
        project = cls(root)
        project.change(change)
        project.git("init", "-q", "-b", "main")
        project.commit()
        return project

    def copy(self, root: Path) -> Project:
        """The same project with all its results, elsewhere."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, env=self.env, check=True, capture_output=True)
        return done.stdout.decode()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Everything so far")

    def dvc(self, *arguments: str, check: bool = True) -> str:
        """Run dvc to its end; what it and the stages printed."""
        return self._finish(["-m", "dvc", *arguments], check)[1]

    def stage(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run one stage's script alone: exit code and output."""
        return self._finish([f"stages/{name}.py", *arguments], check=False)

    def start_stage(self, name: str) -> Fork | subprocess.Popen[bytes]:
        """One stage's script alone, to be killed."""
        return FORKS.start([f"stages/{name}.py"], self.root, self.env)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run `specmaskfoley`: exit code and output."""
        return self._finish(["-m", "specmaskfoley.commands.main", *arguments], check=False)

    def start(self, *arguments: str) -> Running:
        """Run dvc in the background, in a process group of its own, with the processes that a user has."""
        return Running(self, lambda output: subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.root, env=self.env, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        ))  # fmt: skip

    def fork(self, *arguments: str) -> Running:
        """Run dvc in the background; it and its stages are forks."""
        return Running(self, lambda output: FORKS.start(["-m", "dvc", *arguments], self.root, self.env, output))

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs inside the project."""
        found = []
        for process in psutil.process_iter():
            try:
                inside = Path(process.cwd()) == self.root and process.status() != psutil.STATUS_ZOMBIE
            except (psutil.Error, OSError):
                continue
            if inside:
                found.append(process)
        return found

    def _finish(self, arguments: list[str], check: bool) -> tuple[int, str]:
        code, output = FORKS.run(arguments, self.root, self.env)
        if check and code:
            raise AssertionError(f"{' '.join(arguments)} ended with {code}:\n{output}")
        return code, output


class Running:
    """`dvc` in the background; whatever is left of it is ended on leaving."""

    def __init__(self, project: Project, begin: Callable[[int], Fork | subprocess.Popen[bytes]]) -> None:
        self.project = project
        self.log = project.root.with_name(f"{project.root.name}-{time.monotonic_ns()}.log")
        with self.log.open("wb") as output:
            self.process = begin(output.fileno())

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.project.processes(), self.process]:
            if process.pid != os.getpid():
                process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, seen: Callable[[], Any], what: str) -> Any:
        """Poll until `seen` gives something true; an error if dvc ends before."""
        while not (found := seen()):
            if self.process.poll() is not None:
                raise AssertionError(f"dvc ended before {what}:\n{self.output}")
            time.sleep(0.005)
        return found

    def finish(self) -> str:
        """Wait for the end; it must be a good one."""
        if self.process.wait():
            raise AssertionError(f"dvc ended with {self.process.returncode}:\n{self.output}")
        return self.output


def _environment(root: Path, touched: Path) -> dict[str, str]:
    """This process's environment, less what would lead out of the project, and with no way to a network."""
    dropped = ("DVC_", "MLFLOW_", "GIT_", "PYTEST_", "SPECMASKFOLEY_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    home = root.with_name(f"{root.name}-home")
    home.mkdir(exist_ok=True)
    nowhere = "http://127.0.0.1:9"
    return env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join([str(root / "src"), str(RECORDER)]),
        "SPECMASKFOLEY_TOUCHED": str(touched),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home),
        "DVC_SYSTEM_CONFIG_DIR": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        "HF_HUB_OFFLINE": "1",
    }
