"""How loud a sound is, and which sounds are as good as none."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.untrained import write_noise

from specmaskfoley.clips.world import LABELS, render_clip
from specmaskfoley.foley import Foley
from specmaskfoley.foley.levels import Level, level_of
from specmaskfoley.media.sound import read_track

RATE = 22050
NOISE = np.random.default_rng(0).standard_normal(10 * RATE)
FLOOR = 10 ** (-70 / 20) * NOISE


def with_knock(peak: float, at_s: float = 4.0) -> np.ndarray:
    """Ten seconds of a faint floor, and one knock that is gone after some 30 ms."""
    knock = peak * np.exp(-np.arange(RATE // 4) / (0.03 * RATE)) * np.sin(np.arange(RATE // 4) * 0.2)
    wave = FLOOR.copy()
    place = wave[round(at_s * RATE) :][: len(knock)]
    place += knock[: len(place)]
    return wave


SILENT = {
    "digital silence": np.zeros(10 * RATE),
    "an offset": np.full(10 * RATE, 0.3),
    "the floor": FLOOR,
    "hiss at -55 dBFS": 10 ** (-55 / 20) * NOISE,
    "a click in the background": with_knock(0.01),
    "a silent stereo sound": np.zeros((RATE, 2)),
    "nothing": np.zeros(0),
    "one frame": 1e-4 * np.ones(700),
}
AUDIBLE = {
    "one knock": with_knock(0.3),
    "one soft knock": with_knock(0.15),
    "a knock over the edge of frames": with_knock(0.3, 4.04),
    "a knock at the end": with_knock(0.9, 9.995),
    "rain at -45 dBFS": 10 ** (-45 / 20) * NOISE,
    "one channel of two": np.stack([FLOOR, with_knock(0.3)], axis=1),
    "a tone": 0.1 * np.sin(np.arange(3 * RATE) * 0.1),
    "a short sound": 0.1 * NOISE[:500],
}


@pytest.mark.parametrize(("name", "silent"), [*((name, True) for name in SILENT), *((name, False) for name in AUDIBLE)])
def test_sixteen_sounds(name: str, silent: bool):
    assert level_of((SILENT | AUDIBLE)[name].astype(np.float32), RATE).nearly_silent is silent


def takes() -> list[dict[str, str]]:
    """Of eight real clips by a trained mini model, without text, two seeds each: the level of every frame in dBFS, and
    the loudest 400 ms by ITU-R BS.1770."""
    with Path(__file__).with_name("takes_of_real_clips.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("take", takes(), ids=lambda take: f"{take['clip']} {take['seed']}")
def test_sixteen_takes_of_real_clips(take: dict[str, str]):
    """Nearly silent are those whose loudest moment is 12 LU and more below the -23 LUFS of broadcasts."""
    levels = np.array([float(level) for level in take["frames"].split()])
    frames = np.repeat(10 ** (levels / 20), round(0.05 * RATE))
    wave = frames * np.where(np.arange(len(frames)) % 2, 1, -1)
    level = level_of(wave.astype(np.float32), RATE)
    assert level.loudest_db == pytest.approx(levels.max(), abs=0.01)
    assert level.nearly_silent == (float(take["lufs"]) < -35)


@pytest.mark.official
def test_sixteen_sounds_of_real_clips(clips: Path):
    """The clips' own sounds can be heard, and 40 dB below -15 dBFS they cannot."""
    paths = sorted(clips.glob("*.mp4"))
    assert len(paths) >= 8
    for path in paths:
        track = read_track(path)
        wave = np.asarray(track.waveform)
        level = level_of(wave, track.sample_rate)
        assert not level.nearly_silent, path
        gain = 10 ** ((-55 - level.loudest_db) / 20)
        assert level_of(gain * wave, track.sample_rate).nearly_silent, path


def test_no_sound_of_the_world_is_nearly_silent():
    for index in range(len(LABELS)):
        clip = render_clip(seed=0, split="test", index=index, duration_s=5.0, fps=25, sample_rate=RATE)
        assert not level_of(clip.waveform, RATE).nearly_silent, clip.label


def test_levels_are_those_of_frames():
    wave = np.concatenate([np.full(RATE, 0.5) * np.tile([1, -1], RATE // 2), np.zeros(3 * RATE)]).astype(np.float32)
    level = level_of(wave, RATE)
    assert level.loudest_db == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert level.quiet_share == pytest.approx(0.75, abs=0.02)
    assert level_of(wave, RATE, [(1.5, 2.0), (2.5, 99.0)]) == Level(-120.0, 1.0)
    assert level_of(wave, RATE, [(0.2, 0.7)]).quiet_share == 0.0
    assert level_of(np.stack([0 * wave, wave, 0 * wave], axis=1), RATE) == level, "the loudest channel counts"
    assert level_of(np.concatenate([wave] * 30), RATE).quiet_share == pytest.approx(0.75, abs=0.02), "read in pieces"


def test_the_sentence_has_the_level_and_what_may_help():
    assert Level(-43.6, 0.9).sentence == (
        "nearly silent: the loudest moment is at -44 dBFS, 90 % of the time is below -60 dBFS; try another text, "
        "another seed, or a sound that the model knows"
    )
    assert Level(-12.0, 0.25).sentence == "level: the loudest moment is at -12 dBFS, 25 % of the time is below -60 dBFS"


def test_the_level_of_an_edit_is_that_of_what_was_made(foley: Foley, tmp_path: Path):
    own = foley.listen(write_noise(tmp_path / "clip.mp4", 4.0))
    made = foley.regenerate(own, only=(1.0, 2.0))[0]
    quiet = np.array(made.waveform)
    quiet[made.sample_rate : 2 * made.sample_rate] = 0
    assert replace(made, waveform=quiet).level.nearly_silent
    assert not own.level.nearly_silent
