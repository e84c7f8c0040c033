"""Fixtures of the weights tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.web_server import Web


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = Web(bytes(range(256)) * 4096)  # 1 MiB
    yield made
    made.server.shutdown()
    made.server.server_close()
