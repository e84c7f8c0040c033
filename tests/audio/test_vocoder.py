"""Griffin-Lim: the right length, the right times, about the right sound, the same every time.

Shape letters: B batch, N samples.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specmaskfoley.audio.mel import MelSpectrogram
from specmaskfoley.audio.vocoder import GriffinLim, build_vocoder
from specmaskfoley.config import Audio, Vocoder

AUDIO = Audio(
    duration_s=3.0, sample_rate=22050, n_fft=1024, hop_length=256, num_mels=80, fmin=0.0, fmax=8000.0, patch=16
)
RATE, SAMPLES = AUDIO.sample_rate, AUDIO.num_samples
SETTINGS = Vocoder(kind="griffin_lim", iterations=24, momentum=0.9)
CLICKS_S = (0.31, 0.64, 1.0137, 1.5, 1.93, 2.4)


@pytest.fixture(scope="module")
def mel() -> MelSpectrogram:
    return MelSpectrogram(AUDIO)


@pytest.fixture(scope="module")
def vocoder() -> GriffinLim:
    return build_vocoder(AUDIO, SETTINGS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def clicks() -> Tensor:
    """Bursts of noise that start at once and decay within 6 ms."""
    wave, given = torch.zeros(1, SAMPLES), generator()
    length = int(0.03 * RATE)
    decay = torch.exp(-torch.arange(length) / (0.006 * RATE))
    for time in CLICKS_S:
        start = round(time * RATE)
        wave[0, start : start + length] = 0.8 * decay * torch.randn(length, generator=given).clamp(-1, 1)
    return wave


def tone() -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(SAMPLES) / RATE)[None]


def noise() -> Tensor:
    return 0.3 * torch.randn(1, SAMPLES, generator=generator())


def onset_s(wave: Tensor, near: float) -> float:
    """When the smoothed wave first exceeds 30 % of its peak within 0.1 s of `near`."""
    first = round((near - 0.1) * RATE)
    part = wave[0, first : first + round(0.2 * RATE)].abs()
    envelope = torch.nn.functional.avg_pool1d(part[None], 32, 1, 16)[0]
    return (first + int((envelope > 0.3 * envelope.max()).nonzero()[0])) / RATE


@pytest.mark.parametrize("frames", [16, 208])
def test_a_frame_is_a_hop_of_sound(vocoder, frames):
    assert vocoder(torch.zeros(2, 80, frames)).shape == (2, 256 * frames)


def test_onsets_are_kept_within_six_milliseconds(mel, vocoder):
    wave = clicks()
    heard = vocoder(mel(wave))
    moved = [onset_s(heard, time) - onset_s(wave, time) for time in CLICKS_S]
    assert max(abs(shift) for shift in moved) < 0.006
    assert abs(sum(moved) / len(moved)) < 0.003  # no delay on the whole


def test_impulses_are_kept_within_six_milliseconds(mel, vocoder):
    wave = torch.zeros(1, SAMPLES)
    starts = [round(time * RATE) for time in CLICKS_S]
    wave[0, starts] = 0.9
    heard = vocoder(mel(wave))[0].abs()
    for start in starts:
        peak = start - 2000 + int(heard[start - 2000 : start + 2000].argmax())
        assert abs(peak - start) / RATE < 0.006


@pytest.mark.parametrize(("sound", "bound"), [(clicks, 0.35), (tone, 0.30), (noise, 0.11)])
def test_the_mel_of_the_sound_is_near_the_mel_it_was_made_from(mel, vocoder, sound, bound):
    """Mean distance in nepers; measured 0.28, 0.21 and 0.07 (a mel that is off by one frame: several times that)."""
    log_mel = mel(sound())
    distance = (mel(vocoder(log_mel)) - log_mel).abs().mean()
    assert distance < bound


def test_more_iterations_come_nearer(mel, vocoder):
    log_mel = mel(noise())
    hasty = build_vocoder(AUDIO, SETTINGS.model_copy(update={"iterations": 2}))
    near = (mel(vocoder(log_mel)) - log_mel).abs().mean()
    assert near < 0.8 * (mel(hasty(log_mel)) - log_mel).abs().mean()


def test_silence_stays_silent(mel, vocoder):
    assert vocoder(mel(torch.zeros(1, SAMPLES))).abs().max() < 1e-3


def test_the_same_mel_always_gives_the_same_wave(mel, vocoder):
    log_mel = mel(clicks())
    torch.manual_seed(1)
    first = vocoder(log_mel)
    torch.manual_seed(2)
    assert torch.equal(first, vocoder(log_mel))


def test_the_global_generator_is_untouched(mel, vocoder):
    log_mel = mel(noise())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    vocoder(log_mel)
    assert torch.equal(torch.get_rng_state(), before)
