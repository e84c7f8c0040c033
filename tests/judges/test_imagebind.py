"""ImageBind: clips, crops and pairs as the benchmark takes them, on towers of a few channels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specmaskfoley.judges import imagebind
from specmaskfoley.judges.imagebind import Attention, ImageBind, Tower, clip_starts, log_mel_clips

RATE = 16000
SCALE = "modality_postprocessors.audio.1.log_logit_scale"


def tiny() -> ImageBind:
    torch.manual_seed(0)
    return ImageBind(vision=Tower(32, 2, 4), audio=Tower(24, 2, 3)).eval()


@pytest.fixture(scope="module")
def model() -> ImageBind:
    return tiny()


def noise(samples: int, clips: int = 1) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


def pictures(frames: int, videos: int = 1) -> Tensor:
    return torch.rand(videos, 3, frames, 3, 224, 224, generator=torch.Generator().manual_seed(2))


def test_the_defaults_are_the_public_size_and_need_no_memory():
    with torch.device("meta"):
        made = ImageBind()
    count = {
        modality: sum(value.numel() for name, value in made.named_parameters() if f".{modality}." in name)
        for modality in ("vision", "audio")
    }
    assert count == {"vision": 632_829_440, "audio": 86_235_648}


@torch.inference_mode()
def test_sounds_are_scaled_means_of_unit_vectors(model):
    found = model.encode_audio(noise(3 * RATE, clips=2))
    assert found.shape == (2, 1024)
    # The three clips of a sound of 2 s are one, and the mean of equal vectors is as long as they are.
    assert float(model.encode_audio(noise(2 * RATE)).norm()) == pytest.approx(20, rel=1e-4)
    assert (found.norm(dim=1) < 20).all()


@torch.inference_mode()
def test_videos_are_means_of_unit_vectors(model):
    frames = pictures(3, videos=2)
    found = model.encode_video(frames)
    assert found.shape == (2, 1024)
    assert (found.norm(dim=1) < 1).all()
    still = frames[:1, :1, :1].expand(1, 3, 3, 3, 224, 224)
    assert float(model.encode_video(still).norm()) == pytest.approx(1, rel=1e-4)


@torch.inference_mode()
def test_a_video_is_the_mean_over_its_pairs_and_crops(model):
    frames = pictures(3)
    single = [
        model.encode_video(frames[:, crop : crop + 1, first : first + 2]) for crop in range(3) for first in range(2)
    ]
    torch.testing.assert_close(model.encode_video(frames), torch.stack(single).mean(0))


@torch.inference_mode()
def test_a_few_clips_at_a_time_change_nothing(model, monkeypatch):
    frames, wave = pictures(2, videos=2), noise(3 * RATE, clips=2)
    video, audio = model.encode_video(frames), model.encode_audio(wave)
    monkeypatch.setattr(imagebind, "_CLIPS_AT_ONCE", 4)
    torch.testing.assert_close(model.encode_video(frames), video)
    torch.testing.assert_close(model.encode_audio(wave), audio)


@torch.inference_mode()
def test_under_autocast_the_vectors_are_still_float32(model):
    frames, wave = pictures(2), noise(2 * RATE)
    video, audio = model.encode_video(frames), model.encode_audio(wave)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.encode_video(frames), model.encode_audio(wave)
    for a, b in zip(found, (video, audio), strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.05


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 1, 3, 224, 224), r"2 frames at 0\.5 fps"), ((3, 2, 3, 224, 224), "expected"), ((1, 3, 2, 3, 9, 9), "224")],
)
def test_other_frames_are_an_error(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model.encode_video(torch.zeros(shape))


def test_clips_are_spread_to_the_end():
    assert clip_starts(10 * RATE, RATE) == [0, 4 * RATE, 8 * RATE]
    assert clip_starts(8 * RATE, RATE) == [0, 3 * RATE, 6 * RATE]
    assert clip_starts(RATE, RATE) == [0, 0, 0]


@given(samples=st.integers(2 * RATE, 20 * RATE))
def test_the_last_clip_ends_with_the_sound(samples):
    first, middle, last = clip_starts(samples, RATE)
    assert (first, last + 2 * RATE) == (0, samples)
    assert abs(2 * middle - last) <= 1


def test_mels_of_the_clips():
    wave = noise(5 * RATE, clips=2)
    mels = log_mel_clips(wave, RATE)
    assert mels.shape == (2, 3, 1, 128, 204)
    assert mels.dtype == torch.float32
    torch.testing.assert_close(mels[..., 198:], torch.full((2, 3, 1, 128, 6), 4.268 / 9.138))
    assert (mels[..., 197] != mels[..., 198]).any(-1).all()
    torch.testing.assert_close(log_mel_clips(wave[:, -2 * RATE :], RATE)[:, 0], mels[:, 2])


def test_a_constant_offset_of_the_wave_changes_nothing():
    wave = noise(2 * RATE)
    torch.testing.assert_close(log_mel_clips(wave + 0.25, RATE), log_mel_clips(wave, RATE), atol=1e-3, rtol=1e-3)


def test_the_front_end_ignores_autocast():
    wave = noise(2 * RATE)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mel_clips(wave, RATE)
    assert torch.equal(found, log_mel_clips(wave, RATE))


def test_short_sounds_are_padded_and_too_short_ones_are_an_error():
    assert log_mel_clips(noise(RATE), RATE).shape == (1, 3, 1, 128, 204)
    assert log_mel_clips(noise(400), RATE).shape == (1, 3, 1, 128, 204)
    with pytest.raises(ValueError, match=r"399 samples.*400"):
        log_mel_clips(noise(399), RATE)


@pytest.mark.parametrize("bias_tokens", [False, True])
@torch.inference_mode()
def test_attention_is_multihead_attention(bias_tokens):
    torch.manual_seed(0)
    own = Attention(Tower(24, 1, 3), bias_tokens).double()  # logits are large here, and processors round differently
    reference = nn.MultiheadAttention(24, 3, add_bias_kv=bias_tokens, batch_first=True).double().eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter)
    own.load_state_dict(reference.state_dict())
    x = torch.randn(2, 7, 24).double()
    torch.testing.assert_close(own(x), reference(x, x, x, need_weights=False)[0])


def test_other_towers_are_passed_over_and_unknown_names_are_not(model):
    tensors = dict(model.state_dict())
    others = {
        "modality_preprocessors.text.mask": torch.zeros(77, 77),
        "modality_trunks.imu.blocks.0.attn.bias_k": torch.zeros(1, 1, 512),
        "modality_postprocessors.depth.1.log_logit_scale": torch.tensor(1.0),
    }
    loaded = tiny()
    loaded.load_official({**tensors, **others}, "i.pth")
    with pytest.raises(
        ValueError, match=r"i\.pth: not the weights of ImageBind: 1 unknown \(modality_trunks\.touch\.x"
    ):
        loaded.load_official({**tensors, "modality_trunks.touch.x": torch.zeros(1)}, "i.pth")
    del tensors["modality_heads.vision.2.weight"]
    with pytest.raises(ValueError, match=r"1 missing \(modality_heads\.vision\.2\.weight"):
        loaded.load_official(tensors, "i.pth")


def test_the_audio_scale_is_the_files_or_20(model):
    tensors = dict(model.state_dict())
    loaded = tiny()
    loaded.load_official({**tensors, SCALE: torch.tensor(math.log(10))}, "i.pth")
    assert float(loaded.get_buffer(SCALE).exp()) == pytest.approx(10)
    del tensors[SCALE]
    loaded.load_official(tensors, "i.pth")
    assert float(loaded.get_buffer(SCALE).exp()) == pytest.approx(20)
