from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from page_server import Server
from test_report_browser import browser  # noqa: F401, a fixture
from untrained import write_untrained


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("web") / "model")


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes videos of half a minute and 3 MB."""
    running = Server(model, tmp_path_factory.mktemp("web-server"), "--max-minutes", "0.5", "--max-mb", "3")
    yield running
    running.stop()
    assert list(running.temporary.glob("specmaskfoley*")) == [], "files are left"
    assert running.process.returncode == 0, running.output
    assert running.faults == []
    with pytest.raises(requests.ConnectionError):
        requests.get(running.url, timeout=5)
