"""Both mel recipes: their frames, their scales and what the codec sees of them.

Shape letters: B batch, N samples, M mel bands, L mel frames.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.media.mel import LOG_FLOOR, Mel, MelSpectrogram, SpecVQGANMel, build_mel, decibels
from specmaskfoley.settings import HIFIGAN_RECIPE, SPECVQGAN_RECIPE, Audio

HIFIGAN = Audio(mel="hifigan", duration_s=10.0, patch=16, **HIFIGAN_RECIPE)
SPECVQGAN = Audio(mel="specvqgan", duration_s=10.0, patch=16, **SPECVQGAN_RECIPE)


@pytest.fixture(scope="module", params=[HIFIGAN, SPECVQGAN], ids=lambda audio: audio.mel)
def mel(request: pytest.FixtureRequest) -> Mel:
    return build_mel(request.param)


def noise(*shape: int) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("audio", "kind"), [(HIFIGAN, MelSpectrogram), (SPECVQGAN, SpecVQGANMel)])
def test_the_setting_names_the_recipe(audio, kind):
    built = build_mel(audio)
    assert type(built) is kind
    assert built.name == audio.mel


@settings(max_examples=30, deadline=None)
@given(st.integers(513, 20_000))
def test_every_whole_hop_is_a_frame(mel, samples):
    assert mel(torch.zeros(2, samples)).shape == (2, 80, samples // 256)


def test_the_clip_length_gives_the_frames_of_the_token_grid(mel):
    assert mel(torch.zeros(1, mel.audio.num_samples)).shape[-1] == mel.audio.num_frames


def test_silence_is_the_lowest_value(mel):
    found = mel(torch.zeros(1, 4096))
    torch.testing.assert_close(found, torch.full_like(found, mel.silence), atol=1e-4, rtol=0)


def test_the_silence_of_each_recipe():
    assert MelSpectrogram.silence == pytest.approx(math.log(LOG_FLOOR)) == pytest.approx(-11.5129, abs=1e-4)
    assert SpecVQGANMel.silence == 0.0


@pytest.mark.parametrize("frame", [0, 5, 40])
def test_a_frame_is_centred_where_the_recipe_says(mel, frame):
    """Symmetric in time: an impulse there gives its neighbours equal energy."""
    wave = torch.zeros(1, 256 * 64)
    wave[0, 256 * frame + mel.first_centre] = 1.0
    energy = mel.amplitude(mel(wave)).sum(1)[0]
    assert int(energy.argmax()) == frame
    if frame:
        assert energy[frame - 1].item() == pytest.approx(energy[frame + 1].item(), rel=1e-3)


def test_the_recipes_see_a_sound_at_the_same_time():
    """Half a hop apart, and no more."""
    wave = torch.zeros(1, 256 * 64)
    wave[0, 256 * 30 + 64] = 1.0
    assert [int(build_mel(audio)(wave).sum(1).argmax()) for audio in (HIFIGAN, SPECVQGAN)] == [30, 30]


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_the_band_of_its_frequency(mel, hertz):
    time = torch.arange(22050) / 22050
    bands = mel(0.5 * torch.sin(2 * math.pi * hertz * time)[None])[0, :, 40]
    at_tone = mel.filters[:, round(hertz / 22050 * 1024)] / mel.filters.amax(1)
    assert at_tone[int(bands.argmax())] > 0.3


@pytest.mark.parametrize(("audio", "step"), [(HIFIGAN, math.log(2)), (SPECVQGAN, 20 * math.log10(2) / 100)])
def test_twice_the_amplitude_is_a_constant_more(audio, step):
    mel, wave = build_mel(audio), noise(1, 8192)
    change = mel(2 * wave) - mel(wave)
    torch.testing.assert_close(change, torch.full_like(change, step), atol=1e-3, rtol=0)


def test_amplitude_is_the_filtered_magnitude():
    """By SpecVQGAN's scale, 0.8 is a magnitude of 1 and each 0.2 a factor of ten."""
    mel = build_mel(SPECVQGAN)
    assert mel.amplitude(torch.tensor([0.8, 1.0, 0.6, 0.0])).tolist() == pytest.approx([1.0, 10.0, 0.1, 0.0])
    wave = noise(1, 8192)
    spectrum = torch.stft(wave, 1024, 256, window=torch.hann_window(1024), pad_mode="reflect", return_complex=True)
    expected = (mel.filters @ spectrum.abs())[..., :32]
    torch.testing.assert_close(mel.amplitude(mel(wave)), expected, rtol=1e-4, atol=1e-5)
    log_mel = build_mel(HIFIGAN)
    assert log_mel.amplitude(torch.tensor([0.0, -1.0])).tolist() == pytest.approx([1.0, math.exp(-1)])


@pytest.mark.parametrize("audio", [HIFIGAN, SPECVQGAN])
def test_decibels_mean_the_same_in_both_recipes(audio):
    mel, wave = build_mel(audio), noise(1, 8192)
    levels = decibels(mel, mel(wave))
    # Full scale is what both recipes normalise to 1.
    assert decibels(mel, mel.to_mel(torch.ones(1, 80, 3))).abs().max() < 1e-4
    assert (decibels(mel, mel(wave / 10)) - levels).mean() == pytest.approx(-20, abs=0.1)
    assert decibels(mel, torch.full((1, 80, 3), mel.silence)).max() < -100


def test_specvqgan_scale_is_cut_at_both_ends():
    mel = build_mel(SPECVQGAN)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(22050) / 22050)[None]
    assert mel(1e4 * tone).max() == 1.0
    assert mel(1e-6 * tone).max() == 0.0


def test_clips_of_a_batch_do_not_mix(mel):
    waves = noise(3, 8192)
    torch.testing.assert_close(mel(waves)[1:2], mel(waves[1:2]), atol=1e-5, rtol=1e-5)


def test_lower_precision_around_it_changes_nothing(mel):
    wave = noise(1, 8192)
    with torch.autocast("cpu", torch.bfloat16):
        found = mel(wave)
    assert found.dtype == torch.float32
    assert torch.equal(found, mel(wave))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_denormalize_undoes_normalize(mel, shares):
    values = mel.silence + (2.0 - mel.silence) * torch.tensor(shares)
    for inverse in (mel.denormalize, mel.to_mel):
        torch.testing.assert_close(inverse(mel.normalize(values)), values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("audio", "low", "high"), [(HIFIGAN, -11.5, 2.0), (SPECVQGAN, 0.0, 1.0)])
def test_silence_to_full_scale_is_minus_one_to_one(audio, low, high):
    assert build_mel(audio).normalize(torch.tensor([low, high])).tolist() == pytest.approx([-1.0, 1.0])


def test_denormalize_is_never_below_silence(mel):
    assert mel.denormalize(torch.tensor([-5.0])).item() == pytest.approx(mel.silence)
    assert mel.to_mel(torch.tensor([-5.0])).item() < mel.silence
