"""What is to be heard and what is not, as it is given, and as the networks take it."""

from __future__ import annotations

import itertools
import math
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from specmaskfoley.foley import Foley
from specmaskfoley.foley.prompts import Part, Prompt, embed, parse_texts
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import write_audio

RATE = 22050
words = st.text(string.ascii_letters + string.digits + " ,:.-äß雨", min_size=1, max_size=20).filter(str.strip)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    """Parts that do not overlap, in any order; some touch, and some say the same."""
    edges = sorted(draw(st.lists(st.integers(0, 800), min_size=2, max_size=12, unique=True)))
    between = list(itertools.pairwise(edges))
    chosen = [one for one in between if draw(st.booleans())] or between[:1]
    said = draw(st.lists(words, min_size=1, max_size=3))
    made = [(begin / 20, end / 20, draw(st.sampled_from(said))) for begin, end in chosen]
    return draw(st.permutations(made))


@given(parts())
def test_every_moment_has_the_words_of_the_part_that_holds_it(given):
    prompt = Prompt.of(given)
    assert prompt.given
    assert list(prompt.parts) == sorted((begin, end, said.strip()) for begin, end, said in given)
    assert len(set(prompt.texts)) == len(prompt.texts)
    centres_s = np.arange(0, 45, 0.025)
    at = prompt.columns(centres_s)
    assert at is not None
    for centre, which in zip(centres_s, at, strict=True):
        expected = [said.strip() for begin, end, said in given if begin <= centre < end]
        assert ([] if which < 0 else [prompt.texts[which]]) == expected


@given(parts(), st.data())
def test_parts_that_overlap_are_refused(given, data):
    begin, end, _ = data.draw(st.sampled_from(given))
    middle = (begin + end) / 2
    with pytest.raises(ValueError, match=r"text .*: the next part begins before its end"):
        Prompt.of([*given, (middle, middle + data.draw(st.floats(0.01, 50)), "rain")])


@given(parts(), st.sampled_from(["", " "]), st.booleans())
def test_parts_come_back_from_the_command_line(given, space, together):
    said = [f"{begin}{space}-{space}{end}{space}:{space}{text}" for begin, end, text in given]
    expected = [(begin, end, text.strip()) for begin, end, text in given]
    assert parse_texts(["; ".join(said)] if together else said) == expected
    if together:
        assert parse_texts(["\n".join(said)]) == expected


@given(st.text())
def test_other_texts_are_taken_as_they_are(text):
    found = parse_texts([text])
    if isinstance(found, str):
        assert found.strip() == text.strip()
    else:
        assert text.strip()[0].isdigit()


@pytest.mark.parametrize(
    "text", ["", "rain", "12-bar blues", "3 - 2 = 1", "at 3:15, a train", "0-3 footsteps", "\u0661-\u0662: x"]
)
def test_what_is_no_part_is_a_text(text):
    assert parse_texts([text]) == text


def test_one_of_several_that_is_no_part_is_named():
    with pytest.raises(ValueError, match=r"--text 'rain': one of several is for a part, such as '0-3: footsteps'"):
        parse_texts(["0-3: footsteps", "rain"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([(1, 1, "rain")], "text 1-1: expected seconds from 0 on, the earlier first"),
        ([(2, 1, "rain")], "text 2-1: expected seconds"),
        ([(-1, 1, "rain")], "text -1-1: expected seconds"),
        ([(0, math.nan, "rain")], "text 0-nan: expected seconds"),
        ([(math.inf, math.inf, "rain")], "text inf-inf: expected seconds"),
        ([(0, 1, " ")], "text 0-1: there are no words"),
    ],
)
def test_a_wrong_part_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        Prompt.of(text)


@pytest.mark.parametrize("text", ["rain", [(0, 1, "rain")]])
def test_words_and_a_sound_exclude_each_other(text):
    with pytest.raises(ValueError, match=r"like=rain\.wav: a prompt is words or a sound"):
        Prompt.of(text, like="rain.wav")


def test_where_nothing_is_said_the_video_decides():
    assert not Prompt.of().given
    assert not Prompt.of(" ", negative="rain").given
    assert not Prompt.of([]).given
    assert Prompt.of(like="rain.wav").given
    assert Prompt.of(" rain ", " dog\n") == Prompt(text="rain", negative="dog")


