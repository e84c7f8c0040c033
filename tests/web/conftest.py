from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from helpers.browser import BROWSER, FLAGS, require_browser
from helpers.page_server import Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """With a camera that films a test picture."""
    require_browser()
    from playwright.sync_api import sync_playwright

    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(BROWSER), args=[*FLAGS, *camera])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`specmaskfoley web`, which takes videos of half a minute and 3 MB."""
    yield from _running(model, tmp_path_factory.mktemp("web-server"), "web")


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`specmaskfoley serve`, which takes the same."""
    yield from _running(model, tmp_path_factory.mktemp("api-server"), "serve")


def _running(model: Path, home: Path, command: str) -> Iterator[Server]:
    running = Server(model, home, "--max-minutes", "0.5", "--max-mb", "3", command=command)
    yield running
    running.stop()
    assert list(running.temporary.glob("specmaskfoley*")) == [], "files are left"
    assert running.process.returncode == 0, running.output
    assert running.faults == []
    with pytest.raises(requests.ConnectionError):
        requests.get(running.url, timeout=5)
