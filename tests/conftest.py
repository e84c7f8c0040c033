"""Options and fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from helpers.golden_rule import ERRORS, Golden
from helpers.tiny import Project
from helpers.untrained import write_noise, write_untrained

# A busy machine is no fault of the code: the time limit a test is pytest's.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

HERE = Path(__file__).resolve().parent


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of several processes (-n), none is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    patient = {item.path for item in items if item.get_closest_marker("timeout")}
    items.sort(key=lambda item: (item.path not in patient, item.path not in slow))


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
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny untrained model."""
    return write_untrained(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, more than three windows of that model, with a sound of its own."""
    return write_noise(tmp_path_factory.mktemp("videos") / "clip.mp4", 6.0)


@pytest.fixture(scope="session")
def clips(request: pytest.FixtureRequest) -> Path:
    """The folder of real clips."""
    folder = request.config.getoption("--clips")
    if not folder.is_dir():
        pytest.skip(f"no real clips in {folder}; name a folder of them with --clips")
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project on which `dvc repro` has run once; for looking, not for changing."""
    made = Project.create(tmp_path_factory.mktemp("finished") / "project")
    made.first_output = made.dvc("repro")
    return made
