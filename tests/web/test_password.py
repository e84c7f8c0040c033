"""A page that asks for a password shows and does nothing without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from helpers.page_server import Server
from typer.testing import CliRunner

from specmaskfoley.commands.main import app

PASSWORD = "pässword $(x)"


@pytest.fixture(scope="module")
def locked(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(model, tmp_path_factory.mktemp("locked"), "--password", PASSWORD)
    yield running
    running.stop()


def login(server: Server, password: str) -> requests.Session:
    session = requests.Session()
    session.post(f"{server.url}/login", data={"username": "anyone", "password": password}, timeout=30)
    return session


def test_without_it_nothing_is_told_taken_or_done(locked: Server) -> None:
    strangers = [requests.Session(), login(locked, "password"), login(locked, PASSWORD + " ")]
    for stranger in strangers:
        for place in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=a", "gradio_api/file=a"):
            assert stranger.get(f"{locked.url}/{place}", timeout=30).status_code == 401, place
        upload = stranger.post(f"{locked.url}/gradio_api/upload", files={"files": ("a.mp4", b"x")}, timeout=30)
        make = {"data": [], "fn_index": 0, "session_hash": "a"}
        joined = stranger.post(f"{locked.url}/gradio_api/queue/join", json=make, timeout=30)
        assert (upload.status_code, joined.status_code) == (401, 401)
    assert [path for path in (locked.folder / "uploads").iterdir() if path.is_file()] == []
    assert login(locked, PASSWORD).get(f"{locked.url}/config", timeout=30).status_code == 200


@pytest.mark.browser
def test_with_it_the_page_opens(browser: Any, locked: Server) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(240_000)
    tab.goto(locked.url)
    for password, opens in (("wrong", False), (PASSWORD, True)):
        tab.fill("input[type=text]", "anyone")
        tab.fill("input[type=password]", password)
        tab.click("button:has-text('Login')")
        tab.wait_for_selector("#make" if opens else "text=Incorrect")
    tab.close()


def test_an_empty_one_is_refused(model: Path) -> None:
    refused = CliRunner().invoke(app, ["web", "--model", str(model), "--password", " "])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --password is empty")
