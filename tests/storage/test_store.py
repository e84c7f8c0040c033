"""The store of costly results: values come back as they went in, and a kill leaves whole entries."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from specmaskfoley.storage.store import Store

WRITER = """
import sys
import numpy as np
from specmaskfoley.storage.store import Store
with Store(sys.argv[1]) as store:
    for number in range(100_000):
        store.put({f"{number} {part}": {"x": np.full(5000, number)} for part in range(3)})
"""

FULL = """
import resource, signal, sys
from specmaskfoley.storage.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Store(sys.argv[1]) as store:
    store.put({"small": {"x": 1}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        store.put({"large": "x" * 1_000_000})
    except ValueError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_arrays_come_back(tmp_path):
    rng = np.random.default_rng(0)
    rows = {
        "a": {"x": rng.normal(size=(3, 2)).astype(np.float16), "y": np.zeros(0)},
        "b": {"x": np.float32(rng.normal(size=()))},
    }
    with Store(tmp_path / "c.sqlite") as store:
        store.put(rows)
    with Store(tmp_path / "c.sqlite") as store:
        for name, arrays in rows.items():
            found = store[name]
            assert sorted(found) == sorted(arrays)
            for key, array in arrays.items():
                np.testing.assert_array_equal(found[key], array)
                assert found[key].dtype == np.asarray(array).dtype
        names = [f"n{number}" for number in range(2500)]
        assert store.known([*names, "b", "a", "a"]) == {"a", "b"}
        with pytest.raises(KeyError, match="c"):
            store["c"]
        store.put({"a": {"z": np.ones(1)}})
        assert list(store.get("a")) == ["z"]


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "c.sqlite").write_text("this is no database, and long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=r"c\.sqlite: cannot be read or written .* delete it"):
        Store(tmp_path / "c.sqlite")


def test_a_kill_leaves_whole_rows(tmp_path):
    path, log = tmp_path / "c.sqlite", tmp_path / "c.sqlite-wal"  # a third file, the journal, comes and goes
    for pause in (0.0, 0.05, 0.2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            deadline = time.monotonic() + 240
            while sum(file.stat().st_size for file in (path, log) if file.exists()) < 1_000_000:
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(pause)
            writer.kill()
        with Store(path) as store:
            number = 0
            while store.known([f"{number} 0"]):
                for part in range(3):
                    np.testing.assert_array_equal(store[f"{number} {part}"]["x"], np.full(5000, number))
                number += 1
            assert number > 3
        path.unlink()  # closing has removed the write-ahead log


def test_json_comes_back_and_reading_writes_nothing(tmp_path):
    path, value = tmp_path / "s.sqlite", {"state": "ready", "numbers": [1, 2.5, None], "name": "é"}
    with Store(path) as store:
        store.put({"é": value, "empty": {}})
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with Store(path) as store:
        assert (store.get("é"), store.get("empty"), store.get("absent")) == (value, {}, None)
        assert store.known(["é", "absent"]) == {"é"}
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.sqlite"]


def test_many_threads_put(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:

        def work(first):
            for number in range(first, 400, 8):
                store.put({str(number): {"number": number}})
                assert store[str(number)] == {"number": number}

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert len(store.known(map(str, range(400)))) == 400


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "s.sqlite")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "s.sqlite: cannot be read or written" in done.stdout
    assert "make room on the disk" in done.stdout
    with Store(tmp_path / "s.sqlite") as store:
        assert store.known(["small", "large"]) == {"small"}
