"""Synchformer: which frames and samples a feature comes from, divided attention, what is refused.

The official numbers are in tests/test_golden.py. Here the networks are one block deep, with weights by the golden rule.

Shape letters: B clips, t video frames, N audio samples, S segments, D = 768 width.
"""

from __future__ import annotations

import math

import pytest
import torch
from helpers.golden_rule import golden_tensor
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from specmaskfoley.encoders import synchformer
from specmaskfoley.encoders.synchformer import (
    DividedAttention,
    Synchformer,
    SynchformerEncoder,
    feature_times,
    log_mel,
    num_segments,
    scale_frames,
)


@pytest.fixture(scope="module")
def whole() -> Synchformer:
    with torch.device("meta"):
        module = Synchformer()
    module.vfeat_extractor.blocks = module.vfeat_extractor.blocks[:1]
    module.afeat_extractor.ast.encoder["layer"] = module.afeat_extractor.ast.encoder["layer"][:1]
    module.transformer.blocks = module.transformer.blocks[:1]
    module.to_empty(device="cpu")
    module.load_official({name: golden_tensor(name, value.shape) for name, value in module.state_dict().items()}, "-")
    return module.eval()


@pytest.fixture(scope="module")
def encoder(whole: Synchformer) -> SynchformerEncoder:
    with torch.device("meta"):
        module = SynchformerEncoder()
    module.vfeat_extractor = whole.vfeat_extractor
    return module.eval()


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    """All names and shapes of the whole model, no memory."""
    with torch.device("meta"):
        return Synchformer().state_dict()


def pixels(clips: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (clips, frames, 224, 224, 3), generator=generator, dtype=torch.uint8)


def wave(clips: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(2))


# ---- which features ----


@pytest.mark.parametrize(("frames", "features"), [(16, 8), (23, 8), (24, 16), (200, 192), (248, 240), (250, 240)])
def test_number_of_features(frames, features):
    assert SynchformerEncoder.num_features(frames) == features == len(feature_times(frames))


@pytest.mark.parametrize("frames", [0, 15])
def test_less_than_a_segment_is_refused(frames):
    for count in (num_segments, feature_times, SynchformerEncoder.num_features):
        with pytest.raises(ValueError, match=f"{frames} video frames.*at least 16"):
            count(frames)


def test_times_jump_back_at_segment_borders():
    times = feature_times(250).view(30, 8)
    assert times[3, 2].item() == pytest.approx((8 * 3 + 2 * 2 + 1) / 25)
    torch.testing.assert_close(times[1:, 0] - times[:-1, -1], torch.full((29,), -0.24, dtype=torch.float64))
    torch.testing.assert_close(times[1:, :4], times[:-1, 4:])
    assert (times.min().item(), times.max().item()) == pytest.approx((0.04, 9.88))
    assert len(times.unique()) == 124


@torch.inference_mode()
def test_a_change_reaches_only_the_segments_that_hold_it(encoder):
    frames = pixels(1, 33)
    changed = frames.clone()
    changed[0, 8:10] = 255 - changed[0, 8:10]
    before, after = (encoder(x).view(3, 8, 768) for x in (frames, changed))
    moved = (after - before).norm(dim=-1)
    assert moved[:2].min() > 1e-4
    # Two frames of the second segment's first vector, the fifth of the first segment.
    assert moved[0].argmax() == 4
    assert moved[1].argmax() == 0
    torch.testing.assert_close(after[2], before[2], atol=0, rtol=0)


