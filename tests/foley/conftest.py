from __future__ import annotations

from pathlib import Path

import pytest
from helpers.untrained import write_noise, write_untrained

from specmaskfoley.foley import Foley


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def foley(model: Path) -> Foley:
    return Foley.load(model)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, more than three windows, with a sound of its own."""
    return write_noise(tmp_path_factory.mktemp("videos") / "clip.mp4", 6.0)
