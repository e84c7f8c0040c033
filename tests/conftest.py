"""Options and fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers.environment  # noqa: F401
import hypothesis
import pytest
from helpers.golden_rule import ERRORS, Golden
from helpers.shared import made_once
from helpers.tiny import STAGES, Project, shrink, shrink_for_one_process
from helpers.untrained import shrink_waveform, write_noise, write_untrained

pytest_plugins = ["helpers.time_limit"]

# A busy machine is no fault of the code: the time limit a test is pytest's.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _top_directory() -> None:
    """Some commands go to the folder of their project, and stay there."""
    os.chdir(HERE.parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=HERE / "golden",
        metavar="DIR",
        help="another set of golden data of the same layout (default: tests/golden)",
    )
    parser.addoption(
        "--clips",
        type=Path,
        default=HERE.parents[1] / "shared" / "vggsound_clips",
        metavar="DIR",
        help="folder of real VGGSound clips; tests that need them are skipped where it is absent",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An order in which several processes (-n) end at about the same time: what takes longest comes first.

    The first file that needs the shared project makes it; others that use it come last, so that nobody waits for it.
    """
    users = list(dict.fromkeys(item.path for item in items if "project" in getattr(item, "fixturenames", ())))
    patient = {item.path for item in items if item.get_closest_marker("timeout")}
    killing = {item.path for item in items if item.get_closest_marker("kill")}

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        made = users.index(item.path) if item.path in users else 0
        return item.path not in patient, item.path not in killing, made

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How close the golden numbers were met, not only that they were."""
    if ERRORS:
        terminalreporter.section("relative L2 errors against golden data (of centred values)")
        for test, (error, centered) in ERRORS.items():
            terminalreporter.line(f"{error:.1e} ({centered:.1e})  {test}")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def clips(request: pytest.FixtureRequest) -> Path:
    """The folder of real clips."""
    folder = request.config.getoption("--clips")
    if not folder.is_dir():
        pytest.skip(f"no real clips in {folder}; name a folder of them with --clips")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that was not trained; for looking, not for changing."""
    return made_once(tmp_path_factory, "model", write_untrained)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, more than three windows of that model, with a sound of its own."""
    return write_noise(tmp_path_factory.mktemp("videos") / "clip.mp4", 6.0)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project in which every stage has run, without DVC; for looking, not for changing."""

    def make(folder: Path) -> None:
        made = Project.create(folder / "project", shrink_for_one_process)
        for stage in STAGES:
            code, output = made.stage(stage)
            assert code == 0, output

    return Project(made_once(tmp_path_factory, "finished", make) / "project")


def _reproduce(factory: pytest.TempPathFactory, name: str, change: Callable[[dict[str, Any]], None]) -> Project:
    def make(folder: Path) -> None:
        output = Project.create(folder / "some where else", change).dvc("repro")
        (folder / "output").write_text(output, encoding="utf-8")

    folder = made_once(factory, name, make)
    found = Project(folder / "some where else")
    found.first_output = (folder / "output").read_text(encoding="utf-8")
    return found


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project on which `dvc repro` has run once, and what that printed; for looking, not for changing."""
    return _reproduce(tmp_path_factory, "reproduced", shrink)


@pytest.fixture(scope="session")
def reproduced_1d(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same of profile mini_1d; for looking, not for changing."""
    return _reproduce(tmp_path_factory, "reproduced-1d", shrink_waveform)