def test_a_part_that_no_token_takes_is_refused():
    centres_s = np.arange(0.1, 4, 0.2)
    prompt = Prompt.of([(1.12, 1.28, "rain"), (2, 3, "door")])
    with pytest.raises(ValueError, match=r"text 1\.12-1\.28: too short; the model's tokens are 0\.20 s long"):
        prompt.columns(centres_s)
    with pytest.raises(ValueError, match=r"text 2-3: the sound ends at 2\.00 s"):
        prompt.check(2.0)
    prompt.check(2.1)


# ---- as the networks take it ----


def test_each_text_is_embedded_once(foley: Foley):
    prompt = Prompt.of([(0, 1, "rain"), (1, 2, "door"), (2, 3, "rain")], negative="dog")
    found, negative = embed(prompt, foley.features)
    assert negative is not None
    torch.testing.assert_close(found, foley.features.text_prompt(["rain", "door"]).float())
    torch.testing.assert_close(negative, foley.features.text_prompt(["dog"])[0].float())
    assert embed(Prompt.of("rain"), foley.features)[1] is None


def wave(seconds: float, hertz: float) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * times) * (1 + np.sin(2 * np.pi * 3 * times))).astype(np.float32)


def heard(foley: Foley, sound: np.ndarray, path: Path) -> torch.Tensor:
    write_audio(path, sound, RATE)
    found, negative = embed(Prompt.of(like=path), foley.features)
    assert negative is None
    assert found.shape == (1, foley.features.prompt_encoder.embed_text(["rain"]).shape[1])
    assert found.norm() == pytest.approx(1.0)
    return found[0]


def by_hand(foley: Foley, path: Path, starts_s: list[float]) -> torch.Tensor:
    encoder = foley.features
    sound = encoder.prompt_sound
    waves = [
        read_audio(path, sample_rate=sound.sample_rate, num_samples=sound.num_samples, start_s=start, peak=sound.peak)
        for start in starts_s
    ]
    return normalize(encoder.audio_prompt(torch.from_numpy(np.stack(waves))).float().mean(0), dim=0)


def test_a_sound_to_be_like_is_heard_in_windows_that_are_not_silent(foley: Foley, tmp_path: Path):
    path, long = tmp_path / "a.wav", foley.features.prompt_sound.duration_s
    sound = np.concatenate([wave(long, 300), np.zeros(round(2 * long * RATE), np.float32), wave(long, 2000)])
    found = heard(foley, sound, path)
    torch.testing.assert_close(found, by_hand(foley, path, [0, 3 * long]))
    assert (found - by_hand(foley, path, [0])).norm() > 0.01
    assert (found - by_hand(foley, path, [0, long, 2 * long, 3 * long])).norm() > 0.01


def test_the_rest_of_a_long_sound_and_the_silence_after_a_short_one(foley: Foley, tmp_path: Path):
    path, long = tmp_path / "a.wav", foley.features.prompt_sound.duration_s
    torch.testing.assert_close(heard(foley, wave(1.1 * long, 300), path), by_hand(foley, path, [0]))
    torch.testing.assert_close(heard(foley, wave(1.6 * long, 300), path), by_hand(foley, path, [0, long]))
    torch.testing.assert_close(heard(foley, wave(0.2 * long, 300), path), by_hand(foley, path, [0]))
    late = np.concatenate([np.zeros(round(long * RATE), np.float32), wave(0.2 * long, 300)])
    torch.testing.assert_close(heard(foley, late, path), by_hand(foley, path, [long]))


def test_a_very_long_sound_is_heard_in_eight_places(foley: Foley, tmp_path: Path):
    path, long = tmp_path / "a.wav", foley.features.prompt_sound.duration_s
    found = heard(foley, np.concatenate([wave(long, 100 * 1.2**number) for number in range(15)]), path)
    torch.testing.assert_close(found, by_hand(foley, path, [2 * number * long for number in range(8)]))


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_nothing_is_made_like_silence(foley: Foley, tmp_path: Path, level):
    write_audio(tmp_path / "a.wav", np.full(RATE, level, np.float32), RATE)
    with pytest.raises(ValueError, match=r"a\.wav: is silent"):
        embed(Prompt.of(like=tmp_path / "a.wav"), foley.features)
