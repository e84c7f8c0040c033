"""The browser that tests drive: Debian's Chromium, or another named in SPECMASKFOLEY_BROWSER."""

from __future__ import annotations

import os
from pathlib import Path

BROWSER = Path(os.environ.get("SPECMASKFOLEY_BROWSER", "/usr/bin/chromium"))
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
