"""The real command, started for a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT
from helpers.web_client import Client


class Server:
    """`specmaskfoley web` or `serve` as a process of its own, with a temporary directory of its own."""

    def __init__(self, model: Path, home: Path, *options: str, command: str = "web") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.home = home
        self.temporary = home / "tmp"
        self.temporary.mkdir(parents=True)
        self.log = home / "log.txt"
        nowhere = "http://127.0.0.1:9"
        env = os.environ | {
            "PYTHONPATH": str(ROOT / "src"),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        }
        program = [sys.executable, "-m", "specmaskfoley.commands.main", command]
        arguments = ["--model", str(model), "--port", str(port), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments], cwd=home, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 240
        while self.url not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the server did not start:\n{self.output}")
            time.sleep(0.1)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def faults(self) -> list[str]:
        """Lines of tracebacks that lead into our own code; Gradio writes some on bad requests, which pass the gate."""
        ours = [line for line in self.output.splitlines() if "specmaskfoley/" in line and "File" in line]
        return [line for line in ours if "web/gate.py" not in line]

    @property
    def folder(self) -> Path:
        """Where it keeps its files."""
        (found,) = self.temporary.glob("specmaskfoley-web-*")
        return found

    def session_files(self) -> list[Path]:
        return sorted(path for path in (self.folder / "sessions").rglob("*") if path.is_file())

    def client(self) -> Client:
        return Client(self.url)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
