"""Which clips are scored: one list for all systems, and nothing left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmaskfoley.evaluation.agreement import (
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    Agreement,
    Found,
    agree,
    clip_of,
    find_files,
)
from specmaskfoley.media.sound import SoundFacts
from specmaskfoley.processes.isolation import Lost

GOOD = SoundFacts(10.0, 22050, 0.5, True)
ID = "zxpo56cpUBU_000007"
clips = st.sampled_from("abcdefgh")


def found(side: str, names: str) -> Found:
    return Found({name: Path(side, name) for name in names}, {})


def facts_of(*sides: Found, **odd: SoundFacts | Lost) -> dict[Path, SoundFacts | Lost]:
    """All are good but for those named: `b_x` is x of side b."""
    facts: dict[Path, SoundFacts | Lost] = {path: GOOD for side in sides for path in side.files.values()}
    return facts | {Path(*name.split("_")): fact for name, fact in odd.items()}


def test_only_what_every_system_has_is_scored():
    reference, first, second = found("r", "abcd"), found("x", "abce"), found("y", "bcd")
    made = agree(reference, reference, {"x": [first], "y": [second]}, facts_of(reference, first, second), 10.0, 9.0)
    assert made.clips == ("b", "c")
    assert made.coverage == 0.5
    assert list(made.excluded.items()) == [
        ("d", "x: no sound of this name"),
        ("a", "y: no sound of this name"),
        ("e", "x: the reference has no such clip"),
    ]
    assert made.noted == {}


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        (Lost("corrupt", "no sound can be decoded"), "x: corrupt: no sound can be decoded"),
        (SoundFacts(10.0, 22050, 0.5, False), "x: holds NaN or infinite samples"),
        (SoundFacts(8.0, 22050, 0.5, True), "x: lasts 8.00 s, at least 9.75 s are needed"),
    ],
)
def test_what_cannot_be_scored_is_left_out_of_all_systems(fact, told):
    reference, first, second = found("r", "abc"), found("x", "abc"), found("y", "abc")
    facts = facts_of(reference, first, second, x_b=fact)
    made = agree(reference, None, {"x": [first], "y": [second]}, facts, 10.0, 9.0)
    assert made.clips == ("a", "c")
    assert made.excluded == {"b": told}


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        (SoundFacts(10.0, 22050, 0.0, True), "silent"),
        (SoundFacts(11.0, 22050, 0.5, True), "lasts 11.00 s, most others 10.00 s"),
        (SoundFacts(10.0, 16000, 0.5, True), "16000 Hz, most others 22050 Hz"),
    ],
)
def test_what_is_odd_is_scored_and_named(fact, told):
    reference, first = found("r", "abc"), found("x", "abc")
    made = agree(reference, None, {"x": [first]}, facts_of(reference, first, x_b=fact), 10.0, 9.0)
    assert made.clips == ("a", "b", "c")
    assert made.noted == {"b": f"x: {told}"}


def test_a_clip_is_scored_though_odd_or_not_scored_and_never_both():
    reference, first, second = found("r", "abc"), found("x", "abcz"), found("y", "ab")
    facts = facts_of(reference, first, second, x_c=SoundFacts(10.0, 22050, 0.0, True))  # silent, and missing in y
    made = agree(reference, None, {"x": [first], "y": [second]}, facts, 10.0, 9.0)
    assert made.excluded == {"c": "y: no sound of this name", "z": "x: the reference has no such clip"}
    assert made.noted == {}


def test_a_sound_may_be_as_short_as_its_reference():
    reference, first = found("r", "abcd"), found("x", "abcd")
    short = {"r_b": SoundFacts(9.2, 22050, 0.5, True), "r_c": SoundFacts(8.9, 22050, 0.5, True)}
    generated = {"x_a": SoundFacts(9.2, 22050, 0.5, True), "x_b": SoundFacts(9.2, 22050, 0.5, True)}
    facts = facts_of(reference, first, **short, **generated)
    made = agree(reference, None, {"x": [first]}, facts, 10.0, 9.0)
    assert made.clips == ("b", "d")
    assert made.excluded["a"] == "x: lasts 9.20 s, at least 9.75 s are needed"
    assert made.excluded["c"].startswith("reference: lasts 8.90 s, at least 9.00 s")


def test_takes_and_videos_are_named():
    reference, takes, videos = found("r", "ab"), [found("x", "ab"), found("y", "a")], found("v", "a")
    made = agree(reference, videos, {"x": takes}, facts_of(reference, *takes), 10.0, 9.0)
    assert made.excluded == {"b": "x, take 1: no sound of this name; videos: no video of this name"}


@given(st.sets(clips), st.lists(st.sets(clips), min_size=1, max_size=3))
def test_every_wanted_clip_is_scored_or_has_a_reason(wanted: set[str], has: list[set[str]]):
    reference = found("r", "".join(wanted))
    systems = {f"s{number}": [found(f"s{number}", "".join(names))] for number, names in enumerate(has)}
    facts = facts_of(reference, *(take for takes in systems.values() for take in takes))
    made = agree(reference, None, systems, facts, 10.0, 9.0)
    assert set(made.clips) == wanted.intersection(*has)
    assert set(made.excluded) | set(made.clips) == wanted.union(*has)
    assert not set(made.excluded) & set(made.clips)


def test_too_few_clips_are_an_error_that_names_them():
    made = Agreement(("a", "b"), 4, {"c": "x: no sound of this name", "d": "x: holds NaN"}, {})
    made.check(0.5)
    with pytest.raises(ValueError, match=r"only 2 of 4 clips \(50.0%\).*min_coverage=0.6.*c: x: no sound.*d: x: holds"):
        made.check(0.6)
    with pytest.raises(ValueError, match="at least 2 clips"):
        Agreement(("a",), 1, {}, {}).check(0.0)


def test_the_hash_is_of_the_list_alone():
    assert Agreement(("a", "b"), 2, {}, {}).hash == Agreement(("b", "a"), 9, {"c": "x"}, {}).hash
    assert Agreement(("a", "b"), 2, {}, {}).hash != Agreement(("a",), 2, {}, {}).hash


# ---- names ----


@pytest.mark.parametrize("stem", [ID, f"000000014_{ID}-0", f"{ID}-0", f"Y{ID}_0"])
def test_names_are_cut_as_av_benchmark_does(stem):
    assert clip_of(stem, frozenset([ID])) == ID
    assert clip_of(stem, frozenset(["other"])) == stem


def test_a_name_of_the_right_length_is_not_cut_into_nonsense():
    stem = "twenty-letters-here!"
    assert clip_of(stem, frozenset([stem[:18]])) == stem


def test_files_of_a_folder(tmp_path):
    for name in ("a.wav", "b.FLAC", "b.wav", "deep/c.mp3", ".hidden.wav", ".tmp/d.wav", "notes.txt", f"Y{ID}_0.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    made = find_files(tmp_path, SOUND_SUFFIXES, known=[ID])
    assert made.files == {
        "a": tmp_path / "a.wav", "c": tmp_path / "deep" / "c.mp3", ID: tmp_path / f"Y{ID}_0.wav"
    }  # fmt: skip
    assert made.trouble == {"b": "2 files of one name (b.FLAC, b.wav)"}
    for name in ("a.mp4", "a.json", "b.mp4", "deep/a.mp4", "e.mp4", "e.mkv"):
        (tmp_path / name).touch()
    made = find_files(tmp_path, (*SOUND_SUFFIXES, *VIDEO_SUFFIXES))
    assert made.trouble == {
        "a": "3 files of one name (a.mp4, a.wav, deep/a.mp4)",
        "b": "3 files of one name (b.FLAC, b.mp4, b.wav)",
        "e": "2 files of one name (e.mkv, e.mp4)",
    }
    (tmp_path / "deep" / "a.mp4").unlink()
    assert find_files(tmp_path, (*SOUND_SUFFIXES, *VIDEO_SUFFIXES)).files["a"] == tmp_path / "a.wav"
    assert sorted(find_files(tmp_path, SOUND_SUFFIXES, "*.wav").files) == [f"Y{ID}_0", "a", "b"]
    with pytest.raises(ValueError, match=r"no file '\*\.ogg'"):
        find_files(tmp_path, SOUND_SUFFIXES, "*.ogg")
    with pytest.raises(ValueError, match="not a folder"):
        find_files(tmp_path / "absent", SOUND_SUFFIXES)
