"""weights.lock.yaml: the real one, and mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from specmaskfoley.settings import Params
from specmaskfoley.weights.lock import locked, read_lock

ENTRY = {"role": "r", "file": "x.pth", "url": "https://x", "licence": "MIT", "commercial": "allowed", "page": "p"}


def test_the_real_lock_is_read_and_every_download_is_from_a_safe_place():
    lock = read_lock(ROOT / "weights.lock.yaml")
    assert len(lock) == 21
    for entry in lock.values():
        assert entry.page.startswith("https://")
        assert (entry.address or "https://").startswith("https://")
        assert entry.address or "https://" in str(entry.by_hand)
    assert lock["roberta_base_merges"].address == (
        "https://huggingface.co/FacebookAI/roberta-base/resolve/e2da8e2f811d1448a5b465c236feacd80ffbac7b/merges.txt"
    )
    forbidden = {name for name, entry in lock.items() if entry.commercial == "forbidden"}
    assert forbidden == {"dfn5b_clip", "imagebind", "magnet_small", "encodec_16khz"}


def test_the_files_of_one_tokenizer_lie_in_one_folder():
    lock = read_lock(ROOT / "weights.lock.yaml")
    folders = {str(Path(entry.file).parent) for name, entry in lock.items() if name.startswith("roberta_base")}
    assert folders == {"roberta-base"}


def test_every_profile_needs_what_the_lock_has():
    lock = read_lock(ROOT / "weights.lock.yaml")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for profile in raw["profiles"]:
        needed = Params.from_mapping({**raw, "profile": profile}).needed_weights()
        assert set(needed) <= set(lock)
        assert bool(needed) != profile.startswith("mini")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, "x: needs exactly one of url, hub and by_hand"),
        ({"by_hand": "ask"}, "x: needs exactly one of url, hub and by_hand"),
        ({"file": "/etc/passwd"}, "must lie under weights.folder"),
        ({"file": "../x"}, "must lie under weights.folder"),
        ({"sha256": "ABC"}, r"x\.sha256: String should match"),
        ({"md5": "12"}, r"x\.md5: String should match"),
        ({"size": 0}, r"x\.size: Input should be greater than 0"),
        ({"size": "big"}, r"x\.size: Input should be a valid integer"),
        ({"commercial": True}, r"x\.commercial: Input should be"),
        ({"licence": None}, r"x\.licence: Input should be a valid string"),
        ({"colour": "red"}, r"x\.colour: Extra inputs"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    path = tmp_path / "weights.lock.yaml"
    path.write_text(yaml.safe_dump({"x": {**ENTRY, **change}}))
    with pytest.raises(ValueError, match=message) as caught:
        read_lock(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- a", "expected a mapping"), (None, "no such")]
)
def test_a_file_that_is_no_lock(tmp_path, text, message):
    path = tmp_path / "weights.lock.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_lock(path)


def test_two_entries_of_one_file_and_unknown_names(tmp_path):
    path = tmp_path / "weights.lock.yaml"
    path.write_text(yaml.safe_dump({"x": ENTRY, "y": ENTRY}))
    with pytest.raises(ValueError, match=r"x\.file='x\.pth' is the file of another entry"):
        read_lock(path)
    path.write_text(yaml.safe_dump({"x": ENTRY}))
    with pytest.raises(ValueError, match=r"z: not in weights\.lock\.yaml \(known: x\)"):
        locked("z", read_lock(path))
