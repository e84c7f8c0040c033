"""The console command `specmaskfoley serve`: answer HTTP requests until interrupted."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from specmaskfoley.commands.web import LOCAL, SWEEP_EVERY_S, asked_to_end, check_start, free_port, load
from specmaskfoley.web.studio import Limits, Studio

_GRACE_S = 5
"""How long requests that are being answered may take when the server ends."""
_POLL_S = 0.05


def serve(source: Path, *, host: str, port: int | None, password: str | None, limits: Limits) -> None:
    """Load a model, and serve the HTTP interface until SIGINT or SIGTERM; then all its files are removed.

    Args:
        source: a folder with a model, or a project's params.yaml.
        port: None: the first free one from 7860 on.
        password: None: everyone who reaches the server may use it.

    Raises:
        ValueError: the model cannot be loaded, the port is taken, the password is empty, or fastapi is not installed.
    """
    check_start("fastapi", password)
    port = free_port(host, port)  # before the model is loaded, which takes long
    foley = load(source)
    with tempfile.TemporaryDirectory(prefix="specmaskfoley-web-") as folder:
        studio = Studio(foley, Path(folder).resolve() / "sessions", limits)
        try:
            _serve(studio, host, port, password)
        finally:
            studio.close()


def _serve(studio: Studio, host: str, port: int, password: str | None) -> None:
    import uvicorn
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from specmaskfoley.web.api import build

    # Otherwise a foreign site could send the browser here under its own name.
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))] if host in LOCAL else []
    config = uvicorn.Config(
        build(studio, guards, password=password), host=host, port=port, log_config=None, access_log=False,
        server_header=False, lifespan="off", timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    ended = asked_to_end()
    running = threading.Thread(target=server.run, name="http")  # signals are ours where it is not the main thread
    running.start()
    try:
        while not server.started:
            running.join(_POLL_S)
            if not running.is_alive():
                raise ValueError(f"cannot listen on --host {host} --port {port}")
        if host not in LOCAL and password is None:
            print("everyone who reaches this server may use it; --password asks for a password", flush=True)
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl+C ends it)", flush=True)
        while not ended.wait(SWEEP_EVERY_S):
            studio.sweep()
    finally:
        server.should_exit = True
        running.join()
