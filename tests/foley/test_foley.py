"""The Python API: load, generate, save, edit."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.untrained import write_noise
from scipy import signal

from specmaskfoley.device import precision_name
from specmaskfoley.foley import Foley, Stopped, Take
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_track, resample
from specmaskfoley.media.writing import mux, write_audio
from specmaskfoley.sampling.generator import clip_seed


def same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.fixture(scope="module")
def take(foley: Foley, video: Path) -> Take:
    return foley.generate(video, text="playing drum", seed=3)[0]


def test_three_lines(model: Path, video: Path, tmp_path: Path):
    foley = Foley.load(model)
    take = foley.generate(video, text="playing drum")[0]
    saved = take.save(tmp_path / "out" / "clip v1.0")
    assert saved.audio.name == "clip v1.0.flac"
    wave, rate = soundfile.read(saved.audio)
    assert len(wave) / rate == pytest.approx(6.0, abs=1 / rate)
    assert 0 < np.abs(wave).max() < 1
    assert probe(saved.video).duration_s == pytest.approx(6.0, abs=0.001)
    assert not same(foley.generate(video, text="playing drum", seed=1)[0].waveform, take.waveform)


def test_the_record_says_what_was_done_with_what(video: Path, take: Take, foley: Foley, tmp_path: Path):
    edited = foley.regenerate(take, only=(1.0, 2.5), text="door", seed=9)[0]
    record = json.loads(edited.save(tmp_path / "a").record.read_text(encoding="utf-8"))
    first, second = record["history"]
    made = foley.generate(video, text=first["text"], **first["sampling"])[0]
    made = foley.regenerate(made, only=second["only"], text=second["text"], **second["sampling"])[0]
    assert same(made.waveform, edited.waveform)
    assert made.record == edited.record
    for kind in ("video", "model", "versions", "settings"):
        assert record[kind], kind
    precision = precision_name("auto", torch.device("cpu"))
    assert record["made_on"] == {
        "device": f"cpu ({torch.get_num_threads()} threads)", "encoders": precision, "sampler": precision,
    }  # fmt: skip
    assert {len(digest) for digest in record["model"].values()} == {64}


def test_a_copy_of_the_video_elsewhere_gets_the_same_sound(foley: Foley, video: Path, take: Take, tmp_path: Path):
    copy = Path(shutil.copy(video, tmp_path / "other name.mp4"))
    assert same(foley.generate(copy, text="playing drum", seed=3)[0].waveform, take.waveform)


def test_only_windows_that_know_something_name_it(foley: Foley, video: Path, monkeypatch: pytest.MonkeyPatch):
    """From nothing the sampler has a constant first step, and on a GPU one graph for all steps."""
    named = []
    draw = foley.generator.tokens
    monkeypatch.setattr(foley.generator, "tokens", lambda **given: named.append(given["known"]) or draw(**given))
    foley.generate(video)
    first, *others = named
    assert first is None
    assert len(others) >= 1
    assert all(known is not None and known[1].any() and not known[1].all() for known in others)


def test_candidates_are_the_takes_of_their_seeds_the_best_first(foley: Foley, video: Path, take: Take):
    takes = foley.generate(video, text="playing drum", seed=2, candidates=3)
    assert sorted(one.seed for one in takes) == [2, 3, 4]
    scores = [one.scores["overall"] for one in takes if one.scores]
    assert scores == sorted(scores, reverse=True)
    assert same(next(one for one in takes if one.seed == 3).waveform, take.waveform)
    for one in takes:
        assert [entry["seed"] for entry in one.record["candidates"]] == [other.seed for other in takes]


def test_regenerating_keeps_every_other_sample(foley: Foley, take: Take):
    new = foley.regenerate(take, only=(1.0, 2.0), seed=5)[0]
    changed = np.flatnonzero(np.asarray(new.waveform) != np.asarray(take.waveform))
    assert 1.0 * take.sample_rate <= changed.min()
    assert changed.max() < 2.0 * take.sample_rate
    assert len(changed) > 0.9 * take.sample_rate
    width_s = foley.params.audio.patch * foley.params.audio.hop_length / take.sample_rate
    outside = [column for column in range(take.tokens.shape[1]) if not 1.0 - width_s < column * width_s < 2.0]
    np.testing.assert_array_equal(new.tokens[:, outside], take.tokens[:, outside])


def test_the_same_range_with_the_same_seed_is_the_same(foley: Foley, take: Take):
    new = [foley.regenerate(take, only=[(1.0, 2.0), (4.0, 4.5)], seed=5)[0].waveform for _ in range(2)]
    assert same(*new)


def test_the_videos_own_sound_is_edited_at_its_own_rate(foley: Foley, video: Path, tmp_path: Path):
    own = foley.listen(video)
    assert own.sample_rate == 16000
    new = foley.regenerate(own, only=(2.0, 3.0))[0]
    saved = new.save(tmp_path / "a", format="wav")
    wave, rate = soundfile.read(saved.audio, dtype="float32")
    assert rate == 16000
    before = np.clip(np.rint(np.asarray(own.waveform, np.float64) * 2**23), -(2**23), 2**23 - 1) / 2**23
    np.testing.assert_array_equal(wave[: 2 * rate], before[: 2 * rate])
    np.testing.assert_array_equal(wave[3 * rate :], before[3 * rate :])


def test_a_given_stereo_file_keeps_its_bits_and_goes_on(foley: Foley, video: Path, tmp_path: Path):
    stereo = np.random.default_rng(0).uniform(-0.3, 0.3, (4 * 44100, 2)).astype(np.float32)
    stereo[44100:66150] = 0
    write_audio(tmp_path / "given.wav", stereo, 44100)
    pcm = soundfile.read(tmp_path / "given.wav", dtype="int16")[0]
    new = foley.regenerate(foley.listen(video, tmp_path / "given.wav"))[0]
    made, rate = soundfile.read(new.save(tmp_path / "a").audio, dtype="int16")
    assert (rate, len(made)) == (44100, 6 * 44100)
    fade = round(0.02 * 44100)
    np.testing.assert_array_equal(made[:44100], pcm[:44100])
    np.testing.assert_array_equal(made[66150 : 4 * 44100 - fade], pcm[66150:-fade])
    assert np.abs(made[44100 + fade : 66150 - fade].astype(int)).max() > 0, "the hole is filled"
    assert np.abs(made[4 * 44100 :].astype(int)).max() > 0, "it goes on"


def test_a_sound_without_holes_needs_a_range(foley: Foley, video: Path, tmp_path: Path):
    write_audio(tmp_path / "whole.wav", np.full(6 * 16000, 0.1, np.float32), 16000)
    with pytest.raises(ValueError, match="no silent hole"):
        foley.regenerate(foley.listen(video, tmp_path / "whole.wav"))


def test_bands_are_added_above_and_nothing_else(foley: Foley, video: Path):
    own = foley.listen(video)
    new = foley.extend_band(own, 3000.0, seed=1)[0]
    assert new.sample_rate == 22050
    old = np.asarray(resample(own.waveform, own.sample_rate, 22050))
    gain = np.dot(old, new.waveform) / np.dot(old, old)  # all of it is turned down where the sum would clip
    frequencies, added = signal.welch(np.asarray(new.waveform) - gain * old, 22050, nperseg=2048)
    assert added[frequencies > 3500].sum() > 100 * added[frequencies < 2500].sum()


def test_progress_rises_to_the_end_and_stop_stops(foley: Foley, video: Path, tmp_path: Path):
    told: list[tuple[float, str]] = []
    foley.generate(video, candidates=2, steps=20, progress=lambda share, message: told.append((share, message)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    (first,) = {message for _, message in told if re.match(r"window 1 of \d+, candidate 1 of 2", message)}
    assert sum(message == first for _, message in told) == 20 + 2  # steps, drawn, heard
    told.clear()
    with pytest.raises(Stopped):
        foley.generate(video, progress=lambda *what: told.append(what), stop=lambda: len(told) >= 3)
    assert len(told) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux")
def test_takes_leave_no_open_files(foley: Foley, video: Path):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        foley.generate(video)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_original_sound_can_stay_under_the_new(foley: Foley, video: Path, take: Take, tmp_path: Path):
    mixed = read_track(take.save(tmp_path / "mix", keep_original_audio="mix").video)
    assert mixed.sample_rate == 22050, "the higher one: the video's own is 16000"
    second = slice(22050, 44100)
    tone = np.exp(-1j * np.arange(22050) * 0.3 * 16000 / 22050)
    before = np.asarray(resample(read_track(video).waveform[:, 0], 16000, 22050))
    kept, own = (abs(np.vdot(tone, wave[second])) for wave in (mixed.waveform[:, 0], before))
    assert kept > 0.3 * own


def test_a_mix_keeps_what_the_original_sound_has_above_the_model_s(take: Take, tmp_path: Path):
    own = write_noise(tmp_path / "clip.mp4", 1.0)
    high = np.sin(2 * np.pi * 15000 * np.arange(48000) / 48000).astype(np.float32)
    mux(own, 0.3 * high, 48000, tmp_path / "high.mp4")
    saved = replace(take, video=tmp_path / "high.mp4").save(tmp_path / "mix", keep_original_audio="mix")
    mixed = read_track(saved.video)
    assert mixed.sample_rate == 48000
    frequencies, power = signal.welch(mixed.waveform[:, 0], 48000, nperseg=2048)
    assert power[np.abs(frequencies - 15000) < 200].max() > 100 * np.median(power)


def test_what_is_read_is_never_overwritten(foley: Foley, tmp_path: Path):
    own = write_noise(tmp_path / "clip.mp4", 1.0)
    write_audio(tmp_path / "given.wav", np.full(8000, 0.1, np.float32), 16000)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    made = foley.generate(own)[0]
    edited = foley.regenerate(foley.listen(own, tmp_path / "given.wav"), only=(0.1, 0.2))[0]
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="take the place of the video"):
            made.save(tmp_path / "clip", overwrite=overwrite)
        with pytest.raises(ValueError, match=r"given\.wav would take the place"):
            edited.save(tmp_path / "given", format="wav", overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_files_are_overwritten_only_if_told(take: Take, tmp_path: Path):
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(ValueError, match=r"a\.json is there, .*; choose another folder or name, or overwrite"):
        take.save(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    saved = take.save(tmp_path / "a", overwrite=True)
    assert take.save(tmp_path / "a") == saved, "its own results"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.json", "a.mp4"]


def test_all_files_of_a_take_appear_or_none(take: Take, tmp_path: Path):
    with pytest.raises(OSError, match="too long"):
        take.save(tmp_path / ("x" * 251))  # .mp4 would fit
    with pytest.raises(ValueError, match="must be finite"):
        replace(take, waveform=np.array([np.nan], np.float32)).save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidates": 0},
        {"seed": -1},
        {"steps": 0},
        {"scale": float("nan")},
        {"scale": -1.0},
        {"mode": "louder"},
        {"start": 1.5},
        {"schedule": "random"},
        {"cfg_scale": 1.0},
        {"negative_scale": -1.0},
        {"text": [(7.0, 8.0, "rain")]},
        {"text": [(1.03, 1.06, "rain")]},
        {"text": [(0.0, 2.0, "rain"), (1.0, 3.0, "door")]},
        {"duration_s": 3.0},
    ],
)
def test_wrong_values_are_named(foley: Foley, video: Path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        foley.generate(video, **wrong)


def test_tokens_take_the_words_of_the_moment_in_their_middle(
    foley: Foley, video: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[dict[str, Any]] = []
    draw = foley.generator.tokens
    monkeypatch.setattr(foley.generator, "tokens", lambda **one: given.append(one) or draw(**one))
    foley.generate(video, text=[(0.0, 2.1, "rain"), (2.1, 3.1, "door"), (4.0, 9.0, "rain")], negative="dog")
    audio, grid = foley.params.audio, foley.params.grid
    column_s = audio.patch * audio.hop_length / audio.sample_rate
    starts = {clip_seed(0, f"column {column}"): column for column in range(60)}
    assert len(given) > 2
    for one in given:
        middles_s = (starts[one["seeds"][0]] + np.arange(grid.columns) + 0.5) * column_s
        expected = [1 if 2.1 <= at < 3.1 else -1 if 3.1 <= at < 4.0 else 0 for at in middles_s]
        assert one["at"].tolist() == [[expected] * grid.rows]
        torch.testing.assert_close(one["prompt"], foley.features.text_prompt(["rain", "door"]).float()[None])
        torch.testing.assert_close(one["negative"], foley.features.text_prompt(["dog"]).float())


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sound_without_video_has_a_length(foley: Foley, seconds):
    with pytest.raises(ValueError, match="duration_s"):
        foley.generate(duration_s=seconds, text="rain")
    with pytest.raises(ValueError, match="give a video, or duration_s"):
        foley.generate(text="rain")


@pytest.mark.parametrize("seconds", [0.01, 1.0, 5.3])
def test_a_sound_without_video_is_as_long_as_was_said(foley: Foley, seconds):
    made = foley.generate(duration_s=seconds, text="rain", mode="multi")[0]
    assert made.video is None
    assert made.duration_s == pytest.approx(seconds, abs=1 / made.sample_rate)
    assert made.record["history"][0]["sampling"]["mode"] == "text"


def test_without_video_something_must_be_said(foley: Foley):
    for said in ({}, {"negative": "rain"}, {"text": " "}):
        with pytest.raises(ValueError, match="a sound without video needs a text"):
            foley.generate(duration_s=1.0, **said)
    made = foley.generate(duration_s=3.0, text="rain")[0]
    for edit in (lambda: foley.regenerate(made, only=(1.0, 2.0)), lambda: foley.extend_band(made, 3000.0)):
        with pytest.raises(ValueError, match="a sound without video needs a text"):
            edit()


@pytest.mark.slow
def test_a_long_video_takes_little_more_memory_than_a_short_one(foley: Foley, tmp_path: Path):
    psutil = pytest.importorskip("psutil")
    short, long = write_noise(tmp_path / "short.mp4", 6, fps=2), write_noise(tmp_path / "long.mp4", 180, fps=2)
    peaks = []
    for path in (short, long):
        process, most = psutil.Process(), [0]

        def watch(share: float, message: str, process=process, most=most) -> None:
            most[0] = max(most[0], process.memory_full_info().uss - process.memory_info().shared)

        take = foley.generate(path, progress=watch)[0]
        assert take.duration_s == pytest.approx(probe(path).duration_s, abs=0.001)
        peaks.append(most[0])
    assert peaks[1] < peaks[0] + 60e6
