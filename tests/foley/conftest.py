from __future__ import annotations

from pathlib import Path

import pytest

from specmaskfoley.foley import Foley


@pytest.fixture(scope="session")
def foley(model: Path) -> Foley:
    return Foley.load(model)
