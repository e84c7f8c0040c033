"""The onset detector on sounds whose onsets are known, and the matching against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from specmaskfoley.clips.world import render_clip
from specmaskfoley.media.mel import MelSpectrogram
from specmaskfoley.metrics.judged import Listened, Partners
from specmaskfoley.metrics.onsets import detect_onsets, match_onsets, onset_f1, onset_f1_scores
from specmaskfoley.settings import Params
from specmaskfoley.vocoders.trained import build_vocoder

RATE = 22050

times = st.lists(st.integers(0, 60).map(lambda k: k / 20), max_size=8)


def impacts(events: list[float], duration_s: float = 3.0, noise: float = 1e-3, seed: int = 0) -> np.ndarray:
    """Decaying tones with a noisy attack over a noise floor."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(duration_s * RATE)) / RATE
    wave = rng.normal(0, noise, t.size)
    for event in events:
        after = np.clip(t - event, 0, None)
        hit = np.sin(2 * np.pi * 700 * after) * np.exp(-after * 12)
        hit += 0.3 * rng.normal(size=t.size) * np.exp(-after * 60)
        wave += np.where(t >= event, hit, 0)
    return wave


def scores(events: Any, detected: list[Any], tolerance_s: float) -> Any:
    """The metric on onsets that were detected, clip by clip."""
    nothing = np.zeros((len(detected), 1))
    heard = Listened(nothing, nothing, nothing, nothing, tuple(np.array(times) for times in detected), ())
    return onset_f1_scores(heard, Partners(logits=nothing, events=events, tolerance_s=tolerance_s))


@pytest.mark.parametrize("noise", [0.0, 1e-3, 1e-2])
def test_every_impact_is_found_once_within_20_ms(noise: float) -> None:
    events = [0.3, 0.55, 1.2, 1.9, 2.6]
    found = detect_onsets(impacts(events, noise=noise), RATE)
    assert len(found) == len(events)
    np.testing.assert_allclose(found, events, atol=0.02)


def test_loudness_does_not_matter() -> None:
    wave = impacts([0.4, 1.5])
    np.testing.assert_array_equal(detect_onsets(wave, RATE), detect_onsets(0.03 * wave, RATE))


def test_a_shifted_sound_has_shifted_onsets() -> None:
    wave = impacts([0.5, 1.1, 2.0])
    hops = 40
    late = np.concatenate([impacts([], duration_s=hops * 256 / RATE, seed=1), wave])
    shift = (len(late) - len(wave)) / RATE
    np.testing.assert_allclose(detect_onsets(late, RATE), detect_onsets(wave, RATE) + shift, atol=0.012)


def test_another_sample_rate_gives_the_same_times() -> None:
    t = np.arange(3 * 16000) / 16000
    wave = sum(
        np.where(t >= e, np.sin(2 * np.pi * 700 * (t - e)) * np.exp(-np.clip(t - e, 0, None) * 12), 0)
        for e in (0.5, 1.4)
    )
    np.testing.assert_allclose(detect_onsets(np.asarray(wave), 16000), [0.5, 1.4], atol=0.02)


def test_silence_noise_and_very_short_sounds_have_no_onsets() -> None:
    rng = np.random.default_rng(0)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    for wave in (np.zeros(3 * RATE), rng.normal(0, 0.3, 3 * RATE), tone, tone[:500], np.zeros(0)):
        assert len(detect_onsets(wave, RATE)) == 0


def test_wrong_waveforms_are_named() -> None:
    with pytest.raises(ValueError, match="one channel"):
        detect_onsets(np.zeros((2, RATE)), RATE)
    with pytest.raises(ValueError, match="NaN"):
        detect_onsets(np.full(RATE, np.nan), RATE)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small transforms on all cores wait for each other when something else runs beside the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_true_and_vocoded_world_clips_are_heard_right() -> None:
    """What the metric's ceiling rests on: the mini data, and the same through an 80-band mel and Griffin-Lim."""
    params = Params.load(ROOT / "params.yaml")
    mel, vocoder = MelSpectrogram(params.audio), build_vocoder(params.vocoder, params)
    clips = [
        render_clip(seed=11, split="val", index=index, duration_s=5.0, fps=25, sample_rate=RATE) for index in range(28)
    ]
    waves = torch.stack([torch.as_tensor(np.asarray(clip.waveform, dtype=np.float32)) for clip in clips])
    events = [list(clip.events) for clip in clips]
    true = [detect_onsets(wave, RATE) for wave in waves.numpy()]
    vocoded = [detect_onsets(wave, RATE) for wave in vocoder(mel(waves)).numpy()]

    straight = scores(events, true, 0.05)
    assert (~np.isnan(straight)).sum() == sum(bool(e) for e in events) > 10
    assert np.nanmean(straight) >= 0.97
    assert np.nanmean(scores(events, vocoded, 0.05)) >= 0.93
    # A detector that fired everywhere would be no measure: onsets of the wrong clip must score low.
    assert np.nanmean(scores(events, true[1:] + true[:1], 0.05)) < 0.5


@settings(max_examples=300, deadline=None)
@given(reference=times, detected=times, tolerance=st.sampled_from([0.0, 0.06, 0.11, 0.5]))
def test_greedy_matching_is_the_best_matching(reference: list[float], detected: list[float], tolerance: float) -> None:
    best = 0
    if reference and detected:
        near = np.abs(np.subtract.outer(reference, detected)) <= tolerance
        best = int((maximum_bipartite_matching(csr_array(near.astype(int))) >= 0).sum())
    assert match_onsets(reference, detected, tolerance) == best


def test_one_detection_answers_for_one_event() -> None:
    assert onset_f1([1.0, 1.05], [1.02], 0.1) == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert onset_f1([1.0], [0.95, 1.0, 1.05, 2.0], 0.1) == pytest.approx(2 / 5)  # precision 1/4, recall 1


def test_the_tolerance_counts() -> None:
    assert onset_f1([1.0], [1.08], 0.1) == 1
    assert onset_f1([1.0], [1.12], 0.1) == 0
    with pytest.raises(ValueError, match="tolerance_s"):
        onset_f1([1.0], [1.0], -0.1)


def test_empty_lists() -> None:
    assert onset_f1([], [], 0.1) == 1
    assert onset_f1([1.0], [], 0.1) == 0
    assert onset_f1([], [1.0], 0.1) == 0


def test_clips_without_events_have_no_score() -> None:
    found = scores([[1.0], [], [2.0]], [[1.0], [0.3], []], 0.1)
    np.testing.assert_array_equal(found, [1.0, np.nan, 0.0])
    assert np.isnan(scores([[], []], [[1.0], []], 0.1)).all()
    assert scores(None, [[1.0]], 0.1) is None
    with pytest.raises(ValueError, match="zip"):
        scores([[1.0]], [], 0.1)
