"""The browser that tests drive: Debian's Chromium, or another named in SPECMASKFOLEY_BROWSER."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BROWSER = Path(os.environ.get("SPECMASKFOLEY_BROWSER", "/usr/bin/chromium"))
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


def require_browser() -> None:
    """Skip the test where there is none, or fail it where SPECMASKFOLEY_BROWSER_REQUIRED is set."""
    if not BROWSER.exists():
        if os.environ.get("SPECMASKFOLEY_BROWSER_REQUIRED"):
            pytest.fail(f"{BROWSER}: no such browser, and SPECMASKFOLEY_BROWSER_REQUIRED is set")
        pytest.skip(f"no browser at {BROWSER}; name one in SPECMASKFOLEY_BROWSER")