@pytest.mark.official
@torch.inference_mode()
def test_clips_and_chunks_do_not_matter(encoder, monkeypatch):
    frames = pixels(2, 33)
    together = encoder(frames)
    assert together.shape == (2, encoder.num_features(33), encoder.width)
    monkeypatch.setattr(synchformer, "_VISUAL_CHUNK", 2)
    for clip, features in zip(frames, together, strict=True):
        torch.testing.assert_close(encoder(clip[None])[0], features, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_encoder_is_the_visual_half_on_scaled_pixels(encoder, whole):
    frames = pixels(1, 17)
    scaled = scale_frames(frames)
    assert (scaled.min().item(), scaled.max().item()) == (-1.0, 1.0)
    assert scaled[0, 3, 2, 5, 7].item() == pytest.approx(frames[0, 3, 5, 7, 2].item() / 127.5 - 1, abs=1e-6)
    torch.testing.assert_close(encoder(frames).view(1, 1, 8, 768), whole.encode_video(scaled), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_attention_kernels_do_not_matter(encoder):
    """Kernels differ in the memory layout of what they return."""
    frames = pixels(1, 16)
    expected = encoder(frames)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(encoder(frames), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_half_precision_stays_close(encoder):
    frames = pixels(1, 16)
    expected = encoder(frames)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(frames)
    assert (found.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("shape", [(1, 16, 3, 224, 224), (1, 16, 96, 96, 3), (16, 224, 224, 3)])
def test_encoder_refuses_other_shapes(encoder, shape):
    with pytest.raises(ValueError, match=r"expected \(clips, time, 224, 224, 3\)"):
        encoder(torch.zeros(shape, dtype=torch.uint8))


def test_each_way_in_has_its_own_kind_of_pixels(encoder, whole):
    with pytest.raises(ValueError, match=r"torch.float32: expected uint8"):
        encoder(torch.zeros(1, 16, 224, 224, 3))
    with pytest.raises(ValueError, match=r"torch.uint8: expected floats"):
        whole.encode_video(torch.zeros(1, 16, 3, 224, 224, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"expected \(clips, time, 3, 224, 224\)"):
        whole.encode_video(torch.zeros(1, 16, 224, 224, 3))


def test_clips_shorter_than_a_segment_are_refused(encoder, whole):
    with pytest.raises(ValueError, match="15 video frames"):
        encoder(torch.zeros(1, 15, 224, 224, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="15 video frames"):
        whole.encode_video(torch.zeros(1, 15, 3, 224, 224))


# ---- divided attention ----


@pytest.mark.parametrize("across_time", [True, False])
@torch.inference_mode()
def test_divided_attention_is_attention_under_a_mask(across_time):
    torch.manual_seed(3)
    clips, times, places, heads, width = 2, 3, 5, 2, 8
    layer = DividedAttention(width, heads)
    x = torch.randn(clips, 1 + times * places, width)

    token = torch.arange(times * places)
    group = token % places if across_time else token // places
    seen = torch.ones(len(token) + 1, len(token) + 1, dtype=torch.bool)
    seen[1:, 1:] = group[:, None] == group
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=2))
    scores = (q @ k.transpose(2, 3) / math.sqrt(width // heads)).masked_fill(~seen, -torch.inf)
    expected = layer.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    torch.testing.assert_close(layer(x, times, across_time=across_time), expected)


def test_gradients_flow(whole):
    """The features can be trained through: nothing is done in place."""
    whole.zero_grad()
    block = whole.vfeat_extractor.blocks[0]
    block(torch.randn(1, 1569, 768)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    whole.zero_grad()


# ---- sound ----


@pytest.mark.parametrize(("samples", "segments"), [(10240, 1), (15359, 1), (15360, 2), (128000, 24), (160000, 30)])
@torch.inference_mode()
def test_mel_segments(whole, samples, segments):
    assert whole.audio_mel(wave(2, samples)).shape == (2, segments, 128, 66)


@torch.inference_mode()
def test_mel_of_a_tone(whole):
    time = torch.arange(15360) / 16000
    mel = whole.audio_mel(torch.sin(2 * math.pi * 1000 * time)[None])
    # 1000 Hz are 1000 of 2840 HTK mels: with 128 bands of equal width, band 44.
    assert (mel[0, :, :, 5:60].argmax(1) == 44).all()
    # The last frame is zero before normalisation: louder than silence.
    torch.testing.assert_close(mel[..., 65], torch.full((1, 2, 128), 4.2677393 / (2 * 4.5689974)))
    silence = whole.audio_mel(torch.zeros(1, 10240))[..., :65]
    torch.testing.assert_close(silence, torch.full_like(silence, (math.log(1e-6) + 4.2677393) / (2 * 4.5689974)))


@torch.inference_mode()
def test_mel_is_float32_under_autocast():
    segments = wave(1, 10240)[None]
    expected = log_mel(segments)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mel(segments)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@torch.inference_mode()
def test_sound_segments_are_independent(whole, monkeypatch):
    waves = wave(2, 20480)
    together = whole.encode_audio(waves)
    assert together.shape == (2, 3, 6, 768)
    torch.testing.assert_close(whole.encode_audio(waves[1:, 5120:15360])[0, 0], together[1, 1], atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(synchformer, "_AUDIO_CHUNK", 4)
    torch.testing.assert_close(whole.encode_audio(waves), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(10240,), (1, 10239), (1, 2, 10240)])
def test_other_waveforms_are_refused(whole, shape):
    with pytest.raises(ValueError, match="at least 10240 samples"):
        whole.encode_audio(torch.zeros(shape))


# ---- the offset ----


@torch.inference_mode()
def test_logits_of_the_offset_grid(whole):
    logits = whole.compare(torch.randn(2, 14, 8, 768), torch.randn(2, 14, 6, 768))
    grid = whole.offset_grid()
    assert logits.shape == (2, len(grid)) == (2, 21)
    assert (grid[0], grid[10], grid[20]) == (-2.0, 0.0, 2.0)


@pytest.mark.parametrize(
    ("video", "audio"), [((1, 13, 8), (1, 13, 6)), ((1, 30, 8), (1, 14, 6)), ((1, 14, 8), (2, 14, 6))]
)
def test_other_numbers_of_segments_are_refused(whole, video, audio):
    with pytest.raises(ValueError, match=r"cut a window of 14 segments out of both|as many clips"):
        whole.compare(torch.zeros(*video, 768), torch.zeros(*audio, 768))


# ---- official weights ----


def test_whole_model_takes_all_or_nothing(official):
    with torch.device("meta"):
        module = Synchformer()
    module.load_official(official, "sync.pth")
    with pytest.raises(ValueError, match=r"sync.pth: not the weights of Synchformer: 1 unknown \(extra\)"):
        module.load_official({**official, "extra": torch.zeros(1)}, "sync.pth")
    partial = {name: value for name, value in official.items() if name != "vproj.bias"}
    with pytest.raises(ValueError, match=r"1 missing \(vproj.bias\)"):
        module.load_official(partial, "sync.pth")


def test_encoder_takes_its_part_of_the_file(official):
    with torch.device("meta"):
        module = SynchformerEncoder()
    module.load_official(official, "sync.pth")
    assert set(module.state_dict()) == {name for name in official if name.startswith("vfeat_extractor.")}
    with pytest.raises(ValueError, match=r"sync.pth: .* 1 unknown \(loss.weight\)"):
        module.load_official({**official, "loss.weight": torch.zeros(1)}, "sync.pth")
    others = {name: value for name, value in official.items() if not name.startswith("vfeat_extractor.norm")}
    with pytest.raises(ValueError, match="2 missing"):
        module.load_official(others, "sync.pth")


def test_encoder_takes_the_values(encoder):
    given = {name: torch.full_like(value, 0.5) for name, value in encoder.state_dict().items()}
    with torch.device("meta"):
        fresh = SynchformerEncoder()
    fresh.vfeat_extractor.blocks = fresh.vfeat_extractor.blocks[:1]
    fresh.to_empty(device="cpu").load_official({**given, "vproj.bias": torch.zeros(1)}, "sync.pth")
    assert all((value == 0.5).all() for value in fresh.state_dict().values())
