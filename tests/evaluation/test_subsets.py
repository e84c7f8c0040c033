"""VGGSounder's subset, from the annotations in the real package."""

from __future__ import annotations

import csv
import sys

import pytest

from specmaskfoley.evaluation.subsets import vggsounder_clips


def test_only_clips_whose_own_class_is_heard_and_seen_are_kept() -> None:
    pytest.importorskip("vggsounder", reason="pip install -e '.[paper]'")
    labels = {
        "-0BIyqJj9ZU_000030": "people giggling",  # AV
        "-0BIyqJj9ZU_000031": "people giggling",  # no such clip
        "---g-f_I2yQ_000001": "people marching",  # AV, but with background music
        "--i-y1v8Hy8_000000": "child singing",  # AV, but with voice-over
    }
    assert vggsounder_clips(labels) == {"-0BIyqJj9ZU_000030"}
    assert vggsounder_clips({"-0BIyqJj9ZU_000030": "baby laughter"}) == set()  # audible only
    assert vggsounder_clips({"-0BIyqJj9ZU_000030": "playing cello"}) == set()  # not annotated there
    assert vggsounder_clips({}) == set()


def test_kept_clips_satisfy_the_published_table() -> None:
    """The rule once more, straight from the rows."""
    package = pytest.importorskip("vggsounder", reason="pip install -e '.[paper]'")
    with open(package.VGGSounder().csv_path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    flags = ("background_music", "static_image", "voice_over")
    one_each = {row["video_id"]: row["label"] for row in rows}
    suited = {
        row["video_id"]
        for row in rows
        if one_each[row["video_id"]] == row["label"]
        and row["modality"] == "AV"
        and all(row[flag] == "False" for flag in flags)
    }
    assert 0 < len(suited) < len(one_each)
    assert vggsounder_clips(one_each) == suited


def test_of_the_test_split(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("vggsounder", reason="pip install -e '.[paper]'")
    path = request.config.getoption("--clips").parent / "splits" / "vgg-test.tsv"
    if not path.is_file():
        pytest.skip(f"no {path}; it is looked for beside the folder that --clips names")
    with path.open(encoding="utf-8") as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file, delimiter="\t")}
    kept = vggsounder_clips(labels)
    assert kept < labels.keys()
    assert {len(clip) for clip in kept} == {18}
    assert (len(labels), len(kept)) == (15221, 5566)


def test_classes_spelt_otherwise_are_an_error() -> None:
    pytest.importorskip("vggsounder", reason="pip install -e '.[paper]'")
    with pytest.raises(ValueError, match="people_giggling"):
        vggsounder_clips({"-0BIyqJj9ZU_000030": "people_giggling"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vggsounder", None)
    with pytest.raises(ValueError, match=r"vggsounder is not installed: run pip install -e '\.\[paper\]'"):
        vggsounder_clips({})
