"""The cache of judged features: arrays come back as they went in, and a kill leaves whole rows."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from specmaskfoley.storage.feature_cache import FeatureCache, content_key

WRITER = """
import sys
import numpy as np
from specmaskfoley.storage.feature_cache import FeatureCache
with FeatureCache(sys.argv[1]) as cache:
    for number in range(100_000):
        cache.put({f"{number} {part}": {"x": np.full(5000, number)} for part in range(3)})
"""


def test_arrays_come_back(tmp_path):
    rng = np.random.default_rng(0)
    rows = {
        "a": {"x": rng.normal(size=(3, 2)).astype(np.float16), "y": np.zeros(0)},
        "b": {"x": np.float32(rng.normal(size=()))},
    }
    with FeatureCache(tmp_path / "c.sqlite") as cache:
        cache.put(rows)
    with FeatureCache(tmp_path / "c.sqlite") as cache:
        for name, arrays in rows.items():
            found = cache.get(name)
            assert sorted(found) == sorted(arrays)
            for key, array in arrays.items():
                np.testing.assert_array_equal(found[key], array)
                assert found[key].dtype == np.asarray(array).dtype
        names = [f"n{number}" for number in range(2500)]
        assert cache.known([*names, "b", "a", "a"]) == {"a", "b"}
        with pytest.raises(KeyError, match="c"):
            cache.get("c")
        cache.put({"a": {"z": np.ones(1)}})
        assert list(cache.get("a")) == ["z"]


def test_a_file_that_is_no_cache_is_named(tmp_path):
    (tmp_path / "c.sqlite").write_text("this is no database, and long enough to be looked at" * 100)
    with pytest.raises(ValueError, match=r"c\.sqlite: not a cache of features .* delete it"):
        FeatureCache(tmp_path / "c.sqlite")


def test_a_kill_leaves_whole_rows(tmp_path):
    path = tmp_path / "c.sqlite"
    for pause in (0.0, 0.05, 0.2):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            deadline = time.monotonic() + 60
            while not path.exists() or path.stat().st_size < 1_000_000:
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(pause)
            writer.kill()
        with FeatureCache(path) as cache:
            number = 0
            while cache.known([f"{number} 0"]):
                for part in range(3):
                    np.testing.assert_array_equal(cache.get(f"{number} {part}")["x"], np.full(5000, number))
                number += 1
            assert number > 3
        path.unlink()


def test_the_key_is_the_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [content_key(tmp_path / name) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 32
