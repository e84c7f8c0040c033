"""Python scripts in processes of their own that need not import torch and the like first.

Importing them takes 5 s of processor time, most stages of a tiny project less than two. So one server process imports
them once and forks a child for every script.
Only packages of others are imported ahead: the child finds our own on the PYTHONPATH that it is given, as a new
interpreter would.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AHEAD = (
    "accelerate", "av", "matplotlib.pyplot", "pandas", "pebble", "pyarrow.parquet", "pydantic", "requests",
    "safetensors.torch", "scipy.signal", "soundfile", "torch", "torchaudio", "typer", "yaml",
    "mlflow.store.tracking.sqlalchemy_store",  # with sqlalchemy and alembic, for a database in a file
    "torch._inductor.config",  # what an optimizer imports
)  # fmt: skip


class Forks:
    """The server, started when it is first needed.

    `cpu_s` is the processor time that its children have used so far, `starting_s` how long starting it took.
    """

    def __init__(self) -> None:
        self.cpu_s = self.starting_s = 0.0
        self._server: subprocess.Popen[str] | None = None
        self._bytecode = tempfile.TemporaryDirectory(prefix="bytecode-")

    def run(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str]:
        """`python arguments...` to its end, as `subprocess.run` would: exit code, and stdout and stderr together."""
        if sys.platform != "linux":  # forking after an import of torch is not safe everywhere
            return _run_anew(arguments, cwd, env)
        with tempfile.NamedTemporaryFile() as output:
            request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "output": output.name}
            code, cpu_s = self._ask(request)
            self.cpu_s += cpu_s
            return code, output.read().decode(errors="replace")

    def _ask(self, request: Mapping[str, Any]) -> tuple[int, float]:
        if self._server is None:
            begin = time.monotonic()
            self._server = subprocess.Popen(
                [sys.executable, __file__, self._bytecode.name],
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            atexit.register(self.end)
            assert self._server.stdout is not None
            self._server.stdout.readline()  # it is ready
            self.starting_s += time.monotonic() - begin
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        try:
            print(json.dumps(request), file=self._server.stdin, flush=True)
            answer = self._server.stdout.readline()
            assert answer, "the server of forks ended"
            code, cpu_s = json.loads(answer)
        except BaseException:  # a test's time is up, or somebody pressed control-C
            self.end()
            raise
        return code, cpu_s

    def end(self) -> None:
        """End the server and what it runs."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._server = None


FORKS = Forks()


def _run_anew(arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(errors="replace")


def serve(bytecode: str) -> None:
    """Fork a child for every request on stdin; `bytecode` is a folder for what they compile."""
    del sys.path[0]  # this folder
    for name in AHEAD:
        importlib.import_module(name)
    sys.pycache_prefix = bytecode  # nothing is written beside the sources of a project
    gc.freeze()  # or the collector copies in every child what all of them share
    print("ready", flush=True)
    # Children get another standard output; nobody but this loop may write to the one that carries the answers.
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _end(_exit_code(json.loads(line)))
        _, status, used = os.wait4(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]), flush=True)


def _exit_code(request: dict[str, Any]) -> int:
    """Do what is asked, and print at its end what an interpreter prints."""
    try:
        _become(**request)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """End as an interpreter does, but leave its modules alone: taking them to pieces takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become(arguments: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    """Turn this process into `python arguments...`."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(output, os.O_WRONLY), 1)
    os.dup2(1, 2)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    own = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    module = arguments[0] == "-m"
    script = os.path.join(cwd, arguments[0])
    sys.argv = arguments[1:] if module else [script, *arguments[1:]]
    sys.path[:0] = [cwd if module else os.path.dirname(script), *own]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):  # as every interpreter does at its start: see helpers/recorder
        importlib.import_module("sitecustomize")
    if module:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
