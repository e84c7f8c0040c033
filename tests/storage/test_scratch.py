import signal
import subprocess
import sys

import pytest

from specmaskfoley.storage.scratch import pool, scratch


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def test_scratch_stays_after_an_error_and_goes_after_success(tmp_path):
    def fail():
        with scratch("codec", "abc") as work:
            (work / "step.txt").write_text("50")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with scratch("codec", "abc") as work:
        assert (work / "step.txt").read_text() == "50"
    with scratch("codec", "abc") as work:
        assert not list(work.iterdir())
    assert not list((tmp_path / ".work").iterdir())


def test_a_pool_stays_and_each_key_has_its_own(tmp_path):
    with pool("prepare", "abc") as work:
        (work / "found").touch()
    with pool("prepare", "abd") as work:
        assert not list(work.iterdir())
    with pool("prepare", "abc") as work:
        assert (work / "found").exists()
    assert sorted(path.name for path in (tmp_path / ".work").iterdir()) == ["prepare-abc", "prepare-abd"]


RUN = """
import sys, time
from specmaskfoley.storage.scratch import scratch
with scratch("codec", "abc") as work:
    state = "resumed" if (work / "seen").exists() else "new"
    (work / "seen").touch()
    print(state, flush=True)  # from here on it may be killed
    time.sleep(float(sys.argv[1]))
"""


def start(seconds):
    return subprocess.Popen([sys.executable, "-c", RUN, str(seconds)], stdout=subprocess.PIPE, text=True)


def test_second_run_waits_and_says_for_whom():
    first = start(1.5)
    assert first.stdout.readline() == "new\n"
    second = start(0)
    assert f"process {first.pid} is doing the same work; waiting" in second.stdout.readline()
    assert second.stdout.readline() == "new\n"  # what the first finished is gone
    assert (first.wait(), second.wait()) == (0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_run_is_continued():
    first = start(60)
    assert first.stdout.readline() == "new\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start(0)
    assert second.stdout.readline() == "resumed\n"
    assert second.wait() == 0
