import os
import signal
import subprocess
import sys
import types

import pytest

from specmaskfoley.storage.scratch import fingerprint, scratch


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def test_scratch_stays_after_an_error_and_goes_after_success(tmp_path):
    def fail():
        with scratch("codec", {"a": 1}, []) as work:
            (work / "step.txt").write_text("50")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with scratch("codec", {"a": 1}, []) as work:
        assert (work / "step.txt").read_text() == "50"
    with scratch("codec", {"a": 1}, []) as work:
        assert not list(work.iterdir())
    assert not list((tmp_path / ".work").iterdir())


def test_fingerprint_follows_settings_files_names_and_code(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint({"x": 1, "y": 2}, [folder])
    assert len(first) == 16
    assert fingerprint({"y": 2, "x": 1}, [folder]) == first
    assert fingerprint({"x": 1, "y": 3}, [folder]) != first
    (folder / "a").write_text("2")
    assert fingerprint({"x": 1, "y": 2}, [folder]) != first
    (folder / "a").write_text("1")
    os.utime(folder / "a", (1, 1))
    assert fingerprint({"x": 1, "y": 2}, [folder]) == first
    (folder / "a").rename(folder / "b")
    assert fingerprint({"x": 1, "y": 2}, [folder]) != first
    (folder / "b").rename(folder / "a")

    source = tmp_path / "invented.py"
    source.write_text("x = 1")
    module = types.ModuleType("specmaskfoley.invented")
    module.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "specmaskfoley.invented", module)
    with_module = fingerprint({"x": 1, "y": 2}, [folder])
    source.write_text("x = 2")
    assert fingerprint({"x": 1, "y": 2}, [folder]) != with_module


def test_missing_input_names_the_path(tmp_path):
    with pytest.raises(ValueError, match="absent"):
        fingerprint({}, [tmp_path / "absent"])


# Runs are processes of their own: the fingerprint covers the modules each has loaded.
RUN = """
import sys, time
from specmaskfoley.storage.scratch import scratch
with scratch("codec", 1, []) as work:
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
