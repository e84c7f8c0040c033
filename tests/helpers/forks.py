"""Python scripts in processes of their own that need not import torch and the like first.

Importing them takes seconds of processor time, most stages of a tiny project less. So one server process imports them
once and forks a child for every script.
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
import select
import signal
import socket
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
    "dvc.cli.parser", "dvc.lock", "dvc.repo.experiments.queue.celery", "dvc.repo.experiments.executor.local",
    "dvc.repo.open_repo", "dvc.repo.plots", "hydra", "networkx", "pygit2", "ruamel.yaml", "scmrepo.git",
)  # fmt: skip

# `python` for whatever a fork starts by that name. Without site-packages an interpreter starts in 10 ms.
SHIM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = {{"arguments": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [1, 2])
    answers = server.makefile().read().split()
sys.exit(int(answers[-1]) % 256 if len(answers) == 2 else "the server of forks ended")
"""


class Fork:
    """A script that runs in a child of the server; as much of `subprocess.Popen` as tests need."""

    def __init__(self, server: socket.socket) -> None:
        self._server, self._answers = server, server.makefile()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()

    def poll(self) -> int | None:
        return (
            self.wait() if self.returncode is None and select.select([self._server], [], [], 0)[0] else self.returncode
        )

    def wait(self) -> int:
        if self.returncode is None:
            answer = self._answers.readline()
            assert answer, "the server of forks ended"
            self.returncode = int(answer)
            self._answers.close()
            self._server.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The server, started when it is first needed.

    `cpu_s` is the processor time that its children have used so far, `starting_s` how long starting it took.
    """

    def __init__(self) -> None:
        self.starting_s = 0.0
        self._server: subprocess.Popen[str] | None = None
        self._own = tempfile.TemporaryDirectory(prefix="forks-")
        self._folder = Path(self._own.name)

    @property
    def cpu_s(self) -> float:
        used = self._folder / "used"
        return sum(map(float, used.read_text().split())) if used.exists() else 0.0

    def run(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str]:
        """`python arguments...` to its end, as `subprocess.run` would: exit code, and stdout and stderr together."""
        with tempfile.TemporaryFile() as output:
            try:
                code = self.start(arguments, cwd, env, output.fileno()).wait()
            except BaseException:  # a test's time is up, or somebody pressed control-C
                self.end()
                raise
            output.seek(0)  # the child has moved the place that both have
            return code, output.read().decode(errors="replace")

    def start(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], output: int = subprocess.DEVNULL
    ) -> Fork | subprocess.Popen[bytes]:
        """Begin `python arguments...`, with the open file `output` as its stdout and stderr.

        What it starts as `python` is a fork too: a stage of `dvc`.
        """
        if sys.platform != "linux":  # forking after an import of torch is not safe everywhere
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        if output == subprocess.DEVNULL:
            with open(os.devnull, "wb") as nowhere:
                return self.start(arguments, cwd, env, nowhere.fileno())
        self._serve()
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._folder / "socket"))
        front = {"PATH": f"{self._folder / 'bin'}{os.pathsep}{env['PATH']}"}
        request = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "env": {**env, **front}}) + "\n"
        socket.send_fds(server, [request.encode()], [output, output])
        return Fork(server)

    def _serve(self) -> None:
        if self._server is not None:
            return
        begin = time.monotonic()
        (self._folder / "bin").mkdir(exist_ok=True)
        shim = self._folder / "bin" / "python"
        shim.write_text(SHIM.format(python=sys.executable, address=str(self._folder / "socket")), encoding="utf-8")
        shim.chmod(0o755)
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(self._folder)],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdin=subprocess.PIPE,  # its end tells that this process is gone, even if it was killed
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.end)
        assert self._server.stdout is not None
        assert self._server.stdout.readline(), "the server of forks did not start"
        self.starting_s += time.monotonic() - begin

    def end(self) -> None:
        """End the server and what it runs."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._server = None
        (self._folder / "socket").unlink(missing_ok=True)


FORKS = Forks()


def serve(folder: Path) -> None:
    """Fork a child for every request; what they compile and how long they worked is left in `folder`."""
    del sys.path[0]  # this folder
    for name in AHEAD:
        importlib.import_module(name)
    sys.pycache_prefix = str(folder / "bytecode")  # nothing is written beside the sources of a project
    gc.freeze()  # or the collector copies in every child what all of them share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for supervisors
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(str(folder / "socket"))
        waiting.listen(64)
        print("ready", flush=True)
        while sys.stdin not in select.select([waiting, sys.stdin], [], [])[0]:
            client, _ = waiting.accept()
            if not os.fork():
                waiting.close()
                _supervise(client, folder)
            client.close()
    os.killpg(0, signal.SIGKILL)


def _supervise(client: socket.socket, folder: Path) -> None:
    """Run what a client asks for in a child, tell its pid and its exit code, and end it if the client goes away."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, (stdout, stderr), _, _ = socket.recv_fds(client, 1 << 20, 2)
    while not data.endswith(b"\n"):
        data += client.recv(1 << 20)
    child = os.fork()
    if not child:
        client.close()
        _end(_exit_code(stdout=stdout, stderr=stderr, **json.loads(data)))
    client.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)
    if ended not in select.select([client, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    with (folder / "used").open("a") as file:
        file.write(f"{used.ru_utime + used.ru_stime:.3f}\n")
    with contextlib.suppress(OSError):  # the client is gone
        client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _exit_code(**request: Any) -> int:
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


def _become(arguments: list[str], cwd: str, env: dict[str, str], stdout: int, stderr: int) -> None:
    """Turn this process into `python arguments...`."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, max(stdout, stderr) + 1)
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
    serve(Path(sys.argv[1]))
