"""What a process is given before torch is imported, however it was started."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from specmaskfoley.processes.isolation import IsolatedPool

FIRST = {
    "a stage": "import own_code",
    "a command": "import specmaskfoley.commands.main",
    "a user's own program": "import specmaskfoley.foley",
}
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


LOAD = """
import ctypes, importlib.util, pathlib
[torch] = importlib.util.find_spec("torch").submodule_search_locations
ctypes.CDLL(next(pathlib.Path(torch, "lib").glob("libgomp*")))
"""


def loaded(first: str, **environment: str) -> dict[str, str]:
    """What torch's OpenMP says of itself when it is loaded after `first`, if that has not loaded it."""
    done = subprocess.run(
        [sys.executable, "-c", first + LOAD],
        cwd=ROOT / "stages",
        env=PLAIN | {"OMP_DISPLAY_ENV": "verbose"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"(\w+) ?= ?'(\w+)'", done.stderr))


@pytest.mark.skipif(sys.platform != "linux", reason="other libraries than GNU's do not tell how long threads spin")
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_waiting_threads_leave_the_core_to_others(first: str) -> None:
    assert loaded(first)["GOMP_SPINCOUNT"] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="other libraries than GNU's do not tell how long threads spin")
def test_how_threads_wait_is_the_users_choice() -> None:
    assert int(loaded(FIRST["a command"], OMP_WAIT_POLICY="ACTIVE")["GOMP_SPINCOUNT"]) > 100_000
    assert loaded(FIRST["a command"], GOMP_SPINCOUNT="1000")["GOMP_SPINCOUNT"] == "1000"


def test_workers_wait_as_their_parent_does() -> None:
    with IsolatedPool(1, timeout_s=60, memory_gb=4) as pool:
        assert list(pool.map(os.getenv, ["OMP_WAIT_POLICY"])) == [os.environ["OMP_WAIT_POLICY"]]


FAULTS = """
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(1 << 26)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 26)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_large_arrays_take_the_memory_of_those_before() -> None:
    def taken(first: str) -> int:
        """Times 64 MiB that the system cleared for ten arrays of 64 MiB, one after the other."""
        command = [sys.executable, "-c", f"{first}\n{FAULTS}"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert taken("") >= 9
    assert taken("import specmaskfoley") <= 2
