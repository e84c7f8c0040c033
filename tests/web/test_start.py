"""How `specmaskfoley web` starts: mistakes are one line before the model is loaded, and loading says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.page_server import Server
from typer.testing import CliRunner

from specmaskfoley.commands import web
from specmaskfoley.commands.main import app


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens already."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_is_one_line_that_says_how_to_choose_another(model: Path, taken: int) -> None:
    refused = CliRunner().invoke(app, ["web", "--model", str(model), "--port", str(taken)])
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert line == f"error: --port {taken} is in use; choose another, or leave it out for the first free one from 7860"
    assert refused.stdout == "", "the model was loaded first"


def test_the_first_free_port_is_taken(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PORTS", range(taken, taken + 20))
    assert taken < web.free_port("127.0.0.1", None) < taken + 20
    monkeypatch.setattr(web, "_PORTS", range(taken, taken + 1))
    with pytest.raises(ValueError, match="all in use; choose another with --port"):
        web.free_port("127.0.0.1", None)


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"cannot listen on --host 192\.0\.2\.1 --port 7860"):
        web.free_port("192.0.2.1", 7860)


def test_the_terminal_says_that_the_model_is_loading(server: Server, model: Path) -> None:
    loading, *_, opened = server.output.splitlines()
    assert loading == f"loading the model of {model} ..."
    assert opened == f"{server.url}/ (Ctrl+C ends it)"
