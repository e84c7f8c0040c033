"""One tiny project on which the whole pipeline has run, shared by all tests that look at its results."""

from __future__ import annotations

import pytest
from tiny import Project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project on which `dvc repro` has run once; for looking, not for changing."""
    made = Project.create(tmp_path_factory.mktemp("finished") / "project")
    made.first_output = made.dvc("repro")
    return made
