"""constraints.txt has every package of every extra once, for each Python and platform, and CI tests what it says."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import pytest
from helpers import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
LOCKED = [Requirement(line) for line in LINES if not line.startswith("#")]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("win32", "AMD64"), ("darwin", "arm64"))


def locked(environment: dict[str, str]) -> dict[str, Version]:
    """The version of each package there."""
    found: dict[str, Version] = {}
    for entry in LOCKED:
        if entry.marker is None or entry.marker.evaluate(environment):
            name = canonicalize_name(entry.name)
            assert name not in found, f"{name} twice in {environment}"
            (pin,) = entry.specifier
            found[name] = Version(pin.version)
    return found


@pytest.mark.parametrize(("python", "platform"), [*itertools.product(PYTHONS, PLATFORMS)], ids=str)
def test_what_pyproject_asks_for_is_locked(python: str, platform: tuple[str, str]) -> None:
    environment = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform[0],
        "platform_machine": platform[1],
    }
    versions = locked(environment)
    asked = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    for requirement in map(Requirement, asked):
        if requirement.name != "specmaskfoley" and (
            requirement.marker is None or requirement.marker.evaluate(environment)
        ):
            version = versions.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is not in constraints.txt"
            assert requirement.specifier.contains(version), f"{requirement}, but constraints.txt has {version}"


def test_the_lock_names_versions_only() -> None:
    """No address of an index, no path: pip takes the packages from where it is set up to."""
    for line in LINES:
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+( ; .+)?", line), line
    assert "://" not in "".join(LINES)


def test_the_image_has_what_the_lock_says() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (install,) = re.findall(r"pip install .*", image)
    assert '-e ".[$EXTRAS]" -c constraints.txt --extra-index-url "$TORCH_INDEX"' in install
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", image, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:([\d.]+)-", image, re.MULTILINE)
    assert python in PYTHONS


def test_the_image_leaves_out_what_git_ignores() -> None:
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines():
        name = line.replace("!/", "!").strip("/")
        assert any(fnmatch(name, pattern.removeprefix("**/")) for pattern in left_out), line


@pytest.mark.skipif("SPECMASKFOLEY_LOCK_REQUIRED" not in os.environ, reason="set where all comes from constraints.txt")
def test_what_is_installed_is_what_is_locked() -> None:
    freeze = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude", "specmaskfoley"]
    answer = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    installed = dict(line.split("==") for line in answer.splitlines())
    assert "torch" in installed
    versions = locked(dict(default_environment()))
    # Public versions: 2.11.0+cpu is PyTorch's 2.11.0 for CPUs.
    other = {
        name: version
        for name, version in installed.items()
        if (pinned := versions.get(canonicalize_name(name))) is None or Version(version).public != pinned.public
    }
    assert not other
