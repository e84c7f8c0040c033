"""A test that takes long must say by a mark what it needs, so that the quick suite stays quick."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import NamedTuple

import pytest

from helpers.forks import FORKS

HEAVY = ("browser", "ray", "kill", "official", "pipeline", "slow")
"""The marks that the quick suite leaves out; pyproject.toml says what each means."""
LIMIT_S = 20.0


class Spent(NamedTuple):
    wall_s: float
    cpu_s: float

    @classmethod
    def so_far(cls) -> Spent:
        """Without the start of the server of forks, which falls to whichever test needs it first.

        Processor time is that of this process, of its children that have ended, and of what was forked for it.
        """
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return cls(time.monotonic() - FORKS.starting_s, own + FORKS.cpu_s)

    def since(self, before: Spent) -> float:
        """Seconds that the work between two moments takes on a quiet machine, as well as one can tell.

        Wall time alone fails tests wherever something else runs, processor time alone never sees a test that sleeps.
        So it is the larger of the processor time and the wall time divided by how many processes want each core.
        """
        crowd = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
        return max(self.cpu_s - before.cpu_s, (self.wall_s - before.wall_s) / max(1.0, crowd))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passed but took more than `LIMIT_S` and has none of the marks; fixtures do not count."""
    before = Spent.so_far()
    result = yield
    seconds = Spent.so_far().since(before)
    if seconds > LIMIT_S and not any(item.get_closest_marker(name) for name in HEAVY):
        pytest.fail(
            f"took {seconds:.0f} s, more than the {LIMIT_S:.0f} s of a test in the quick suite: shorten it, or mark"
            f" what it needs ({', '.join(HEAVY)})",
            pytrace=False,
        )
    return result
