import hashlib
import os

import pytest

from specmaskfoley.storage.files import atomic_path, read_json, sha256, sha256_text, show_size, write_json


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_temporary_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "a.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.touch()


def test_json_keeps_order_and_floats(tmp_path):
    path = tmp_path / "m.json"
    write_json(path, {"z": 0.1, "a": [1, {"b": "é"}], "n": None})
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": 0.1,\n  "a"')
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert read_json(path) == {"z": 0.1, "a": [1, {"b": "é"}], "n": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_names_its_key(tmp_path, value):
    with pytest.raises(ValueError, match=r"scores\.fd\[1\] is (nan|inf)"):
        write_json(tmp_path / "m.json", {"scores": {"fd": [1.0, value]}})
    assert not (tmp_path / "m.json").exists()


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ValueError, match=r"m\.json: not valid JSON"):
        read_json(tmp_path / "m.json")
    with pytest.raises(ValueError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes("é".encode())
    assert sha256(tmp_path / "a") == sha256_text("é") == hashlib.sha256("é".encode()).hexdigest()


def test_sizes_for_people():
    shown = [show_size(size) for size in (0, 999, 1000, 1_540_000, 950_009_856, 5e9, 2e12, None)]
    assert shown == ["0 B", "999 B", "1.0 kB", "1.5 MB", "950.0 MB", "5.0 GB", "2000.0 GB", "unstated"]
