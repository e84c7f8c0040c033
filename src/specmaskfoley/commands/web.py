"""The console command `specmaskfoley web`: serve the page until interrupted."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from specmaskfoley.foley import Foley
from specmaskfoley.web.examples import examples
from specmaskfoley.web.studio import Limits, Studio

LOCAL = ("127.0.0.1", "localhost")
SWEEP_EVERY_S = 60.0
_PORTS = range(7860, 7960)


def serve(
    source: Path, *, host: str, port: int | None, share: bool, password: str | None = None, limits: Limits
) -> None:
    """Load a model, and serve the page until SIGINT or SIGTERM; then all its files are removed.

    Args:
        source: a folder with a model, or a project's params.yaml.
        port: None: the first free one from 7860 on.
        password: None: everyone who reaches the page may use it.

    Raises:
        ValueError: the model cannot be loaded, the port is taken, the password is empty, or gradio is not installed.
    """
    check_start("gradio", password)
    port = free_port(host, port)  # before the model is loaded, which takes long
    foley = load(source)
    with tempfile.TemporaryDirectory(prefix="specmaskfoley-web-") as folder:
        home = Path(folder).resolve()
        studio = Studio(foley, home / "sessions", limits, examples(foley.params, foley.home, home / "examples"))
        # Read when Gradio is imported: its files lie in this folder, too, and are removed with it.
        os.environ["GRADIO_TEMP_DIR"] = str(home / "uploads")
        # Gradio asks its own server whether it is up, which must not go through a proxy.
        os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), *LOCAL]))
        try:
            _serve(studio, home / "uploads", host, port, share, password)
        finally:
            studio.close()


def check_start(package: str, password: str | None) -> None:
    """
    Raises:
        ValueError: the package is not installed, or the password is empty.
    """
    if find_spec(package) is None:
        raise ValueError(f"{package} is not installed; run: pip install 'specmaskfoley[web]'")
    if password is not None and not password.strip():
        raise ValueError("--password is empty; leave it out to let everyone in who reaches the page")


def load(source: Path) -> Foley:
    print(f"loading the model of {source} ...", flush=True)
    return Foley.load(source)


def asked_to_end() -> threading.Event:
    """What SIGINT and SIGTERM set from now on."""
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    return ended


def free_port(host: str, port: int | None) -> int:
    """The port itself, or the first free one of `_PORTS`.

    Raises:
        ValueError: it is taken, or cannot be listened on.
    """
    for one in _PORTS if port is None else [port]:
        try:
            for address in dict.fromkeys((host, LOCAL[0])):  # Gradio tries this machine's, whatever the host
                family = socket.getaddrinfo(address, one, type=socket.SOCK_STREAM)[0][0]
                socket.create_server((address, one), family=family).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ValueError(f"cannot listen on --host {host} --port {one}: {error.strerror}") from None
        else:
            return one
    if port is None:
        raise ValueError(f"the ports {_PORTS[0]} to {_PORTS[-1]} are all in use; choose another with --port")
    raise ValueError(
        f"--port {port} is in use; choose another, or leave it out for the first free one from {_PORTS[0]}"
    )


def sweep(folder: Path, age_s: float) -> None:
    """Remove files that were not written to for `age_s`: Gradio keeps what a broken upload leaves."""
    for path in folder.rglob("*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > age_s:
                path.unlink()
        except FileNotFoundError:  # Gradio has moved it in the meantime
            continue


def _serve(studio: Studio, uploads: Path, host: str, port: int, share: bool, password: str | None) -> None:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from specmaskfoley.web.gate import Gate
    from specmaskfoley.web.page import CSS, build, theme

    max_upload = round(studio.limits.megabytes * 1e6)
    guards: list[Any] = [Middleware(Gate, max_upload=max_upload)]
    local = host in LOCAL and not share
    if local:  # otherwise a foreign site could send the browser here under its own name
        guards.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL)))
    login: dict[str, Any] = {}
    if password is not None:
        expected = password.encode()
        login = {
            "auth": lambda _, given: secrets.compare_digest(str(given).encode(), expected),
            "auth_message": "Any user name, and the password that this page was started with.",
        }
    page = build(studio)
    ended = asked_to_end()
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=max_upload,
            allowed_paths=[str(studio.folder), *(str(one.path.parent) for one in studio.examples[:1])],
            app_kwargs={"middleware": guards, "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=theme(),
            css=CSS,
            **login,
        )
        if not local and password is None:
            print("everyone who reaches this page may use it; --password asks for a password", flush=True)
        print(f"{page.share_url or page.local_url} (Ctrl+C ends it)", flush=True)
        while not ended.wait(SWEEP_EVERY_S):
            sweep(uploads, studio.limits.idle_s)
    finally:
        page.close(verbose=False)
