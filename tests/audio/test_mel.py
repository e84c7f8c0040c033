"""The log-mel against the golden arrays of HiFi-GAN's recipe, and its time axis.

Shape letters: B batch, N samples, M mel bands, L mel frames.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden_rule import golden_wave, relative_error, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from specmaskfoley.audio.mel import LOG_FLOOR, MelSpectrogram, denormalize, mel_filters, normalize
from specmaskfoley.config import Audio

AUDIO = Audio(
    duration_s=10.0, sample_rate=22050, n_fft=1024, hop_length=256, num_mels=80, fmin=0.0, fmax=8000.0, patch=16
)


@pytest.fixture(scope="module")
def mel() -> MelSpectrogram:
    return MelSpectrogram(AUDIO)


def test_mel_meets_the_golden_one(mel):
    golden = np.load(shared("golden/hifigan_mel.npz"))
    wave = golden_wave(51, 220_500, 22050)
    assert wave[0, 0].item() == pytest.approx(0.14819273352622986, rel=1e-5)  # the golden wave's own record
    found = mel(wave)
    assert found.shape == (1, 80, 861)
    assert relative_error(found, golden["mel"]) < 1e-5
    assert (found - torch.from_numpy(golden["mel"])).abs().max() < 1e-3


def test_filters_meet_the_golden_ones():
    golden = np.load(shared("golden/hifigan_mel.npz"))
    filters = mel_filters(AUDIO)
    assert relative_error(filters, golden["mel_basis"]) < 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(512, 20_000))
def test_every_whole_hop_is_a_frame(mel, samples):
    assert mel(torch.zeros(2, samples)).shape == (2, 80, samples // 256)


def test_the_clip_length_gives_the_frames_of_the_token_grid(mel):
    assert mel(torch.zeros(1, AUDIO.num_samples)).shape[-1] == AUDIO.num_frames


def test_silence_is_the_logarithm_of_the_floor(mel):
    found = mel(torch.zeros(1, 4096))
    assert torch.equal(found, found[:1, :1, :1].expand_as(found))
    assert found[0, 0, 0].item() == pytest.approx(math.log(LOG_FLOOR), abs=1e-4)
    assert found[0, 0, 0].item() == pytest.approx(-11.5129, abs=1e-4)


@pytest.mark.parametrize("frame", [0, 5, 40])
def test_a_frame_is_centred_on_the_middle_of_its_hop(mel, frame):
    """Symmetric in time around sample (i + 1/2) * hop: an impulse there gives its neighbours equal energy."""
    wave = torch.zeros(1, 256 * 64)
    wave[0, 256 * frame + 128] = 1.0
    energy = mel(wave).exp().sum(1)[0]
    assert int(energy.argmax()) == frame
    if frame:
        assert energy[frame - 1].item() == pytest.approx(energy[frame + 1].item(), rel=1e-3)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_the_band_of_its_frequency(mel, hertz):
    time = torch.arange(22050) / 22050
    bands = mel(0.5 * torch.sin(2 * math.pi * hertz * time)[None])[0, :, 40]
    bank = mel_filters(AUDIO)
    at_tone = bank[:, round(hertz / 22050 * 1024)] / bank.amax(1)
    assert at_tone[int(bands.argmax())] > 0.3


def test_twice_the_amplitude_is_a_constant_more(mel):
    wave = 0.2 * torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
    change = mel(2 * wave) - mel(wave)
    torch.testing.assert_close(change, torch.full_like(change, math.log(2)), atol=1e-3, rtol=0)


def test_clips_of_a_batch_do_not_mix(mel):
    waves = 0.2 * torch.randn(3, 8192, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel(waves)[1:2], mel(waves[1:2]), atol=1e-5, rtol=1e-5)


@given(st.lists(st.floats(-11.5, 5.0, width=32), min_size=1, max_size=20))
def test_denormalize_undoes_normalize(values):
    log_mel = torch.tensor(values)
    torch.testing.assert_close(denormalize(normalize(log_mel)), log_mel, atol=1e-5, rtol=1e-5)


def test_silence_to_full_scale_is_minus_one_to_one():
    assert normalize(torch.tensor([-11.5, 2.0])).tolist() == pytest.approx([-1.0, 1.0])


def test_denormalize_is_never_below_silence():
    assert denormalize(torch.tensor([-5.0, -1.0])).tolist() == pytest.approx([math.log(LOG_FLOOR), -11.5], abs=1e-4)
